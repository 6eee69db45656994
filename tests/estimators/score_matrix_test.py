"""Labelled scores: rankings, streams, and what is refused."""

import numpy as np
import pytest

from estimators import errors, score_matrix


def _matrix(values, **options):
    values = np.asarray(values)
    defaults = {"train_ids": np.arange(len(values)) + 100, "test_ids": np.arange(values.shape[1]) + 50}
    texts = {"method": "m", "quantity": "q", "unit": "u", "lower_is_better": False}
    return score_matrix.ScoreMatrix(values, **(defaults | texts | options))


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("largest", [True, False])
def test_top_k_is_the_head_of_a_full_sort(rows, largest, tmp_path):
    values = np.random.default_rng(0).integers(0, 6, (40, 5)).astype(np.float32)  # many ties
    stored = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, values.shape)
    stored[...] = values
    found = _matrix(stored).top_k(7, largest=largest, rows=rows)
    for column in range(5):
        order = sorted(range(40), key=lambda i, c=column: (-values[i, c] if largest else values[i, c], i))[:7]
        np.testing.assert_array_equal(found.positions[:, column], order)
        np.testing.assert_array_equal(found.ids[:, column], np.array(order) + 100)
        np.testing.assert_array_equal(found.values[:, column], values[order, column])


def test_scores_that_are_not_defined_come_last_and_are_counted():
    matrix = _matrix([[np.nan, 1.0], [2.0, np.nan], [3.0, np.nan]])
    found = matrix.top_k(2, rows=1)
    np.testing.assert_array_equal(found.positions, [[2, 0], [1, -1]])
    np.testing.assert_array_equal(found.ids, [[102, 100], [101, -1]])
    np.testing.assert_array_equal(found.values, [[3.0, 1.0], [2.0, np.nan]])
    assert matrix.num_undefined == 3
    assert matrix.helpful(0)[-1] == matrix.harmful(0)[-1] == 0


def test_examples_that_lower_a_loss_help():
    values = [[-1.0], [2.0], [0.5]]
    np.testing.assert_array_equal(_matrix(values).helpful(0), [1, 2, 0])
    loss = _matrix(values, lower_is_better=True)
    np.testing.assert_array_equal(loss.helpful(0), [0, 2, 1])
    np.testing.assert_array_equal(loss.harmful(0), [1, 2, 0])
    np.testing.assert_array_equal(loss.helpfulness(0), [1.0, -2.0, -0.5])


def test_examples_are_found_by_their_ids():
    matrix = _matrix(np.zeros((3, 2)))
    assert (matrix.train_row(102), matrix.test_column(51)) == (2, 1)
    with pytest.raises(errors.InvalidArgumentError, match=r"test_id 7: the scores are of 2 examples .* from 50 to 51"):
        matrix.test_column(7)
    with pytest.raises(errors.InvalidArgumentError, match="train_id 99"):
        matrix.train_row(99)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(errors.InvalidArgumentError, match="scores of dtype int64"):
        _matrix(np.zeros((3, 2), np.int64))
    with pytest.raises(errors.MismatchError, match=r"train_ids of dtype int64 and shape \(2,\) .* expected 3 integers"):
        _matrix(np.zeros((3, 2)), train_ids=np.arange(2))
    with pytest.raises(errors.MismatchError, match="test_ids of dtype float64"):
        _matrix(np.zeros((3, 2)), test_ids=np.zeros(2))
    with pytest.raises(errors.MismatchError, match=r"residuals of shape \(3,\) beside 2 test examples"):
        _matrix(np.zeros((3, 2)), residuals=np.zeros(3))
    for k, rows in ((0, 1), (4, 1), (1, 0)):
        with pytest.raises(errors.InvalidArgumentError, match=f"k {k}, rows {rows}"):
            _matrix(np.zeros((3, 2))).top_k(k, rows=rows)


def test_arrays_to_be_filled_are_checked():
    out = np.zeros((3, 2), np.float32)
    assert score_matrix.output_array(out, 3, 2, np.float64) is out
    assert score_matrix.output_array(None, 3, 2, np.float64).dtype == np.float64
    out.setflags(write=False)
    for wrong in (np.zeros((2, 3)), np.zeros((3, 2), int), out):
        with pytest.raises(errors.MismatchError, match=r"expected a writeable array of floats \(3, 2\)"):
            score_matrix.output_array(wrong, 3, 2, np.float64)

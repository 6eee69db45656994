"""Margins: log(p / (1 - p)) of the softmax, and those of an experiment together."""

import shutil

import numpy as np
import pytest

from heldout.evaluation import margins
from zoo import aux_arrays, errors, layout, run_table_update


def test_the_margin_is_the_log_odds_of_the_label():
    generator = np.random.default_rng(0)
    logits, label = generator.normal(size=(50, 7)) * 3, generator.integers(0, 7, 50)
    found = margins.margins(logits.astype(np.float32), label)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    of_label = probability[np.arange(50), label]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.log(of_label / (1 - of_label)), rtol=1e-3, atol=1e-3)
    # More likely than all others together: right, whatever the others are.
    assert np.all(np.argmax(logits, axis=1)[found > 0] == label[found > 0])


def test_large_logits_neither_overflow_nor_cancel():
    logits = np.array([[1000.0, 990.0, -1000.0], [-3e4, -3e4, 0.0]])
    assert margins.margins(logits, np.array([0, 0])).tolist() == [10, -30000]
    # In float32 the probability would be 1, and its log odds infinite.
    assert margins.margins(np.array([[200.0, 0.0]], np.float32), np.array([0])).tolist() == [200]


def test_what_float16_cannot_hold_is_clipped():
    logits = np.array([[1e6, 0.0], [0.0, 1e6], [1e38, -1e38]], np.float32)
    found = margins.margins(logits, np.array([0, 0, 0]))
    assert found.tolist() == [65504, -65504, 65504]


def test_a_single_class_has_no_rival():
    assert margins.margins(np.array([[3.0], [-3.0]]), np.array([0, 0])).tolist() == [65504, 65504]


@pytest.fixture
def zoo(tmp_path):
    generator = np.random.default_rng(1)
    for ratio, run_id in ((0.5, 0), (0.5, 1), (0.5, 2), (0.7, 0)):
        mask = np.zeros(10, bool)
        mask[generator.permutation(10)[: round(ratio * 10)]] = True
        stored = None
        if run_id != 1:
            first = 100 * ratio + 10 * run_id
            stored = np.arange(10).astype(np.float16) + np.float16(first), -np.arange(4).astype(np.float16)
        aux = aux_arrays.from_masks(mask, generator.random(10) < 0.5, generator.random(4) < 0.5, stored)
        aux_arrays.write(layout.Run(tmp_path, "e", ratio, run_id).aux_arrays_path, aux)
    return tmp_path


def test_margins_of_all_runs_are_collected_in_the_order_of_the_table(zoo):
    train, test = margins.collect(zoo, "e")
    assert (train.dtype, train.shape, test.dtype, test.shape) == (np.float16, (4, 10), np.float16, (4, 4))
    table, _ = run_table_update.update(zoo, "e")
    assert list(zip(table.subset_ratio, table.run_id, strict=True)) == [(0.5, 0), (0.5, 1), (0.5, 2), (0.7, 0)]
    assert train[:, 3].tolist()[::2] == [53, 73]
    assert train[3].tolist() == [70 + i for i in range(10)]
    assert np.isnan(train[1]).all()
    assert np.isnan(test[1]).all()
    assert test[2].tolist() == [0, -1, -2, -3]


def test_runs_that_only_the_table_knows_have_no_margins(zoo):
    margins.collect(zoo, "e")
    shutil.rmtree(layout.Run(zoo, "e", 0.5, 0).directory)
    layout.Run(zoo, "e", 0.5, 2).aux_arrays_path.unlink()
    train, test = margins.collect(zoo, "e")
    assert np.isnan(train).all(axis=1).tolist() == np.isnan(test).all(axis=1).tolist() == [True, True, True, False]


def test_an_experiment_without_runs_has_no_margins(tmp_path):
    (tmp_path / "e").mkdir()
    with pytest.raises(errors.MissingFileError, match="e"):
        margins.collect(tmp_path, "e")

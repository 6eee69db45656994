"""Influence between classes against plain loops over pairs."""

import dataclasses
import math
import statistics
import tracemalloc

import numpy as np
import pytest

from heldout.scoring import cross_class
from tests.heldout.report import simulated
from zoo import errors


def case(seed, num_train=23, num_test=17, num_classes=4):
    """Class 3 has no test example, class 2 one training example; one row is NaN, and one value of another."""
    generator = np.random.default_rng(seed)
    # Steps of a hundredth, so that values are equal now and then.
    matrix = np.round(generator.normal(0, 0.2, (num_train, num_test)), 2).astype(np.float32)
    matrix[5], matrix[6, 3] = np.nan, np.nan
    train_label = generator.choice([0, 1, 3], num_train)
    train_label[4] = 2
    return matrix, train_label, generator.integers(0, num_classes - 1, num_test)


def plain_tables(matrix, train_label, test_label, num_classes):
    """(mean, deviation, pairs, undefined, positive, negative) of each pair of classes, value by value."""
    tables = np.zeros((6, num_classes, num_classes))
    for a in range(num_classes):
        for b in range(num_classes):
            values = [float(v) for i, row in enumerate(matrix) for j, v in enumerate(row)
                      if train_label[i] == a and test_label[j] == b]  # fmt: skip
            known = [v for v in values if not math.isnan(v)]
            tables[:, a, b] = (
                statistics.fmean(known) if known else math.nan,
                statistics.stdev(known) if len(known) > 1 else math.nan,
                len(known),
                len(values) - len(known),
                sum(v for v in known if v > 0),
                sum(v for v in known if v < 0),
            )
    return tables


def plain_strongest(matrix, train_label, test_label, sign, number):
    """(train, test, value) of the strongest pairs of two classes, by sorting all of them."""
    pairs = [
        (-sign * float(v), i, j, float(v))
        for i, row in enumerate(matrix)
        for j, v in enumerate(row)
        if train_label[i] != test_label[j] and sign * v > 0
    ]
    return [(i, j, v) for _, i, j, v in sorted(pairs)[:number]]


def as_tuples(pairs):
    return list(zip(pairs.train_index, pairs.test_index, pairs.subset_influence, strict=True))


@pytest.mark.parametrize("memory_limit_bytes", [1, 4000, 1 << 20])
def test_tables_equal_plain_loops_whatever_the_block(memory_limit_bytes):
    matrix, train_label, test_label = case(0)
    found = cross_class.cross_class_influence(
        matrix, train_label, test_label, num_classes=5, num_strongest=30, memory_limit_bytes=memory_limit_bytes
    )
    mean, deviation, pairs, undefined, positive, negative = plain_tables(matrix, train_label, test_label, 5)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.standard_deviation, deviation, rtol=1e-9)
    np.testing.assert_array_equal(found.num_pairs, pairs)
    np.testing.assert_array_equal(found.num_undefined, undefined)
    np.testing.assert_allclose(found.positive_sum, positive, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.negative_sum, negative, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found.num_rows_left_out, np.bincount(train_label[[5]], minlength=5))
    assert np.isnan(found.mean[:, 4]).all()
    assert found.num_pairs.sum() + found.num_undefined.sum() == matrix.size
    for sign, strongest in ((1, found.helpful), (-1, found.harmful)):
        assert as_tuples(strongest) == plain_strongest(matrix, train_label, test_label, sign, 30)
        assert strongest.train_index.dtype == np.int64


def test_fewer_pairs_than_asked_for():
    matrix = np.array([[0.5, -0.25], [0, 0.75]], np.float32)
    found = cross_class.cross_class_influence(matrix, np.array([0, 1]), np.array([0, 1]), num_strongest=3)
    assert as_tuples(found.helpful) == []
    assert as_tuples(found.harmful) == [(0, 1, -0.25)]
    assert as_tuples(cross_class.cross_class_influence(matrix, *2 * [np.array([0, 1])], num_strongest=0).harmful) == []


def test_equal_values_have_no_spread():
    found = cross_class.cross_class_influence(np.full((40, 30), 0.1, np.float32), np.zeros(40, int), np.zeros(30, int))
    assert found.standard_deviation[0, 0] < 1e-8
    assert found.mean[0, 0] == pytest.approx(np.float32(0.1))


def test_memory_stays_below_the_limit():
    generator = np.random.default_rng(1)
    matrix = generator.normal(0, 0.1, (2000, 1500)).astype(np.float32)
    labels = generator.integers(0, 10, 2000), generator.integers(0, 10, 1500)
    tracemalloc.start()
    cross_class.cross_class_influence(matrix, *labels, memory_limit_bytes=1 << 21)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1 << 21) + (1 << 18)


def test_saved_scores_give_their_matrix_and_labels():
    saved = simulated.saved()
    found = cross_class.of_saved(saved, 0.5, num_strongest=1)
    # Training example 7 decides about test example 5: classes 1 and 2.
    assert as_tuples(found.helpful) == [(simulated.MEMORIZED, simulated.DEPENDENT_TEST, 1.0)]
    assert found.num_rows_left_out.tolist() == [0, 0, 1]
    with pytest.raises(errors.InvalidValueError, match=r"subset_ratio is 0\.4, but scores has scores at 0\.5, 0\.8"):
        cross_class.of_saved(saved, 0.4)
    kept = {0.5: dataclasses.replace(saved.ratios[0.5], subset_influence=None)}
    with pytest.raises(errors.InvalidValueError, match="was not kept; compute the scores with --matrix=yes"):
        cross_class.of_saved(dataclasses.replace(saved, ratios=kept), 0.5)
    with pytest.raises(errors.InvalidValueError, match=r"carry no labels.*compute_scores --dataset"):
        cross_class.of_saved(dataclasses.replace(saved, train_label=None), 0.5)


def test_what_does_not_fit_is_refused():
    matrix, train_label, test_label = case(2)
    with pytest.raises(errors.MismatchError, match=r"train_label \(22,\) and test_label \(17,\); expected \(23,\)"):
        cross_class.cross_class_influence(matrix, train_label[1:], test_label)
    with pytest.raises(errors.InvalidValueError, match="got 0 to 3, expected 0 to 2; give num_classes"):
        cross_class.cross_class_influence(matrix, train_label, test_label, num_classes=3)
    with pytest.raises(errors.InvalidValueError, match="got -1 to"):
        cross_class.cross_class_influence(matrix, train_label - 1, test_label)
    with pytest.raises(errors.InvalidValueError, match="num_strongest: got -1"):
        cross_class.cross_class_influence(matrix, train_label, test_label, num_strongest=-1)

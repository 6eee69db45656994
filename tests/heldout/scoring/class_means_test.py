"""Mean influence between classes against plain loops over all pairs, and its errors against repeated draws of a zoo."""

import numpy as np
import pytest

from heldout.scoring import class_means, cross_class, influence_matrix, saved_scores
from tests.reference import scores as reference
from zoo import errors, run_table

TRAIN_LABEL, TEST_LABEL = np.array([0, 1, 1, 3, 0, 1, 3, 3, 0, 2, 1]), np.array([1, 0, 0, 3, 4, 1, 0])


def table(mask, test, train_label=TRAIN_LABEL, test_label=TEST_LABEL):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, 0.5), mask, mask, test, train_label, test_label
    )


def case(seed=0, num_runs=30):
    """All runs hold training example 3 out, all train on 9, the only one of class 2; class 2 has no test example."""
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, len(TRAIN_LABEL))) < 0.5
    mask[:, 3], mask[:, 9] = False, True
    return mask, generator.random((num_runs, len(TEST_LABEL))) < 0.3 + 0.5 * mask[:, : len(TEST_LABEL)]


def plain_errors(mask, test, num_classes):
    """Run by run, from the weights that each run has in an influence."""
    error = np.full((num_classes, num_classes), np.nan)
    for a in range(num_classes):
        for b in range(num_classes):
            rows = [i for i in np.flatnonzero(a == TRAIN_LABEL) if 0 < mask[:, i].sum() < len(mask)]
            columns = np.flatnonzero(b == TEST_LABEL)
            if not rows or not len(columns):
                continue
            share = [np.mean(run[columns]) for run in test]
            parts = []
            for t, run in enumerate(mask):
                weights = [1 / mask[:, i].sum() if run[i] else -1 / (~mask[:, i]).sum() for i in rows]
                parts.append(np.mean(weights) * (share[t] - np.mean(share)))
            error[a, b] = np.sqrt(len(mask) * np.var(parts, ddof=1))
    return error


def test_means_are_those_of_all_pairs():
    mask, test = case()
    found = class_means.of_runs(table(mask, test))
    influence, _ = reference.subset_influence(mask, test)
    for a in range(5):
        for b in range(5):
            values = influence[np.ix_(a == TRAIN_LABEL, b == TEST_LABEL)]
            known = values[~np.isnan(values)]
            assert found.num_pairs[a, b] == known.size
            if known.size:
                assert found.mean[a, b] == pytest.approx(known.mean(), abs=1e-12)
            else:
                assert np.isnan([found.mean[a, b], found.standard_error[a, b]]).all()
    np.testing.assert_allclose(found.standard_error, plain_errors(mask, test, 5), rtol=1e-9)
    assert found.num_train.tolist() == [3, 4, 0, 2, 0]
    assert found.num_undefined.tolist() == [0, 0, 1, 1, 0]
    assert found.num_test.tolist() == [3, 2, 0, 1, 1]
    assert (found.num_runs, found.num_classes) == (30, 5)


def test_means_are_those_of_the_matrix():
    generator = np.random.default_rng(1)
    mask, test = generator.random((90, 200)) < 0.6, generator.random((90, 70)) < 0.7
    labels = generator.integers(0, 6, 200), generator.integers(0, 6, 70)
    runs = table(mask, test, *labels)
    matrix = np.concatenate([block.values for block in influence_matrix.subset_influence_blocks(runs, 0.5)])
    wanted = cross_class.cross_class_influence(matrix, *labels)
    found = class_means.of_runs(runs)
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-7)
    np.testing.assert_array_equal(found.num_pairs, wanted.num_pairs)


def test_errors_are_the_spread_over_zoos():
    """Each test class gains with the training examples of its number, and loses with those of the next."""
    num_zoos, num_runs, generator = 300, 60, np.random.default_rng(2)
    train_label, test_label = np.arange(60) % 3, np.arange(30) % 3
    means, variances = [], []
    for _ in range(num_zoos):
        mask = np.stack([generator.permutation(60) < 30 for _ in range(num_runs)])
        count = np.stack([mask[:, train_label == a].sum(axis=1) for a in range(3)], axis=1) - 10
        # Runs differ as a whole, too, which the errors of single pairs know nothing of.
        skill = 0.15 * generator.normal(size=(num_runs, 1))
        rate = np.clip(0.5 + 0.03 * count - 0.03 * np.roll(count, -1, axis=1) + skill, 0, 1)
        test = generator.random((num_runs, 30)) < rate[:, test_label]
        found = class_means.of_runs(table(mask, test, train_label, test_label))
        means.append(found.mean)
        variances.append(found.standard_error**2)
    spread = np.var(means, axis=0, ddof=1)
    # The variance of 300 draws has a relative standard error of sqrt(2 / 299), 0.08; there are nine of them.
    np.testing.assert_allclose(np.mean(variances, axis=0), spread, rtol=0.33)
    assert np.mean(np.mean(variances, axis=0) / spread) == pytest.approx(1, abs=0.12)
    average = np.mean(means, axis=0)
    assert (np.diag(average) > 0).all()
    assert (average[[1, 2, 0], [0, 1, 2]] < 0).all()


def test_all_training_examples_together_add_up_to_nothing():
    """Subsets of one size, every example in as many of them: whatever is gained by one is lost by others."""
    cycle = np.stack([np.roll(np.arange(12) < 5, shift) for shift in range(12)])
    test = np.random.default_rng(3).random((12, 5)) < 0.5
    found = class_means.of_runs(table(cycle, test, np.arange(12) % 4, np.zeros(5, int)))
    np.testing.assert_allclose(found.mean[:, 0] @ found.num_train, 0, atol=1e-12)
    assert np.abs(found.mean[:, 0]).max() > 0.01


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_threads_do_not_matter(monkeypatch, threads):
    mask, _ = case()
    weight = np.random.default_rng(4).normal(size=mask.shape[1])
    monkeypatch.setattr(class_means, "_STEP", 3)
    monkeypatch.setattr(class_means.workers, "num_cores", lambda: threads)
    wanted = np.stack([mask[:, a == TRAIN_LABEL] @ weight[a == TRAIN_LABEL] for a in range(4)], axis=1)
    found = class_means.class_sums(table(mask, mask[:, :7]).subset_mask_bits, TRAIN_LABEL, weight, 4)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_one_run_has_no_influence():
    mask, test = case(num_runs=1)
    found = class_means.of_runs(table(mask, test))
    assert np.isnan(found.mean).all()
    assert np.isnan(found.standard_error).all()
    assert found.num_undefined.sum() == len(TRAIN_LABEL)


def test_what_all_runs_get_right_has_neither_mean_nor_error():
    mask, test = case()
    found = class_means.of_runs(table(mask, np.ones_like(test)))
    np.testing.assert_allclose(found.mean[0], [0, 0, np.nan, 0, 0], atol=1e-15)
    np.testing.assert_allclose(found.standard_error[0], [0, 0, np.nan, 0, 0], atol=1e-15)


def test_written_means_are_read(tmp_path):
    found = class_means.of_runs(table(*case()))
    path = tmp_path / class_means.file_name(0.5)
    assert path.name == "cross_class-0.5.npz"
    common = saved_scores.common_members({"experiment": "demo"}, TRAIN_LABEL, TEST_LABEL)
    class_means.write(path, found, 0.5, common)
    again = class_means.read(path)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    with np.load(path) as stored:
        members = dict(stored)
    np.savez(path, **{**members, "mean": found.mean[1:]})
    with pytest.raises(
        errors.DamagedFileError, match=r"mean has dtype float64 and shape \(4, 5\), expected .*\(5, 5\)"
    ):
        class_means.read(path)
    np.savez(path, **{**members, "schema_version": 1})
    with pytest.raises(errors.DamagedFileError, match="schema version 1, expected 2; use the program version"):
        class_means.read(path)


def test_columns_have_a_row_for_each_pair_of_classes():
    found = class_means.of_runs(table(*case()))
    columns = class_means.columns(0.5, found)
    assert {len(column) for column in columns.values()} == {25}
    for row in range(25):
        a, b = columns["train_class"][row], columns["test_class"][row]
        np.testing.assert_equal(columns["mean_influence"][row], found.mean[a, b])
        np.testing.assert_equal(columns["mean_influence_standard_error"][row], found.standard_error[a, b])
        assert (columns["num_train"][row], columns["num_test"][row]) == (found.num_train[a], found.num_test[b])
    assert (columns["subset_ratio"] == 0.5).all()


def test_labels_that_cannot_be_meant_are_refused():
    mask, test = case()
    with pytest.raises(errors.InvalidValueError, match=r"demo has no labels.*name its data set with --dataset"):
        class_means.of_runs(table(mask, test, None, None))
    with pytest.raises(errors.InvalidValueError, match="got -1, expected 0 or more"):
        class_means.of_runs(table(mask, test, TRAIN_LABEL - 1))

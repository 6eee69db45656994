"""Scores of every kind read for a comparison, and labels that agree, disagree, or are missing."""

import dataclasses
import pathlib

import numpy as np
import pytest

from heldout.scoring import published_formats, saved_scores, score_sources
from tests.heldout.scoring import scored_zoos
from zoo import errors

N, M = scored_zoos.N, scored_zoos.M


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scores of a small zoo at ratios 0.3 and 0.7, with labels."""
    return scored_zoos.write(tmp_path_factory.mktemp("sources"), range(30))


@pytest.fixture(scope="module")
def saved(folder):
    return saved_scores.load(folder)


def test_a_folder(folder, saved):
    source = score_sources.read(folder, 0.7)
    assert source.statistics == ("memorization", "consistency", "influence")
    assert (source.kind, source.name, source.subset_ratio) == ("score files", "demo", 0.7)
    np.testing.assert_array_equal(source.vectors["memorization"], saved.ratios[0.7].memorization.values)
    np.testing.assert_array_equal(source.vectors["consistency"], saved.consistency.score)
    np.testing.assert_array_equal(source.train_label, scored_zoos.TRAIN_LABEL)
    np.testing.assert_array_equal(source.test_label, scored_zoos.TEST_LABEL)
    index = np.arange(M), np.arange(M)
    np.testing.assert_array_equal(source.influence.values(*index), saved.ratios[0.7].subset_influence[index])


def test_a_folder_of_several_ratios_wants_a_choice(folder):
    source = score_sources.read(folder)
    assert source.statistics == ("consistency",)
    with pytest.raises(errors.InvalidValueError, match=r"--statistic=memorization: .*has consistency \(and more where"):
        score_sources.common_statistic(source, score_sources.read(folder, 0.7), "memorization")
    with pytest.raises(errors.InvalidValueError, match=r"--subset_ratio=0\.5: .* has scores at 0\.3, 0\.7"):
        score_sources.read(folder, 0.5)


def test_a_folder_of_one_ratio_needs_none_and_may_lack_the_matrix(tmp_path):
    kept, lists = (scored_zoos.write(tmp_path / name, range(30), (0.7,), matrix=name) for name in ("yes", "no"))
    whole, listed = score_sources.read(kept), score_sources.read(lists)
    assert whole.subset_ratio == listed.subset_ratio == 0.7
    assert whole.influence.shape == (N, M)
    assert listed.influence.shape is None
    found = listed.influence.high_pairs(0.15, 0.25)
    assert found.shape[1] > 0
    np.testing.assert_array_equal(found, whole.influence.high_pairs(0.15, 0.25))
    np.testing.assert_array_equal(listed.influence.values(*found), whole.influence.values(*found))
    np.testing.assert_array_equal(listed.influence.high_pairs(-np.inf, -np.inf), found)
    for thresholds, message in (
        (
            (0.1, 0.25),
            r"pairs_influence: got 0\.1, but .* lists pairs from 0\.15 on; give --pairs_influence=0\.15",
        ),
        ((0.2, 0.0), r"pairs_memorization: got 0, but .* lists pairs from 0\.25 on"),
    ):
        assert whole.influence.high_pairs(*thresholds).shape[1] > 0
        with pytest.raises(errors.InvalidValueError, match=message):
            listed.influence.high_pairs(*thresholds)


def test_published_files(folder, saved, tmp_path):
    cscores = score_sources.read(folder / "published" / "cscores.npz")
    assert (cscores.kind, cscores.statistics) == ("C-scores", ("consistency",))
    np.testing.assert_array_equal(cscores.vectors["consistency"], saved.consistency.score)
    np.testing.assert_array_equal(cscores.train_label, saved.train_label)

    classes = score_sources.read(folder / "published" / "class_influence-0.7.npz")
    assert (classes.kind, classes.statistics) == ("class-wise influence", ("memorization", "influence"))
    np.testing.assert_array_equal(classes.vectors["memorization"], saved.ratios[0.7].memorization.values)
    np.testing.assert_array_equal(classes.test_label, saved.test_label)

    path = folder / "published" / "high_influence_pairs-0.7.npz"
    stored, pairs = published_formats.read_high_influence_pairs(path), score_sources.read(path)
    assert (pairs.kind, pairs.statistics) == ("high-influence pairs", ("memorization", "influence"))
    assert pairs.train_label is None
    memorization = pairs.vectors["memorization"]
    np.testing.assert_array_equal(memorization[stored.train_index], stored.memorization)
    assert np.isnan(np.delete(memorization, stored.train_index)).all()

    np.save(tmp_path / "mnist.npy", np.linspace(0, 1, 60000))
    assert score_sources.read(tmp_path / "mnist.npy").vectors["consistency"][-1] == 1

    names, labels = np.array(["a", "b"]), np.array([3, 4])
    index = {"tr_filenames": names, "tr_labels": labels, "tt_filenames": names, "tt_labels": labels}
    np.savez(tmp_path / "index.npz", **index, tr_mem=np.array([0.5, 1]))
    imagenet = score_sources.read(tmp_path / "index.npz")
    assert (imagenet.kind, imagenet.statistics) == ("ImageNet index", ("memorization",))
    assert imagenet.train_label.tolist() == [3, 4]


def test_what_holds_no_scores_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(errors.DamagedFileError, match=r"other\.npz: holds none of the members tr_idx, "):
        score_sources.read(tmp_path / "other.npz")
    with pytest.raises(errors.MissingFileError, match="none"):
        score_sources.read(tmp_path / "none.npz")
    with pytest.raises(errors.MissingFileError, match=r"config\.json"):
        score_sources.read(tmp_path)


def source_of(path, **fields):
    return score_sources.Source(pathlib.Path(path), "C-scores", path, **fields)


def test_the_statistic_is_the_first_that_both_have(folder):
    whole, pairs = score_sources.read(folder, 0.7), folder / "published" / "high_influence_pairs-0.7.npz"
    cscores = score_sources.read(folder / "published" / "cscores.npz")
    assert score_sources.common_statistic(whole, whole, None) == "memorization"
    assert score_sources.common_statistic(whole, whole, "influence") == "influence"
    assert score_sources.common_statistic(whole, cscores, None) == "consistency"
    assert score_sources.common_statistic(whole, score_sources.read(pairs), None) == "influence"
    with pytest.raises(
        errors.InvalidValueError, match=r"nothing in common to compare: .*cscores.* has consistency and"
    ):
        score_sources.common_statistic(cscores, score_sources.read(pairs), None)


def test_lists_are_as_long_as_what_they_are_compared_with(folder):
    whole, path = score_sources.read(folder, 0.7), folder / "published" / "high_influence_pairs-0.7.npz"
    pairs = score_sources.read(path)
    first, second = score_sources.aligned(pairs, whole, "memorization")
    assert len(first) == len(second) == N
    known = ~np.isnan(first)
    np.testing.assert_array_equal(first[known], second[known])
    assert 0 < known.sum() < N
    long = dataclasses.replace(pairs, vectors={"memorization": np.zeros(N + 1)})
    short = dataclasses.replace(whole, vectors={"memorization": np.zeros(N - 1)})
    for one, other in ((long, whole), (whole, short)):
        with pytest.raises(errors.MismatchError, match=r"has scores of \d+ examples, .* of \d+: they are of different"):
            score_sources.aligned(one, other, "memorization")


def test_equal_labels_prove_the_order(folder):
    whole, cscores = score_sources.read(folder, 0.7), score_sources.read(folder / "published" / "cscores.npz")
    assert score_sources.check_order(whole, cscores, "consistency") == {"train": True}
    assert score_sources.check_order(whole, whole, "influence") == {"train": True, "test": True}
    pairs = score_sources.read(folder / "published" / "high_influence_pairs-0.7.npz")
    assert score_sources.check_order(whole, pairs, "influence") == {"train": False, "test": False}


def test_other_labels_are_refused_with_what_could_explain_them():
    label = np.array([0, 1, 2, 2, 1, 0])
    first = source_of("a", train_label=label, test_label=label)
    moved = source_of("b", train_label=label[[0, 1, 2, 4, 3, 5]], test_label=label)
    message = (
        r"^a and b: the train labels part at index 3, where the first has 2 and the second 1; 2 of 6 differ\. "
        r"Every label is there equally often in both, so they may be the same examples in another order"
    )
    with pytest.raises(errors.MismatchError, match=message):
        score_sources.check_order(first, moved, "memorization")
    changed = source_of("b", train_label=label, test_label=np.array([0, 1, 2, 2, 7, 0]))
    assert score_sources.check_order(first, changed, "memorization") == {"train": True}
    message = (
        r"the test labels part at index 4, .* 1 of 6 differ\. No reordering explains that: label 1 is there 2 times "
    )
    with pytest.raises(errors.MismatchError, match=message + "in the first and 1 times in the second"):
        score_sources.check_order(first, changed, "influence")
    with pytest.raises(errors.MismatchError, match="have 6 and 5 train labels; they are of different data sets"):
        score_sources.check_order(first, source_of("b", train_label=label[:5]), "consistency")

"""Summaries come back as they were written; damaged ones are refused with the file and the member named."""

import dataclasses
import re

import numpy as np
import pytest

from heldout.scoring import influence_extremes, influence_summary
from zoo import errors, npz

_NUM_TRAIN, _NUM_TEST, _K = 6, 4, 3
_SCALARS = ("least_influence", "least_memorization", "least_z")


def strongest(generator, size, others):
    helpful, harmful = generator.random((2, size, _K)).astype(np.float32)
    index = generator.integers(0, others, (2, size, _K)).astype(np.int32)
    helpful[0], index[0, 0] = np.nan, -1
    return influence_extremes.Strongest(-np.sort(-helpful), index[0], np.sort(-harmful), index[1])


def pair_list(generator, size):
    return influence_summary.PairList(
        np.sort(generator.integers(0, _NUM_TRAIN, size)).astype(np.int32),
        generator.integers(0, _NUM_TEST, size).astype(np.int32),
        generator.uniform(-1, 1, size).astype(np.float32),
    )


def make_summary(seed=0, num_pairs=5, num_candidates=2):
    generator = np.random.default_rng(seed)
    return influence_summary.InfluenceSummary(
        bin_counts=generator.integers(0, 1 << 40, influence_extremes.NUM_BINS),
        largest_per_test=np.array([0.5, np.nan, 1, 0], np.float32),
        by_train=strongest(generator, _NUM_TRAIN, _NUM_TEST),
        by_test=strongest(generator, _NUM_TEST, _NUM_TRAIN),
        pairs=pair_list(generator, num_pairs),
        candidates=pair_list(generator, num_candidates),
        least_influence=0.15,
        least_memorization=0.25,
        least_z=5.0,
    )


def assert_same(found, expected):
    """Equal in type, dtype, shape and value, at every depth."""
    assert type(found) is type(expected)
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    else:
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("num_pairs", "num_candidates"), [(5, 2), (0, 3), (4, 0), (0, 0)])
def test_read_gives_what_was_written(tmp_path, num_pairs, num_candidates):
    summary, path = make_summary(1, num_pairs, num_candidates), tmp_path / "influence-0.7.npz"
    influence_summary.write(path, summary, {})
    found = influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)
    assert_same(found, summary)
    assert (len(found.pairs), len(found.candidates)) == (num_pairs, num_candidates)


def test_fields_do_not_change_places(tmp_path):
    """The members of the file are named after what they hold."""
    summary, path = make_summary(2), tmp_path / "a.npz"
    influence_summary.write(path, summary, {})
    names = {
        "bin_counts": summary.bin_counts,
        "largest_per_test": summary.largest_per_test,
        "by_train_helpful": summary.by_train.helpful,
        "by_train_helpful_index": summary.by_train.helpful_index,
        "by_train_harmful": summary.by_train.harmful,
        "by_train_harmful_index": summary.by_train.harmful_index,
        "by_test_helpful": summary.by_test.helpful,
        "by_test_helpful_index": summary.by_test.helpful_index,
        "by_test_harmful": summary.by_test.harmful,
        "by_test_harmful_index": summary.by_test.harmful_index,
        "pairs_train_index": summary.pairs.train_index,
        "pairs_test_index": summary.pairs.test_index,
        "pairs_value": summary.pairs.value,
        "candidates_train_index": summary.candidates.train_index,
        "candidates_test_index": summary.candidates.test_index,
        "candidates_value": summary.candidates.value,
        "least_influence": 0.15,
        "least_memorization": 0.25,
        "least_z": 5.0,
    }
    with np.load(path) as written:
        assert set(written.files) == set(names)
        for name, value in names.items():
            np.testing.assert_array_equal(written[name], value, err_msg=name)
    assert set(influence_summary.members(summary)) == set(names)


def test_further_members_are_kept_and_do_not_disturb(tmp_path):
    summary, path = make_summary(3), tmp_path / "a.npz"
    influence_summary.write(path, summary, {"digest": np.array("abc"), "num_in": np.arange(6)})
    assert_same(influence_summary.read(path, _NUM_TRAIN, _NUM_TEST), summary)
    np.testing.assert_array_equal(npz.read(path, ["num_in"])["num_in"], np.arange(6))
    influence_summary.write(path, summary, {"bin_counts": np.zeros(3)})
    assert_same(influence_summary.read(path, _NUM_TRAIN, _NUM_TEST), summary)


def test_no_file(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"influence-0\.7\.npz"):
        influence_summary.read(tmp_path / "influence-0.7.npz", _NUM_TRAIN, _NUM_TEST)


@pytest.mark.parametrize("length", [0, 100, 2000])
def test_truncated_file(tmp_path, length):
    path = tmp_path / "influence-0.7.npz"
    influence_summary.write(path, make_summary(), {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(errors.DamagedFileError, match=r"influence-0\.7\.npz"):
        influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)


def damaged(tmp_path, **changed):
    """A file with members in place of others; None drops one."""
    path = tmp_path / "influence-0.7.npz"
    arrays = {**influence_summary.members(make_summary()), **changed}
    npz.write(path, {name: np.asarray(array) for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("name", influence_summary.members(make_summary()))
def test_missing_member(tmp_path, name):
    path = damaged(tmp_path, **{name: None})
    with pytest.raises(errors.DamagedFileError, match=rf"{re.escape(str(path))}.*lacks {name};"):
        influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)


@pytest.mark.parametrize("name", influence_summary.members(make_summary()))
def test_member_that_is_no_number(tmp_path, name):
    array = influence_summary.members(make_summary())[name]
    path = damaged(tmp_path, **{name: array.astype(str)})
    with pytest.raises(errors.DamagedFileError, match=rf"{re.escape(str(path))}: {name} has dtype <U.*delete it"):
        influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)


# The other members of a list follow its values, and k follows the first list.
_FOLLOWED = {"by_train_helpful": "by_train_helpful_index"} | {
    f"{part}_value": f"{part}_train_index" for part in ("pairs", "candidates")
}


@pytest.mark.parametrize("name", influence_summary.members(make_summary()))
def test_member_of_another_shape(tmp_path, name):
    array = influence_summary.members(make_summary())[name]
    other = np.zeros((*array.shape[:-1], array.shape[-1] + 1) if array.ndim else (1,), array.dtype)
    path = damaged(tmp_path, **{name: other})
    expected = (
        rf"{re.escape(str(path))}: {_FOLLOWED.get(name, name)} has dtype .* and shape .*expected numbers of shape"
    )
    with pytest.raises(errors.DamagedFileError, match=expected):
        influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)


@pytest.mark.parametrize("shape", [(), (_NUM_TRAIN,), (_NUM_TRAIN, _K, 1)])
def test_first_list_of_another_dimension(tmp_path, shape):
    path = damaged(tmp_path, by_train_helpful=np.zeros(shape, np.float32))
    with pytest.raises(errors.DamagedFileError, match=r"influence-0\.7\.npz: by_train_helpful has .*shape \(6, 0\)"):
        influence_summary.read(path, _NUM_TRAIN, _NUM_TEST)


@pytest.mark.parametrize(
    ("num_train", "num_test", "name"), [(7, 4, "by_train_helpful"), (6, 5, "largest_per_test"), (4, 6, "largest")]
)
def test_other_numbers_of_examples(tmp_path, num_train, num_test, name):
    path = damaged(tmp_path)
    with pytest.raises(errors.DamagedFileError, match=rf"influence-0\.7\.npz: {name}.*expected numbers of shape"):
        influence_summary.read(path, num_train, num_test)


def test_joined_lists_are_ordered():
    generator = np.random.default_rng(7)
    # Every pair occurs once, and the value tells which.
    cells = generator.permutation(30 * 40)[:500]
    parts = [
        influence_summary.PairList(
            (part // 40).astype(np.int32), (part % 40).astype(np.int32), (part / 1200).astype(np.float32)
        )
        for part in np.split(cells, [10, 10, 200, 480])
    ]
    cells = np.sort(cells)
    expected = influence_summary.PairList(
        (cells // 40).astype(np.int32), (cells % 40).astype(np.int32), (cells / 1200).astype(np.float32)
    )
    assert_same(influence_summary.PairList.joined(parts), expected)
    assert_same(influence_summary.PairList.joined(parts[::-1]), expected)
    assert len(influence_summary.PairList.joined(parts)) == 500
    assert len(influence_summary.PairList.joined(parts[1:2])) == 0

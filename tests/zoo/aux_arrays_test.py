"""Records of single runs: translation to original order, and refusal of records that do not add up."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo import corruptions
from zoo import aux_arrays, errors, npz

# Six training examples, four of them trained on, three test examples, all in shuffled order as in the published files.
STORED = {
    "correctness_train": np.array([True, False, True, True]),
    "correctness_removed": np.array([False, True]),
    "correctness_test": np.array([True, True, False]),
    "index_train": np.array([5, 0, 2, 3]),
    "index_removed": np.array([4, 1]),
    "index_test": np.array([2, 0, 1]),
    "subsample_idx": np.array([0, 2, 3, 5]),
}
SUBSET_MASK = [True, False, True, True, False, True]
TRAIN_CORRECTNESS = [False, True, True, True, False, True]
TEST_CORRECTNESS = [True, False, True]


def stored_file(tmp_path, **changes):
    path = tmp_path / "aux_arrays.npz"
    np.savez(path, **(STORED | changes))
    return path


def assert_is_example(aux):
    assert (aux.num_train, aux.num_test) == (6, 3)
    for array, expected in (
        (aux.subset_mask(), SUBSET_MASK),
        (aux.train_correctness(), TRAIN_CORRECTNESS),
        (aux.test_correctness(), TEST_CORRECTNESS),
    ):
        assert array.dtype == bool
        assert array.tolist() == expected


def test_original_order(tmp_path):
    aux = aux_arrays.read(stored_file(tmp_path))
    assert_is_example(aux)
    assert aux.index_heldout.tolist() == [4, 1]
    assert aux.correctness_heldout.tolist() == [False, True]


@pytest.mark.parametrize("correctness", [bool, np.uint8, np.int64, np.float32, np.float16])
@pytest.mark.parametrize("index", [np.int8, np.uint16, np.int32, np.uint64, np.int64])
def test_stored_types(tmp_path, correctness, index):
    changes = {key: array.astype(correctness if "correctness" in key else index) for key, array in STORED.items()}
    aux = aux_arrays.read(stored_file(tmp_path, **changes))
    assert_is_example(aux)
    names = {field.name for field in dataclasses.fields(aux)} - {"margins"}
    for name in names:
        expected = bool if "correctness" in name else np.int64
        assert getattr(aux, name).dtype == expected
    assert aux.margins is None


def test_write_uses_the_published_keys(tmp_path):
    aux = aux_arrays.read(stored_file(tmp_path))
    aux_arrays.write(tmp_path / "again.npz", aux)
    with np.load(tmp_path / "again.npz") as loaded:
        assert sorted(loaded.files) == sorted(STORED)
        for key, array in STORED.items():
            assert loaded[key].dtype == array.dtype
            np.testing.assert_array_equal(loaded[key], array)
    assert_is_example(aux_arrays.read(tmp_path / "again.npz"))


def test_from_masks(tmp_path):
    aux = aux_arrays.from_masks(np.array(SUBSET_MASK), np.array(TRAIN_CORRECTNESS), np.array(TEST_CORRECTNESS))
    aux_arrays.validate(aux, "here")
    assert_is_example(aux)
    assert aux.index_train.tolist() == aux.subsample_idx.tolist() == [0, 2, 3, 5]
    aux_arrays.write(tmp_path / "a.npz", aux)
    assert_is_example(aux_arrays.read(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ((np.zeros(3), np.zeros(3, bool), np.zeros(2, bool)), "subset_mask has dtype float64"),
        (
            (np.zeros(3, bool), np.zeros((3, 1), bool), np.zeros(2, bool)),
            "train_correctness has .* expected bool and one",
        ),
        ((np.zeros(3, bool), np.zeros(3, bool), np.zeros(0, bool)), "test_correctness .* not empty"),
        ((np.zeros(0, bool), np.zeros(0, bool), np.zeros(2, bool)), "subset_mask .* not empty"),
        (
            (np.zeros(3, bool), np.zeros(4, bool), np.zeros(2, bool)),
            "subset_mask has 3 entries and train_correctness 4",
        ),
    ],
)
def test_from_masks_refuses(shapes, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        aux_arrays.from_masks(*shapes)


TAMPERED = [
    ({"correctness_train": np.array([0, 1, 2, 1])}, "correctness_train has dtype int64, expected only 0 and 1"),
    ({"correctness_removed": np.array([0, np.nan])}, "correctness_removed has dtype float64, expected only 0 and 1"),
    ({"correctness_test": np.array([0.5, 1, 0])}, "correctness_test has dtype float64"),
    ({"correctness_test": np.array(["1", "1", "0"])}, "correctness_test has dtype <U1"),
    ({"correctness_train": np.array([1, 1, -1, 0], np.int8)}, "correctness_train has dtype int8"),
    ({"index_train": np.array([5.0, 0, 2, 3])}, "index_train has dtype float64, expected integers"),
    ({"subsample_idx": np.array([True, False, True, True])}, "subsample_idx has dtype bool"),
    ({"index_test": np.array([2, 0, 2**64 - 1], np.uint64)}, "index_test holds 18446744073709551615, too large"),
    (
        {"index_train": np.array([[5, 0, 2, 3]])},
        r"index_train has dtype int64 and shape \(1, 4\), expected int64 and one",
    ),
    ({"correctness_test": np.array(True)}, r"correctness_test has dtype bool and shape \(\), expected bool and one"),
    ({"correctness_train": np.array([True] * 3)}, "index_train has 4 entries, its correctness 3"),
    ({"correctness_removed": np.array([True] * 3)}, "index_removed has 2 entries, its correctness 3"),
    ({"index_test": np.array([1, 0])}, "index_test has 2 entries, its correctness 3"),
    (
        {"index_removed": np.array([4, 6])},
        "index_train and index_removed: values from 0 to 6, expected each of 0..5 once",
    ),
    ({"index_removed": np.array([4, -1])}, "values from -1 to 5"),
    ({"index_removed": np.array([4, 5])}, "index_train and index_removed: 5 occurs 2 times, expected once"),
    ({"index_test": np.array([2, 2, 1])}, "index_test: 2 occurs 2 times"),
    ({"index_test": np.array([3, 1, 2])}, "index_test: values from 1 to 3, expected each of 0..2 once"),
    ({"index_test": np.array([], np.int64), "correctness_test": np.array([], bool)}, "index_test: no example at all"),
    ({"subsample_idx": np.array([0, 2, 3, 4])}, "subsample_idx .4 entries. and index_train .4. do not hold the same"),
    ({"subsample_idx": np.array([0, 2, 3])}, "subsample_idx .3 entries."),
    ({"subsample_idx": np.array([0, 2, 3, 5, 5])}, "subsample_idx .5 entries."),
    ({"subsample_idx": np.array([0, 2, 2, 5])}, "do not hold the same"),
    ({"subsample_idx": np.array([0, 2, 3, None])}, "subsample_idx has dtype object"),
]


@pytest.mark.parametrize(("changes", "match"), TAMPERED)
def test_tampered_records(tmp_path, changes, match):
    with pytest.raises(errors.DamagedFileError, match=r"aux_arrays\.npz: .*" + match):
        aux_arrays.read(stored_file(tmp_path, **changes))


def test_no_training_example_at_all(tmp_path):
    nothing = {key: array[:0] for key, array in STORED.items() if "test" not in key}
    with pytest.raises(errors.DamagedFileError, match="index_train and index_removed: no example at all"):
        aux_arrays.read(stored_file(tmp_path, **nothing))


def test_runs_that_held_out_nothing_are_sound(tmp_path):
    mask = np.ones(3, bool)
    aux_arrays.write(tmp_path / "a.npz", aux_arrays.from_masks(mask, mask, mask))
    assert aux_arrays.read(tmp_path / "a.npz").subset_mask().all()


def test_write_refuses_what_read_would(tmp_path):
    aux = aux_arrays.read(stored_file(tmp_path))
    with pytest.raises(errors.DamagedFileError, match=r"record for .*b\.npz: index_test: 0 occurs 3 times"):
        aux_arrays.write(tmp_path / "b.npz", dataclasses.replace(aux, index_test=np.zeros(3, np.int64)))
    assert not (tmp_path / "b.npz").exists()


def test_content_that_has_been_read_already(tmp_path):
    path = stored_file(tmp_path)
    content = path.read_bytes()
    path.unlink()
    assert_is_example(aux_arrays.read(path, content))


def test_missing_file(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"aux_arrays\.npz: no such file"):
        aux_arrays.read(tmp_path / "aux_arrays.npz")


def test_missing_array(tmp_path):
    npz.write(tmp_path / "a.npz", {key: array for key, array in STORED.items() if key != "index_removed"})
    with pytest.raises(errors.DamagedFileError, match="lacks index_removed"):
        aux_arrays.read(tmp_path / "a.npz")


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_fuzz_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("aux")
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(folder / "valid.npz", **STORED)
    (folder / "aux.npz").write_bytes(data.draw(corruptions.corrupted((folder / "valid.npz").read_bytes())))
    try:
        aux = aux_arrays.read(folder / "aux.npz")
    except errors.HeldoutError:
        return
    assert_is_example(aux)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_fuzz_random_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random_aux.npz"
    path.write_bytes(data)
    with pytest.raises(errors.DamagedFileError, match=r"random_aux\.npz"):
        aux_arrays.read(path)


ARRAYS = st.builds(
    lambda values, dtype: np.array(values).astype(dtype),
    st.lists(st.integers(0, 6), max_size=5),
    st.sampled_from([bool, np.int64, np.uint64, np.float64, np.int8, "U2"]),
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(changes=st.dictionaries(st.sampled_from(sorted(STORED)), ARRAYS, min_size=1, max_size=3))
def test_fuzz_contents(tmp_path_factory, changes):
    path = stored_file(tmp_path_factory.mktemp("contents"), **changes)
    try:
        aux = aux_arrays.read(path)
    except errors.DamagedFileError:
        return
    # What is accepted tells of every example once.
    stored = STORED | changes
    index = np.concatenate([stored["index_train"], stored["index_removed"]]).astype(int)
    assert sorted(index) == list(range(aux.num_train))
    assert sorted(stored["index_test"].astype(int)) == list(range(aux.num_test))
    assert set(stored["subsample_idx"].astype(int)) == set(np.flatnonzero(aux.subset_mask()))


MARGINS = {
    "margin_train": np.array([5, 0, 2, 3], np.float16),
    "margin_removed": np.array([4, 1], np.float16),
    "margin_test": np.array([2, 0, 1], np.float16),
}


def test_margins_are_put_into_original_order(tmp_path):
    aux = aux_arrays.read(stored_file(tmp_path, **MARGINS))
    assert_is_example(aux)
    assert aux.train_margin().dtype == aux.test_margin().dtype == np.float16
    assert aux.train_margin().tolist() == [0, 1, 2, 3, 4, 5]
    assert aux.test_margin().tolist() == [0, 1, 2]


def test_a_record_without_margins_has_none(tmp_path):
    aux = aux_arrays.read(stored_file(tmp_path))
    assert np.isnan(aux.train_margin()).tolist() == [True] * 6
    assert np.isnan(aux.test_margin()).tolist() == [True] * 3


def test_written_margins_come_back_and_published_readers_pass_them_by(tmp_path):
    masks = np.array(SUBSET_MASK), np.array(TRAIN_CORRECTNESS), np.array(TEST_CORRECTNESS)
    margins = np.arange(6).astype(np.float16), np.arange(3).astype(np.float16)
    aux_arrays.write(tmp_path / "plain.npz", aux_arrays.from_masks(*masks))
    aux_arrays.write(tmp_path / "margins.npz", aux_arrays.from_masks(*masks, margins))
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "margins.npz") as stored:
        assert sorted(plain.files) == sorted(STORED)  # a record without margins is what it always was
        assert sorted(stored.files) == sorted([*STORED, *MARGINS])
        for key in plain.files:
            np.testing.assert_array_equal(stored[key], plain[key])
        # As the documents say: in the order of the index arrays.
        np.testing.assert_array_equal(margins[0][stored["index_train"]], stored["margin_train"])
        np.testing.assert_array_equal(margins[0][stored["index_removed"]], stored["margin_removed"])
        np.testing.assert_array_equal(margins[1][stored["index_test"]], stored["margin_test"])
    read = npz.read(tmp_path / "margins.npz", list(STORED))
    assert sorted(read) == sorted(STORED)
    aux = aux_arrays.read(tmp_path / "margins.npz")
    assert_is_example(aux)
    np.testing.assert_array_equal(aux.train_margin(), margins[0])
    np.testing.assert_array_equal(aux.test_margin(), margins[1])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"margin_train": None}, "margin_train missing, expected all of margin_train, margin_removed, margin_test"),
        ({"margin_test": np.zeros(3)}, r"margin_test has dtype float64 and shape \(3,\), expected float16 and \(3,\)"),
        (
            {"margin_removed": np.zeros(3, np.float16)},
            r"margin_removed has .* shape \(3,\), expected float16 and \(2,\)",
        ),
        ({"margin_test": np.array([0, np.nan, 1], np.float16)}, "margin_test holds nan, expected numbers"),
        ({"margin_test": np.array([0, 1, np.inf], np.float16)}, "margin_test holds inf"),
    ],
)
def test_tampered_margins(tmp_path, changes, match):
    stored = {key: array for key, array in (MARGINS | changes).items() if array is not None}
    with pytest.raises(errors.DamagedFileError, match=r"aux_arrays\.npz: " + match):
        aux_arrays.read(stored_file(tmp_path, **stored))

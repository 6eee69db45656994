"""Files in the published formats: round trips in the published dtypes, wrong orders, damage and fuzz."""

import io
import pathlib
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from heldout.scoring import published_formats as formats
from zoo import errors, npz


def pairs(**changes):
    fields = {
        "train_index": np.array([9, 2, 9]),
        "test_index": np.array([1, 1, 4]),
        "subset_influence": np.array([0.15, 1.0, 0.5]),
        "memorization": np.array([0.25, 1.0, 0.25]),
    }
    return formats.HighInfluencePairs(**{**fields, **changes})


def class_case():
    """Six training and four test examples; class 7 has test examples only."""
    generator = np.random.default_rng(0)
    train_label, test_label = np.array([1, 0, 1, 3, 0, 1]), np.array([0, 7, 1, 0])
    influence = generator.uniform(-1, 1, (6, 4)).astype(np.float32)
    influence[2] = np.nan
    memorization = np.array([0.5, -0.1, np.nan, 1, 0, 0.25])
    return influence, memorization, train_label, test_label


def within(influence):
    """Rows of each class in two blocks."""

    def blocks(rows, columns):
        for part in np.array_split(rows, 2):
            yield influence[np.ix_(part, columns)]

    return blocks


def test_class_influence_round_trip(tmp_path):
    influence, memorization, train_label, test_label = class_case()
    path = tmp_path / "class_influence.npz"
    formats.write_class_influence(path, within(influence), memorization, train_label, test_label)
    with np.load(path) as raw:
        assert raw["infl_matrix_class1"].shape == (3, 1)
        np.testing.assert_array_equal(raw["infl_matrix_class0"], influence[np.ix_([1, 4], [0, 3])])
        np.testing.assert_array_equal(raw["tr_classidx_1"], [0, 2, 5])
        np.testing.assert_array_equal(raw["tt_classidx_0"], [0, 3])
        np.testing.assert_array_equal(raw["tr_labels"], train_label)
    found = formats.read_class_influence(path, train_label=train_label, test_label=test_label)
    np.testing.assert_array_equal(found.memorization, memorization)
    assert sorted(found.subset_influence) == [0, 1, 3, 7]
    assert found.subset_influence[7].shape == (0, 1)
    for label, matrix in found.subset_influence.items():
        np.testing.assert_array_equal(matrix, influence[np.ix_(found.train_index[label], found.test_index[label])])


def test_class_influence_refuses_what_does_not_fit(tmp_path):
    influence, memorization, train_label, test_label = class_case()
    path = tmp_path / "class_influence.npz"
    with pytest.raises(errors.MismatchError, match="memorization"):
        formats.write_class_influence(path, within(influence), memorization[1:], train_label, test_label)
    formats.write_class_influence(path, within(influence), memorization, train_label, test_label)
    with pytest.raises(errors.MismatchError, match=r"tr_labels\[0\] is 1, expected 0: it is in another order"):
        formats.read_class_influence(path, train_label=train_label[[1, 0, 2, 3, 4, 5]])
    with pytest.raises(errors.MismatchError, match="tt_labels has 4 labels, expected 5"):
        formats.read_class_influence(path, test_label=np.zeros(5, int))
    members = dict(np.load(path))
    for name, bad in (
        ("tr_classidx_1", np.array([0, 2, 4])),
        ("infl_matrix_class1", np.zeros((1, 3), np.float32)),
        ("infl_matrix_class0", np.zeros((2, 2), np.int64)),
        ("tr_mem", memorization + 1),
        ("tt_labels", test_label.astype(float)),
    ):
        np.savez(path, **{**members, name: bad})
        with pytest.raises(errors.DamagedFileError, match=name):
            formats.read_class_influence(path)
    del members["tt_classidx_3"]
    np.savez(path, **members)
    with pytest.raises(errors.DamagedFileError, match="tt_classidx_3"):
        formats.read_class_influence(path)


def test_pairs_round_trip(tmp_path):
    path = tmp_path / "pairs.npz"
    formats.write_high_influence_pairs(path, pairs())
    with np.load(path) as raw:
        assert {name: raw[name].dtype for name in raw} == {
            "tr_idx": np.int64,
            "tt_idx": np.int64,
            "infl": np.float64,
            "mem": np.float64,
        }
    found = formats.read_high_influence_pairs(path)
    for name, value in vars(pairs()).items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_no_pairs_round_trip(tmp_path):
    none = formats.HighInfluencePairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0))
    formats.write_high_influence_pairs(tmp_path / "pairs.npz", none)
    assert len(formats.read_high_influence_pairs(tmp_path / "pairs.npz").train_index) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_index": np.array([1, 1])}, "as many entries"),
        ({"memorization": np.array([0.25, 1.0])}, "mem has dtype"),
        ({"train_index": np.array([-1, 2, 9])}, "negative"),
        ({"test_index": np.array([1, 1, 1])}, "there twice"),
        ({"memorization": np.array([0.25, 1.0, 0.26])}, "two values"),
        ({"subset_influence": np.array([0.2, 1.1, 0.3])}, r"infl\[1\] is 1.1, expected -1 to 1"),
    ],
)
def test_unsound_pairs_are_refused(tmp_path, changes, message):
    formats.write_high_influence_pairs(tmp_path / "pairs.npz", pairs(**changes))
    with pytest.raises(errors.DamagedFileError, match=message):
        formats.read_high_influence_pairs(tmp_path / "pairs.npz")


def test_indices_beyond_int64_are_refused(tmp_path):
    members = {"tr_idx": np.array([1 << 63], np.uint64), "tt_idx": np.array([0]), "infl": np.ones(1), "mem": np.ones(1)}
    np.savez(tmp_path / "pairs.npz", **members)
    with pytest.raises(errors.DamagedFileError, match="9223372036854775808"):
        formats.read_high_influence_pairs(tmp_path / "pairs.npz")


def test_imagenet_index(tmp_path):
    path = tmp_path / "index.npz"
    members = {
        "tr_filenames": np.array([b"n01440764_1.JPEG", b"n01443537_2.JPEG"]),
        "tr_labels": np.array([0, 1]),
        "tt_filenames": np.array(["ILSVRC2012_val_00000001.JPEG"]),
        "tt_labels": np.array([65]),
        "tr_mem": np.array([0.5, np.nan], np.float32),
    }
    np.savez(path, **members)
    found = formats.read_imagenet_index(path)
    assert found.train_filename.tolist() == ["n01440764_1.JPEG", "n01443537_2.JPEG"]
    assert found.test_filename.tolist() == ["ILSVRC2012_val_00000001.JPEG"]
    np.testing.assert_array_equal(found.memorization, [0.5, np.nan])
    for name, bad in (
        ("tr_filenames", np.array([b"one"])),
        ("tr_filenames", np.array([b"\xff\xfe", b"two"])),
        ("tt_labels", np.array([1, 2])),
        ("tr_mem", np.array([1, 0])),
    ):
        np.savez(path, **{**members, name: bad})
        with pytest.raises(errors.DamagedFileError):
            formats.read_imagenet_index(path)


def test_cscores_round_trip_and_order(tmp_path):
    path = tmp_path / "cscores.npz"
    label, score = np.array([6, 9, 9, 4]), np.array([0.7, 0.9, np.nan, 0.0])
    formats.write_cscores(path, formats.CScores(label, score))
    with np.load(path) as raw:
        assert (raw["labels"].dtype, raw["scores"].dtype) == (np.int64, np.float64)
    found = formats.read_cscores(path, label=label)
    np.testing.assert_array_equal(found.score, score)
    with pytest.raises(errors.MismatchError, match=r"labels\[1\] is 9, expected 4"):
        formats.read_cscores(path, label=np.array([6, 4, 9, 9]))
    with pytest.raises(errors.MismatchError, match="shape"):
        formats.write_cscores(path, formats.CScores(label, score[1:]))
    np.savez(path, labels=label, scores=-score)
    with pytest.raises(errors.DamagedFileError, match=r"scores\[0\] is -0.7, expected 0 to 1"):
        formats.read_cscores(path)
    with pytest.raises(errors.MissingFileError, match="no such file"):
        formats.read_cscores(tmp_path / "nothing.npz")


def mnist_bytes(scores):
    stream = io.BytesIO()
    np.save(stream, scores)
    return stream.getvalue()


def test_mnist_cscores(tmp_path):
    path = tmp_path / "mnist.npy"
    score = np.linspace(0, 1, 60000, dtype=np.float32)
    path.write_bytes(mnist_bytes(score))
    found = formats.read_mnist_cscores(path)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, score)
    for bad in (score[1:], score.astype(int), score * 2, score.reshape(2, -1), np.array([None] * 60000)):
        stream = io.BytesIO()
        np.save(stream, bad, allow_pickle=True)
        path.write_bytes(stream.getvalue())
        with pytest.raises(errors.DamagedFileError):
            formats.read_mnist_cscores(path)
    for missing in (tmp_path / "nothing.npy", tmp_path):
        with pytest.raises(errors.MissingFileError):
            formats.read_mnist_cscores(missing)


READERS = (
    formats.read_class_influence,
    formats.read_high_influence_pairs,
    formats.read_imagenet_index,
    formats.read_cscores,
    formats.read_mnist_cscores,
)


def read_or_heldout_error(reader, data):
    """The result, or None after a HeldoutError; anything else is a bug and goes through."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "file.npz"
        path.write_bytes(data)
        try:
            return reader(path)
        except errors.HeldoutError:
            return None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(READERS), st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes(reader, data, with_magic):
    assert read_or_heldout_error(reader, (b"\x93NUMPY\x01\x00" if with_magic else b"") + data) is None


any_array = hnp.arrays(
    st.one_of(hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.byte_string_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_array, min_size=5, max_size=5))
def test_arbitrary_members(arrays):
    stream = io.BytesIO()
    names = ("tr_labels", "tt_labels", "tr_mem", "tr_filenames", "tt_filenames")
    alias = ("labels", "tr_idx", "scores", "tt_idx", "infl")
    np.savez(stream, **dict(zip(names + alias, arrays + arrays, strict=True)), mem=arrays[2])
    for reader in READERS[:4]:
        found = read_or_heldout_error(reader, stream.getvalue())
        if isinstance(found, formats.CScores):
            np.testing.assert_array_equal(found.label, arrays[0].astype(np.int64))
            np.testing.assert_array_equal(found.score, arrays[2].astype(np.float64))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), st.data())
def test_flipped_bytes(kind, data):
    """One changed byte gives an error or the right answer, never another answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "file.npz"
        if kind < 2:
            formats.write_high_influence_pairs(path, pairs())
        else:
            npz.write(path, {"labels": np.array([6, 9, 9, 4]), "scores": np.array([0.7, 0.9, 0.1, 0.0])}, compress=True)
        reader = formats.read_high_influence_pairs if kind < 2 else formats.read_cscores
        good = reader(path)
        content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    found = read_or_heldout_error(reader, bytes(content))
    if found is not None:
        for name, value in vars(good).items():
            np.testing.assert_array_equal(getattr(found, name), value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_of_the_mnist_header(data):
    """The bare npy file has no checksum: only its header can be held to account."""
    content = bytearray(mnist_bytes(np.linspace(0, 1, 60000)))
    place = data.draw(st.integers(0, 127))
    content[place] ^= data.draw(st.integers(1, 255))
    found = read_or_heldout_error(formats.read_mnist_cscores, bytes(content))
    assert found is None or found.shape == (60000,)
    assert read_or_heldout_error(formats.read_mnist_cscores, bytes(content[: data.draw(st.integers(0, 9999))])) is None

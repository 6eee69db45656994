"""npz files: exact round trips, mapped into memory or not, written at once or as a stream."""

import itertools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.zoo import npz_files
from zoo import errors, npz


@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path, compress):
    npz.write(tmp_path / "a.npz", npz_files.ARRAYS, compress=compress)
    npz_files.assert_same(npz.read(tmp_path / "a.npz", list(npz_files.ARRAYS)), npz_files.ARRAYS)
    with np.load(tmp_path / "a.npz") as loaded:
        npz_files.assert_same({name: loaded[name] for name in loaded.files}, npz_files.ARRAYS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
    arrays = npz_files.ARRAYS | {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    save(tmp_path / "a.npz", **arrays)
    npz_files.assert_same(npz.read(tmp_path / "a.npz", list(arrays)), arrays)


def test_compression_is_real(tmp_path):
    npz.write(tmp_path / "a.npz", {"x": np.zeros(10_000)}, compress=True)
    assert (tmp_path / "a.npz").stat().st_size < 1000


def test_equal_arrays_give_equal_bytes(tmp_path):
    strided = np.arange(20.0)[::2]
    npz.write(tmp_path / "a.npz", {"x": strided, "y": np.arange(3)})
    npz.write(tmp_path / "b.npz", {"x": strided.copy(), "y": np.arange(3)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(errors.MissingFileError, match="no such file"):
            npz.read(path, [])


def test_content_that_has_been_read_already(tmp_path):
    npz.write(tmp_path / "a.npz", npz_files.ARRAYS)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").unlink()
    read = npz.read(tmp_path / "a.npz", list(npz_files.ARRAYS), content=content, memory_map=["index"])
    npz_files.assert_same(read, npz_files.ARRAYS)
    assert not isinstance(read["index"], np.memmap)
    with pytest.raises(errors.DamagedFileError, match=r"a\.npz: not a sound npz file"):
        npz.read(tmp_path / "a.npz", [], content=content[:-5])


def test_optional_and_unknown_members(tmp_path):
    npz.write(tmp_path / "a.npz", {"x": np.zeros(1), "y": np.ones(2), "z": np.ones(3)})
    assert list(npz.read(tmp_path / "a.npz", ["x"], ["y", "w"])) == ["x", "y"]


def test_objects_are_not_written(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="member x has dtype object"):
        npz.write(tmp_path / "a.npz", {"x": np.array([None])})
    assert not list(tmp_path.iterdir())


def test_mapped_members_do_not_count_towards_the_limit(tmp_path):
    npz.write(tmp_path / "a.npz", {"x": np.zeros(1000)})
    assert len(npz.read(tmp_path / "a.npz", ["x"], memory_map=["x"], max_bytes=10)["x"]) == 1000


def test_version_two_header(tmp_path):
    npz_files.write_raw(
        tmp_path / "a.npz", [("x.npy", npz_files.npy_header("<f8", (1,), version=(2, 0)) + struct.pack("<d", 4.5))]
    )
    assert npz.read(tmp_path / "a.npz", ["x"])["x"].tolist() == [4.5]


def test_memory_map(tmp_path):
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    fortran = np.asfortranarray(matrix)
    np.savez(tmp_path / "stored.npz", m=matrix, f=fortran, other=np.zeros(2))
    read = npz.read(tmp_path / "stored.npz", ["m", "f", "other"], memory_map=["m", "f"])
    assert [isinstance(read[name], np.memmap) for name in ("m", "f", "other")] == [True, True, False]
    npz_files.assert_same({"m": read["m"], "f": read["f"]}, {"m": matrix, "f": matrix})
    with pytest.raises(ValueError, match="read-only"):
        read["m"][0, 0] = 1


def test_what_cannot_be_mapped_is_read(tmp_path):
    npz.write(tmp_path / "a.npz", {"m": np.ones(3)}, compress=True)
    npz.write(tmp_path / "b.npz", {"m": np.ones((0, 3))})
    for name, expected in (("a.npz", np.ones(3)), ("b.npz", np.ones((0, 3)))):
        array = npz.read(tmp_path / name, ["m"], memory_map=["m"])["m"]
        assert not isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, expected)


def test_stream_writer(tmp_path):
    matrix = np.arange(30, dtype=np.float32).reshape(10, 3)
    with npz.StreamWriter(tmp_path / "a.npz") as writer:
        writer.array("n", np.int64(10))
        writer.blocks("m", np.float32, (10, 3), (matrix[start : start + 4] for start in range(0, 10, 4)))
        writer.array("after", np.arange(5))
        assert not (tmp_path / "a.npz").exists()
    expected = {"n": np.array(10), "m": matrix, "after": np.arange(5)}
    npz_files.assert_same(npz.read(tmp_path / "a.npz", list(expected), memory_map=["m"]), expected)
    npz.write(tmp_path / "b.npz", expected)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("name", ["x", "some_longer_name"])
def test_members_are_aligned_with_and_without_zip64(tmp_path, monkeypatch, name, zip64):
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    with npz.StreamWriter(tmp_path / "a.npz") as writer:
        writer.array("first", np.arange(7, dtype=np.uint8))
        writer.blocks(name, np.float64, (5,), [np.arange(5.0)])
    monkeypatch.undo()
    read = npz.read(tmp_path / "a.npz", ["first", name], memory_map=[name])
    assert read[name].offset % 64 == 0
    npz_files.assert_same(read, {"first": np.arange(7, dtype=np.uint8), name: np.arange(5.0)})
    with np.load(tmp_path / "a.npz") as loaded:
        np.testing.assert_array_equal(loaded[name], np.arange(5.0))


@pytest.mark.parametrize(
    ("blocks", "match"),
    [
        ([np.zeros((2, 3), np.float64)], "dtype float64"),
        ([np.zeros((2, 4), np.float32)], r"shape \(2, 4\)"),
        ([np.zeros(3, np.float32)], r"shape \(3,\)"),
        ([np.zeros((2, 3), np.float32)], "expected 4"),
        (itertools.repeat(np.zeros((2, 3), np.float32)), "6 or more rows, expected 4"),
        ([], "0 or more rows, expected 4"),
    ],
)
def test_blocks_that_do_not_fit(tmp_path, blocks, match):
    (tmp_path / "a.npz").write_bytes(b"old")
    with pytest.raises(errors.InvalidValueError, match=match), npz.StreamWriter(tmp_path / "a.npz") as writer:
        writer.blocks("m", np.float32, (4, 3), blocks)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\0b", "taken"])
def test_names_that_cannot_be(tmp_path, name):
    def write():
        with npz.StreamWriter(tmp_path / "a.npz") as writer:
            writer.array("taken", np.zeros(1))
            writer.array(name, np.zeros(1))

    with pytest.raises(errors.InvalidValueError, match="cannot name a member, or is taken"):
        write()
    assert not list(tmp_path.iterdir())


def test_interrupted_writer_leaves_nothing(tmp_path):
    def interrupted():
        yield np.zeros((2, 3), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), npz.StreamWriter(tmp_path / "a.npz") as writer:
        writer.blocks("m", np.float32, (4, 3), interrupted())
    assert not list(tmp_path.iterdir())


def test_peak_memory_of_a_streamed_matrix_is_one_block(tmp_path):
    block = np.zeros((1000, 1000), np.float32)
    tracemalloc.start()
    with npz.StreamWriter(tmp_path / "a.npz") as writer:
        writer.blocks("m", np.float32, (20_000, 1000), (block for _ in range(20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 20 * block.nbytes
    assert peak < 2 * block.nbytes

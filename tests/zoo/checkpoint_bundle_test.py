"""Checkpoints read without TensorFlow, held against TensorFlow's own writer and reader."""

import os
import pathlib
import tracemalloc

import google_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import corruptions, tables
from zoo import checkpoint_bundle, errors, sorted_table

INDEX, DATA = ".index", ".data-00000-of-00001"
_DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "complex64", "complex128"]
_DTYPES += ["float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"]
_QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}


def files_of(prefix):
    return pathlib.Path(f"{prefix}{INDEX}"), pathlib.Path(f"{prefix}{DATA}")


def save(prefix, tensors):
    """TensorFlow's writer for tensors by name, of any dtype."""
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(tensors.values())
    )
    return prefix


def read_by_tensorflow(prefix):
    """Every entry that TensorFlow's reader gives, which verifies each checksum; raises where it refuses."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def example_model():
    model = tf.Module()
    model.weights = [tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3)), tf.Variable([True, False])]
    model.names = tf.Variable(["a", "", "long " * 100])
    model.empty = tf.Variable(tf.zeros([0, 3]))
    return model


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A checkpoint of several kinds of variables, with the save counter that `save` adds."""
    checkpoint = tf.train.Checkpoint(model=example_model(), epoch=tf.Variable(3, dtype=tf.int64))
    return checkpoint.save(str(tmp_path_factory.mktemp("example") / "ckpt"))


def test_names_shapes_and_dtypes_are_those_that_tensorflow_reads(example):
    bundle = checkpoint_bundle.verify_files(example)
    reader = tf.train.load_checkpoint(example)
    dtypes = reader.get_variable_to_dtype_map()
    expected = {
        name: (tuple(shape), tf.as_dtype(dtypes[name]).name)
        for name, shape in reader.get_variable_to_shape_map().items()
    }
    assert {name: (entry.shape, entry.dtype) for name, entry in bundle.entries.items()} == expected
    assert {"_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE"} < expected.keys()
    assert checkpoint_bundle.model_listing(bundle) == {
        "model/empty": ((0, 3), "float32"),
        "model/names": ((3,), "string"),
        "model/weights/0": ((2, 3), "float32"),
        "model/weights/1": ((2,), "bool"),
    }


def test_bytes_lie_where_the_entries_say(example):
    bundle = checkpoint_bundle.read_index_file(files_of(example)[0])
    entry = bundle.entries["model/weights/0/.ATTRIBUTES/VARIABLE_VALUE"]
    stored = files_of(example)[1].read_bytes()[entry.offset : entry.offset + entry.size]
    assert stored == np.arange(6, dtype="<f4").tobytes()
    assert entry.crc32c == google_crc32c.value(stored)
    assert (entry.num_elements, entry.shard, bundle.num_shards) == (6, 0, 1)


def test_every_dtype(tmp_path):
    sources = {name: tf.constant([1, 0, 1], tf.int8 if "int" in name else tf.float32) for name in _DTYPES}
    tensors = {name: tf.cast(source, tf.as_dtype(name)) for name, source in sources.items()}
    tensors |= {q: tf.bitcast(tf.constant([1, 0, 1], tf.as_dtype(i)), tf.as_dtype(q)) for q, i in _QUANTIZED.items()}
    save(tmp_path / "c", tensors)
    bundle = checkpoint_bundle.verify_files(tmp_path / "c")
    assert {name: entry.dtype for name, entry in bundle.entries.items()} == {name: name for name in tensors}


TEXTS = {
    "none": tf.constant([], tf.string),
    "scalar": tf.constant("one"),
    "empty": tf.constant(""),
    "matrix": tf.constant([["a", "bc"], ["", "d" * 300]]),
    "long": tf.constant(["x" * 3_000_000, "y"]),
    "after": tf.constant([1.0]),
}


def variants():
    tensor_list = tf.raw_ops.TensorListReserve(element_shape=[2], num_elements=2, element_dtype=tf.float32)
    return {"several": tf.stack([tensor_list, tensor_list, tensor_list]), "one": tensor_list, "after": tf.constant([2])}


@pytest.mark.parametrize("make", [lambda: TEXTS, variants])
def test_texts_and_variants(tmp_path, make):
    prefix = save(tmp_path / "c", make())
    bundle = checkpoint_bundle.verify_files(prefix)
    whole = files_of(prefix)[1].read_bytes()
    checkpoint_bundle.verify(bundle, whole, "c")
    checkpoint_bundle.verify(bundle, memoryview(whole), "c")
    generator = np.random.default_rng(0)
    early = generator.integers(min(len(whole), 400), size=150)
    for position in {*early.tolist(), *generator.integers(len(whole), size=20).tolist(), len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(generator.integers(8))
        with pytest.raises(errors.DamagedFileError, match=r"^c: "):
            checkpoint_bundle.verify(bundle, bytes(damaged), "c")


def test_every_flipped_bit_of_the_data_is_found_and_its_variable_named(example):
    index, data = files_of(example)
    bundle, whole = checkpoint_bundle.read_index_file(index), data.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        (name,) = [n for n, e in bundle.entries.items() if e.offset <= position < e.offset + e.size]
        with pytest.raises(errors.DamagedFileError, match=rf"^where: {name}\b.*fetch it again"):
            checkpoint_bundle.verify(bundle, bytes(damaged), "where")


def test_truncated_data(example, tmp_path):
    index, data = files_of(example)
    bundle, whole = checkpoint_bundle.read_index_file(index), data.read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:kept])
        for cut in (whole[:kept], tmp_path / "cut"):
            with pytest.raises(errors.DamagedFileError, match=rf"^w: truncated: {kept} bytes, .* lies at bytes \d+ to"):
                checkpoint_bundle.verify(bundle, cut, "w")
    checkpoint_bundle.verify(bundle, whole + b"more", "w")


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    prefix = save(tmp_path / "c", {"w": tf.zeros([1_000_000])})
    extend = google_crc32c.extend

    def extend_and_shrink(crc32c, chunk):
        os.truncate(files_of(prefix)[1], 0)
        return extend(crc32c, chunk)

    monkeypatch.setattr(google_crc32c, "extend", extend_and_shrink)
    with pytest.raises(errors.DamagedFileError, match="w: the file became shorter while it was read"):
        checkpoint_bundle.verify_files(prefix)


def test_missing_files(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"gone\.index: no such file; fetch"):
        checkpoint_bundle.read_index_file(tmp_path / "gone.index")
    with pytest.raises(errors.MissingFileError, match=r"gone\.index: no such file; fetch"):
        checkpoint_bundle.verify_files(tmp_path / "gone")
    bundle = checkpoint_bundle.Bundle({}, 1)
    with pytest.raises(errors.MissingFileError, match="no such file"):
        checkpoint_bundle.verify(bundle, tmp_path, "a folder")


def test_memory_stays_constant(tmp_path):
    prefix = save(tmp_path / "c", {"w": tf.zeros([10_000_000]), "t": tf.constant("x" * 20_000_000)})
    index, data = files_of(prefix)
    content = data.read_bytes()
    bundle = checkpoint_bundle.read_index_file(index)
    for source in (data, content):
        tracemalloc.start()
        checkpoint_bundle.verify(bundle, source, "c")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4_000_000, "of 60 MB"


def test_sliced_variables_are_refused(tmp_path):
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"),
        tensor_names=["v", "v"],
        shape_and_slices=["4 2 0,2:0,2", "4 2 2,2:0,2"],
        tensors=[tf.ones([2, 2]), tf.ones([2, 2])],
    )
    with pytest.raises(errors.DamagedFileError, match="sliced variables are not supported"):
        checkpoint_bundle.read_index_file(tmp_path / "c.index")


HEADER, entry, field = tables.HEADER, tables.bundle_entry, tables.field
MANY = [(f"k{i:04}".encode(), entry(offset=8 * i)) for i in range(3)]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (tables.table(), "lacks the header"),
        (tables.table(tables.block(tables.entry(b"k", entry()))), "lacks the header"),
        (tables.index(header=b""), "0 data files, expected 1 to"),
        (tables.index(header=field(1, 1 << 40)), "data files, expected 1 to 65536"),
        (tables.index(header=field(1, 1) + field(2, 1)), "big-endian"),
        (tables.index(header=field(1, 1) + field(3, field(2, 2))), "version 2 of the format, this program reads 1"),
        (tables.index(header=field(1, 1) + field(3, 5)), "field 3 holds a number"),
        (tables.index((b"\xff", entry())), "no UTF-8"),
        (tables.index((b"\0k", entry())), "slice of a variable"),
        (tables.index((b"k", entry(extra=field(7, b"")))), "k: a sliced variable"),
        (tables.index((b"k", entry(dtype=0))), "k: dtype number 0 is not supported"),
        (tables.index((b"k", entry(dtype=20))), "k: dtype number 20"),
        (tables.index((b"k", entry(shard=1))), "k: data file 1 of 1"),
        (tables.index((b"k", entry(size=9))), r"k: 9 bytes, but shape \(2,\) of float32 takes 8"),
        (tables.index((b"k", entry(shape=(1 << 62, 1 << 62)))), "k: 8 bytes, but shape"),
        (tables.index((b"k", entry(shape=((1 << 64) - 1,)))), "k: field 1 holds 1844.*, expected a number"),
        (tables.index((b"k", entry(shape=(1,) * 255, size=4))), "k: 255 dimensions, expected 254"),
        (tables.index((b"k", field(1, 1) + field(2, field(2, 3)))), "a dimension is stored in another way"),
        (tables.index((b"k", field(1, 1) + field(2, field(3, 1)))), "its shape is not known"),
        (tables.index((b"k", field(1, 1) + field(6, 3))), "checksum is not stored in 32 bits"),
        (tables.index((b"k", entry(dtype=7, shape=(1 << 21,)))), "k: 2097152 elements of dtype string"),
        (tables.index((b"k", entry()), (b"l", entry(offset=4))), "l: begins at byte 4, within the entry before"),
        (tables.index((b"k", b"\x08")), "k: ends within a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_indices_under_right_checksums(content, match):
    with pytest.raises(errors.DamagedFileError, match=rf"^c\.index: damaged checkpoint index: .*{match}"):
        checkpoint_bundle.read_index(content, "c.index")


def test_hand_made_index_is_read():
    bundle = checkpoint_bundle.read_index(tables.index(*MANY), "c")
    assert [entry.offset for entry in bundle.entries.values()] == [0, 8, 16]
    checkpoint_bundle.verify(bundle, bytes(24), "c")


def test_several_data_files():
    header = field(1, 2)
    bundle = checkpoint_bundle.read_index(tables.index((b"k", entry(shard=1)), (b"l", entry()), header=header), "c")
    assert bundle.num_shards == 2
    with pytest.raises(errors.DamagedFileError, match="c: the index tells of 2 data files"):
        checkpoint_bundle.verify(bundle, bytes(8), "c")


def lengths(*values):
    """Lengths of texts with their checksum, as a data file begins with them."""
    return b"".join(map(tables.varint, values)) + tables.masked(b"".join(v.to_bytes(4, "little") for v in values))


@pytest.mark.parametrize(
    ("dtype", "data", "match"),
    [
        (7, b"\xff" * 30, "more than 64 bits"),
        (7, tables.varint(1 << 32) + bytes(30), "a text of 4294967296 bytes"),
        (7, lengths(1, 2)[:-1], "lengths of the texts fail their checksum"),
        (7, lengths(1, 1) + b"abc", "texts of 2 bytes together do not fill 9 bytes"),
        (7, lengths(1, 1 << 31) + b"abc", "do not fill"),
        (21, tables.varint(100) + bytes(30), "a variant of 100 bytes does not fit into 31"),
        (21, tables.varint(1) + bytes(30), "a variant fails its checksum"),
        (21, b"", "ends within a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_texts_and_variants(dtype, data, match):
    index = tables.index((b"k", entry(dtype=dtype, size=len(data))))
    with pytest.raises(errors.DamagedFileError, match=f"^c: k: .*{match}"):
        checkpoint_bundle.verify(checkpoint_bundle.read_index(index, "c"), data, "c")


def test_bytes_behind_variants():
    data = tables.varint(1) + b"x" + tables.masked((1).to_bytes(8, "little") + b"x") + b"more"
    index = tables.index((b"k", entry(dtype=21, shape=(), size=len(data))))
    with pytest.raises(errors.DamagedFileError, match="variants of 6 bytes together do not fill 10"):
        checkpoint_bundle.verify(checkpoint_bundle.read_index(index, "c"), data, "c")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_fuzz_what_is_accepted_is_what_tensorflow_reads(tmp_path_factory, example, data):
    contents = [path.read_bytes() for path in files_of(example)]
    which = data.draw(st.sampled_from([0, 0, 1]))
    contents[which] = data.draw(corruptions.corrupted(contents[which]))
    prefix = tmp_path_factory.getbasetemp() / "fuzzed"
    for path, content in zip(files_of(prefix), contents, strict=True):
        path.write_bytes(content)
    try:
        bundle = checkpoint_bundle.verify_files(prefix)
    except errors.DamagedFileError as error:
        assert "fuzzed." in str(error)  # noqa: PT017 - the other outcome is legitimate, too
        return
    found, expected = read_by_tensorflow(prefix), read_by_tensorflow(example)
    assert found.keys() == expected.keys() == bundle.entries.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=corruptions.corrupted(entry()) | st.binary(max_size=60), key=st.binary(max_size=4), data=st.binary())
def test_fuzz_entries_under_right_checksums(value, key, data):
    try:
        bundle = checkpoint_bundle.read_index(tables.index((key, value)), "c")
        checkpoint_bundle.verify(bundle, data, "c")
    except errors.DamagedFileError as error:
        assert str(error).startswith("c: ")  # noqa: PT017 - the other outcome is legitimate, too


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=400) | st.binary(max_size=60).map(lambda start: start + tables.table()[-48:]))
def test_fuzz_random_bytes(content):
    with pytest.raises(errors.DamagedFileError, match=r"^c: "):
        checkpoint_bundle.read_index(content, "c")


def test_an_index_too_large_to_be_one_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_table, "MAX_BYTES", 1000)
    monkeypatch.setattr(checkpoint_bundle, "MAX_INDEX_BYTES", 1000)
    (tmp_path / "c.index").write_bytes(bytes(5000))
    with pytest.raises(errors.DamagedFileError, match="1001 bytes, expected 1000 at most"):
        checkpoint_bundle.read_index_file(tmp_path / "c.index")

"""Protocol buffers, against Google's own reader of the same bytes."""

import pytest
from tensorflow.core.framework import tensor_shape_pb2, versions_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from tests.zoo import tables
from zoo import protocol_buffers


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1])
def test_varints(number):
    assert protocol_buffers.varint(b"x" + tables.varint(number) + b"y", 1) == (number, 1 + len(tables.varint(number)))


def test_fields_are_those_that_google_wrote():
    shape = tensor_shape_pb2.TensorShapeProto(dim=[{"size": 3}, {"size": 0}, {"size": 700}])
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=9, shape=shape, shard_id=2, offset=1 << 40, size=5, crc32c=258)
    values = protocol_buffers.last_fields(entry.SerializeToString())
    assert [protocol_buffers.number(values, field) for field in (1, 3, 4, 5, 99)] == [9, 2, 1 << 40, 5, 0]
    assert values[6] == b"\2\1\0\0"
    dimensions = list(protocol_buffers.fields(protocol_buffers.message(values, 2)))
    assert dimensions == [(2, b"\x08\3"), (2, b""), (2, b"\x08\xbc\x05")]
    version = versions_pb2.VersionDef(producer=1, min_consumer=2)
    assert protocol_buffers.last_fields(version.SerializeToString()) == {1: 1, 2: 2}
    assert protocol_buffers.message({}, 2) == b""


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (b"\x08", "ends within a number"),
        (b"\x08" + b"\xff" * 10, "more than 64 bits"),
        (b"\x0a\x05abcd", "reaches beyond the end"),
        (b"\x0d\0\0\0", "reaches beyond the end"),
        (b"\x09" + bytes(7), "reaches beyond the end"),
        (b"\x0b\x0c", "stored in kind 3"),
    ],
)
def test_malformed_messages(message, match):
    with pytest.raises(ValueError, match=match):
        protocol_buffers.last_fields(message)


def test_fields_of_another_kind():
    with pytest.raises(ValueError, match="field 1 holds b'abc', expected a number"):
        protocol_buffers.number({1: b"abc"}, 1)
    with pytest.raises(ValueError, match="field 1 holds 9223372036854775808, expected a number"):
        protocol_buffers.number({1: 1 << 63}, 1)
    with pytest.raises(ValueError, match="field 1 holds a number, expected several fields"):
        protocol_buffers.message({1: 3}, 1)

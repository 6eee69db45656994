"""Sorted tables: what TensorFlow wrote comes back, and malformed ones are refused though their checksums are right."""

import pytest
import tensorflow as tf

from tests.zoo import tables
from zoo import errors, sorted_table


def test_keys_that_share_their_beginning():
    entries = tables.entry(b"model/a", b"1") + tables.entry(b"bc", b"2", num_shared=6) + tables.entry(b"n", b"")
    found = sorted_table.read(tables.table(tables.block(entries), tables.block(tables.entry(b"o", b"3"))), "t")
    assert found == [(b"model/a", b"1"), (b"model/bc", b"2"), (b"n", b""), (b"o", b"3")]


def test_a_table_without_entries():
    assert sorted_table.read(tables.table(), "t") == []


def test_tables_of_many_blocks(tmp_path):
    names = sorted(f"layer_{i}/weight" for i in range(2000))
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "c"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(i) for i in range(len(names))],
    )
    content = (tmp_path / "c.index").read_bytes()
    assert len(content) > 3 * 4096
    assert [key.decode() for key, _ in sorted_table.read(content, "c")] == ["", *names]


def test_masking_has_an_inverse():
    # The published check value of CRC32C.
    assert sorted_table.unmasked(int.from_bytes(tables.masked(b"123456789"), "little")) == 0xE3069283


ONE = tables.block(tables.entry(b"k", b"v"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "0 bytes, expected 48 or more"),
        (bytes(100), "does not end in the magic number"),
        (tables.table(ONE, kind=1), "is compressed .kind 1."),
        (tables.table(ONE, handles=[tables.handle(1, 5)]), "fails its checksum"),
        (tables.table(ONE, handles=[tables.handle(0, 1000)]), "reaches beyond the end"),
        (tables.table(ONE, handles=[tables.handle(0, len(ONE))] * 2), "block at byte 0 is not behind the one before"),
        (tables.table(ONE, handles=[tables.handle(0, len(ONE)) + b"x"]), "not behind the one before"),
        (tables.table(ONE, ONE), "key b'k' follows b'k': not in ascending order"),
        (tables.table(tables.block(b"", restarts=()) + bytes([9, 0, 0, 0])), "8 bytes claims 9 restart points"),
        (tables.table(tables.block(tables.entry(b"k", b"v", num_shared=1))), r"claims 1 \+ 1 bytes of key"),
        (tables.table(tables.block(tables.varint(0) + tables.varint(9) + tables.varint(9))), "which do not fit"),
        (tables.table(tables.block(tables.entry(bytes(5000), b""))), r"claims 0 \+ 5000 bytes of key"),
        (tables.table(b"\xff\xff\0\0\0\0"), "entry claims 16383"),
        (tables.table(tables.block(b"\xff" * 12)), "number of more than 64 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_tables(content, match):
    with pytest.raises(errors.DamagedFileError, match=f"^some/file: damaged checkpoint index: .*{match}"):
        sorted_table.read(content, "some/file")


def test_limits(monkeypatch):
    content = tables.table(tables.block(b"".join(tables.entry(bytes([i]), b"") for i in range(20))))
    for name in ("_MAX_ENTRIES", "_MAX_ALL_KEY_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(sorted_table, name, 19)
            with pytest.raises(errors.DamagedFileError, match=r"more than \d+ entries, or more than \d+ bytes of keys"):
                sorted_table.read(content, "t")
    monkeypatch.setattr(sorted_table, "MAX_BYTES", len(content) - 1)
    with pytest.raises(errors.DamagedFileError, match=f"{len(content)} bytes, expected {len(content) - 1} at most"):
        sorted_table.read(content, "t")

"""Headers of gzip members: read as Python writes them, asked for more where they go on, refused where they are none."""

import gzip
import io

import pytest

from tests.zoo.archive import gzips
from zoo.archive import gzip_header


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_every_field_and_every_cut(flags):
    content = gzips.member(b"data", flags=flags)
    header, size = gzip_header.parse(content)
    assert header.to_json() == {
        "flags": flags,
        "mtime": 1234567,
        "extra_flags": 2,
        "system": 3,
        "name": "zoo.tar" if flags & 8 else "",
    }
    assert content[size:] == gzips.member(b"data")[10:]
    for end in range(size):
        assert gzip_header.parse(content[:end]) is None
    assert gzip_header.parse(content[:size]) == (header, size)


def test_what_python_writes():
    stream = io.BytesIO()
    with gzip.GzipFile("folder/name", "wb", fileobj=stream, mtime=7) as file:
        file.write(b"data")
    header, _ = gzip_header.parse(stream.getvalue())
    assert (header.name, header.mtime) == ("name", 7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x", r"expected the header of a gzip member .* found 78"),
        (b"\x1f\x8c", "found 1f 8c"),
        (b"\x1f\x8b\x00", r"compression method 0, expected 8 \(deflate\)"),
        (b"\x1f\x8b\x08\x20", "reserved gzip flags are set: 0x20"),
        (gzips.member(b"", flags=2)[:10] + b"\0\0", "has the checksum [0-9a-f]{4}, it says 0000"),
        (b"\x1f\x8b\x08\x10" + bytes(6) + b"c" * (1 << 20), "more than 1048576 bytes"),
    ],
)
def test_refusals(data, message):
    with pytest.raises(gzip_header.HeaderError, match=message):
        gzip_header.parse(data)

"""The parser of tar streams, held against Python's tarfile in pieces of all sizes; its state, and where it ends."""

import base64
import dataclasses
import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tests.zoo.archive import archives, tar_reading
from zoo import errors
from zoo.archive import tar_stream


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 1000, 10**6])
def test_as_tarfile_reads_it(example, size):
    data, _ = example
    found = tar_reading.parse_whole(data, size)
    assert len(found) == 13
    assert tar_reading.comparable(found) == tar_reading.expected_of(data)


def test_formats(example):
    data, tar_format = example
    found = {member.header_format for member, _ in tar_reading.parse_whole(data)}
    assert found == {"gnu": {"gnu"}, "v7": {"v7"}, "ustar": {"ustar"}, "pax": {"pax", "ustar"}}[tar_format]


def test_data_are_slices_of_what_was_fed():
    data = memoryview(archives.tar_bytes([archives.member("a", bytes(3000))]))
    for event in tar_stream.TarParser().feed(data):
        if isinstance(event, tar_stream.Data):
            assert event.data.obj is data.obj


def test_large_members_come_as_the_pieces_they_were_fed_in():
    parser = tar_stream.TarParser()
    (start,) = parser.feed(archives.header("a", 1 << 36))
    piece = memoryview(bytes(1 << 22))
    for _ in range((1 << 14) - 1):
        (event,) = parser.feed(piece)
        assert event.data.obj is piece.obj
        assert len(event.data) == len(piece)
    assert [type(event) for event in parser.feed(piece)] == [tar_stream.Data, tar_stream.End]
    assert parser.position == start.member.data_position + (1 << 36)


def test_settled():
    """What is settled is never beyond the headers that are being read, and all of it once they have been."""
    parts = [archives.pax_extension(archives.pax_record("path", "p")), archives.header("a", 3), b"abc"]
    parser = tar_stream.TarParser(5120)
    settled = []
    for byte in b"".join(parts):
        list(parser.feed(bytes([byte])))
        settled.append(parser.settled - 5120)
    assert set(settled[: 1536 - 1]) == {0}
    assert settled[1535:] == [1536, 1537, 1538, 1539]


def test_state_continues_anywhere(example):
    data, _ = example
    whole = tar_reading.parse_whole(data)
    for size in (100, 512, 700):
        parser, found, content = tar_stream.TarParser(), [], b""
        for piece in tar_reading.pieces(data, size):
            state = json.loads(json.dumps(parser.state()))
            parser = tar_stream.TarParser(parser.position, state)
            assert parser.state() == state
            for event in parser.feed(piece):
                if isinstance(event, tar_stream.Start):
                    content = b""
                elif isinstance(event, tar_stream.Data):
                    content += bytes(event.data)
                else:
                    found.append((event.member, content))
        parser.finish()
        assert found == whole


def test_state_continues_between_any_two_events(example):
    data, _ = example
    expected = [type(event) for event in tar_stream.TarParser().feed(data)]
    for number in range(len(expected)):
        parser = tar_stream.TarParser()
        list(itertools.islice(parser.feed(data), number))
        continued = tar_stream.TarParser(0, json.loads(json.dumps(parser.state())))
        assert [type(event) for event in continued.feed(data[parser.position :])] == expected[number:]


def test_state_in_a_sparse_map_and_in_a_search():
    data = archives.HOSTILE["sparse"]()
    parser = tar_stream.TarParser()
    found = []
    for piece in tar_reading.pieces(data, 100):
        found += [event.member for event in parser.feed(piece) if isinstance(event, tar_stream.End)]
        parser = tar_stream.TarParser(0, json.loads(json.dumps(parser.state())))
    parser.finish()
    assert found == [member for member, _ in tar_reading.parse_whole(data)]
    searching = tar_stream.TarParser(7, searching=True)
    assert list(searching.feed(bytes(100) + data[:200])) == []
    continued = tar_stream.TarParser(307, json.loads(json.dumps(searching.state())))
    first = next(continued.feed(data[200:]))
    assert first.member.header_position == 107


MEMBER = dataclasses.asdict(tar_stream.TarMember("a", "file", 3, 0, 512, "gnu", ""))


@pytest.mark.parametrize(
    "change",
    [
        {"position": -1},
        {"position": "0"},
        {"remaining": 0.5},
        {"needed": 1 << 40},
        {"needed": 0},
        {"padding": 512},
        {"purpose": "other"},
        {"purpose": []},
        {"purpose": "sparse"},
        {"gathered": "?"},
        {"gathered": base64.b64encode(bytes(512)).decode()},
        {"member": {"name": "x"}},
        {"member": 5},
        {"member": MEMBER | {"size": -1}},
        {"member": MEMBER | {"size": 1 << 40}},
        {"member": MEMBER | {"name": 5}},
        {"member": MEMBER, "remaining": 4},
        {"sparse": MEMBER},
        {"remaining": 1},
        {"zero_blocks": 2},
        {"zero_blocks": 3},
        {"finished": 1},
        {"searching": None},
        {"extensions": {"pax": 5}},
        {"extensions": {"pax": {"path": 5}}},
        {"extensions": {"long_name": 5}},
        {"extensions": {"header_position": "5"}},
        {"extensions": {"unknown": 1}},
        {"extensions": []},
    ],
)
def test_damaged_states(change):
    state = tar_stream.TarParser().state() | change
    with pytest.raises(errors.DamagedFileError, match="not the saved state of a tar parser"):
        tar_stream.TarParser(0, state)


def test_states_of_another_place():
    state = tar_stream.TarParser(512).state()
    assert tar_stream.TarParser(512, state).position == tar_stream.TarParser(0, state).position == 512
    with pytest.raises(errors.DamagedFileError, match="is at byte 512, expected 1024"):
        tar_stream.TarParser(1024, state)
    del state["padding"]
    with pytest.raises(errors.DamagedFileError, match="not the saved state of a tar parser: KeyError"):
        tar_stream.TarParser(512, state)


# Ends.


def test_truncation_anywhere(example):
    data, _ = example
    end = len(data.rstrip(b"\0"))
    end += -end % 512 + 1024
    for size in [*range(0, end, 97), end - 1]:
        parser = tar_stream.TarParser()
        tar_reading.parse([data[:size]], parser)
        with pytest.raises(errors.DamagedFileError, match=f"the tar data end at byte {size}, .*truncated"):
            parser.finish()
    tar_reading.parse_whole(data[:end])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without the two blocks of zeros"),
        (archives.header("a", 0), "without the two blocks of zeros"),
        (archives.header("a", 0) + bytes(512), "after one block of zeros, expected two"),
        (archives.header("a", 0)[:100], "within a header"),
        (archives.header("a", 9, b"x"), "within a header"),
        (archives.pax_extension(archives.pax_record("path", "x")), "within a header"),
        (archives.header("a", 9) + b"12345", "after 5 of the 9 bytes of 'a'"),
        (archives.header("a", 9) + b"123456789", "without the two blocks of zeros"),
    ],
)
def test_where_an_archive_ends(data, message):
    parser = tar_stream.TarParser()
    tar_reading.parse([data], parser)
    with pytest.raises(errors.DamagedFileError, match=message):
        parser.finish()


def test_zeros_behind_the_end():
    data = archives.header("a", 0) + bytes(1024)
    tar_reading.parse_whole(data + bytes(100_001))
    for size in (1, 512, 700):
        with pytest.raises(tar_stream.TarHeaderError, match="data behind the two blocks of zeros") as caught:
            tar_reading.parse(tar_reading.pieces(data + bytes(size) + b"x" + bytes(100), 333))
        assert caught.value.position == len(data) + size


def test_one_block_of_zeros_is_no_end():
    with pytest.raises(tar_stream.TarHeaderError, match="byte 1024 of the tar data: data behind a block of zeros"):
        tar_reading.parse([archives.header("a", 0) + bytes(512) + archives.header("b", 0)])


# Random archives.

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=5),
    st.sampled_from(["gnu", "pax"]),
    st.integers(1, 3000),
)
def test_random_archives(contents, tar_format, size):
    contents = [(name.strip("/") or "x", data) for name, data in contents]
    data = archives.tar_bytes([archives.member(*content) for content in contents], tar_format)
    assert [(member.name, content) for member, content in tar_reading.parse_whole(data, size)] == contents

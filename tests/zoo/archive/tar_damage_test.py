"""The parser of tar streams over damage: it goes on behind it, and what it reads is there or is refused."""

import itertools
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tests.zoo import corruptions
from tests.zoo.archive import archives, tar_examples, tar_reading
from zoo import errors
from zoo.archive import tar_stream


def parse_over_damage(chunks):
    """All whole members, and the positions of damage, as a user of the parser goes on."""
    parser, found, damage = tar_stream.TarParser(), [], []
    start = 0
    for chunk in chunks:
        while True:
            try:
                for event in parser.feed(chunk[parser.position - start :]):
                    if isinstance(event, tar_stream.End):
                        found.append(event.member)
                break
            except tar_stream.TarHeaderError as error:
                damage.append(error.position)
                parser = parser.behind(error)
        start += len(chunk)
    return found, damage, parser


@pytest.mark.parametrize("size", [100, 512, 3000, 10**6])
def test_going_on_behind_a_damaged_header(size):
    contents = [(f"e/0.5/{number}/aux_arrays.npz", bytes([number]) * 777) for number in range(5)]
    data = bytearray(archives.tar_bytes([archives.member(*content) for content in contents]))
    data[2 * 1536 + 20] ^= 1
    found, damage, parser = parse_over_damage(tar_reading.pieces(bytes(data), size))
    assert [member.name for member in found] == [name for name, _ in contents[:2] + contents[3:]]
    assert [member.data_position for member in found] == [512, 2048, 3 * 1536 + 512, 4 * 1536 + 512]
    assert damage == [2 * 1536]
    assert parser.num_members == 4
    parser.finish()


def test_going_on_where_bytes_are_missing():
    contents = [(f"e/0.5/{number}/aux_arrays.npz", bytes([number]) * 777) for number in range(5)]
    data = archives.tar_bytes([archives.member(*content) for content in contents])
    found, damage, parser = parse_over_damage(tar_reading.pieces(data[:2100] + data[2200:], 700))
    assert [member.name for member in found] == [contents[number][0] for number in (0, 1, 3, 4)]
    assert damage == [3072]
    assert found[2].header_position == 3 * 1536 - 100
    parser.finish()


def test_going_on_at_a_second_archive():
    data = archives.HOSTILE["behind_the_end"]()
    found, damage, parser = parse_over_damage(tar_reading.pieces(data, 1000))
    assert [member.name for member in found] == [f"e/0.5/{number}/aux_arrays.npz" for number in (0, 1, 2)]
    assert len(damage) == 2  # the second archive, and the member behind its end
    assert parser.num_members == 3


def test_no_header_behind_damage():
    data = archives.tar_bytes([archives.member("a", b"x")])
    found, damage, parser = parse_over_damage(tar_reading.pieces(b"?" + data[1:], 700))
    assert (found, damage) == ([], [0])
    assert parser.position == len(data)
    with pytest.raises(errors.DamagedFileError, match="no header had been found after a damaged place"):
        parser.finish()


def test_find_header(example):
    data, tar_format = example
    if tar_format == "v7":
        assert tar_stream.find_header(data) is None
        return
    (first, _), (second, _), *_ = tar_reading.parse_whole(data)
    assert tar_stream.find_header(data) == tar_stream.find_header(memoryview(data)) == 0
    assert tar_stream.find_header(data, 1) == second.header_position - first.header_position
    assert tar_stream.find_header(b"ustar" * 100 + data) == 500
    assert tar_stream.find_header(data[:511]) is None
    assert tar_stream.find_header(b"") is None
    assert tar_stream.find_header(archives.HOSTILE["size_no_number"](), 3073) > 3600


# Random damage.


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(sorted(archives.TAR_FORMATS)), st.sampled_from([1000, 5000, 10**6]))
def test_damaged_archives_are_read_in_order_or_refused(data, tar_format, size):
    damaged = data.draw(corruptions.corrupted(tar_examples.BY_FORMAT[tar_format]))
    parser = tar_stream.TarParser()
    end = 0
    try:
        for event in itertools.chain.from_iterable(parser.feed(piece) for piece in tar_reading.pieces(damaged, size)):
            if isinstance(event, tar_stream.End):
                member = event.member
                assert end <= member.header_position < member.data_position
                end = member.data_position + member.size
                assert end <= parser.position <= len(damaged)
        parser.finish()
        assert parser.position == len(damaged)
    except errors.DamagedFileError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable() or not message


FIELDS = {"name": (0, 100), "size": (124, 12), "checksum": (148, 8), "type": (156, 1), "link": (157, 100)}
FIELDS |= {"magic": (257, 8), "prefix": (345, 155), "sparse": (386, 97)}


@st.composite
def rewritten(draw, data):
    """The archive with a field of some header overwritten and the checksum made right again."""
    changed = bytearray(data)
    headers = [position for _, _, position, *_ in tar_reading.expected_of(data)]
    for at in draw(st.lists(st.sampled_from(headers), min_size=1, max_size=3)):
        start, size = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        choices = [st.binary(max_size=size), st.text("01 7\0x/", max_size=size).map(str.encode)]
        choices.append(
            st.sampled_from([b"0", b"1", b"5", b"x", b"g", b"L", b"K", b"S", b"V", b"ustar\0", b"\x80", b"\xff"])
        )
        new = draw(st.one_of(choices))[:size]
        changed[at + start : at + start + len(new)] = new
        changed[at : at + 512] = archives.with_checksum(bytes(changed[at : at + 512]))
    return bytes(changed)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(sorted(archives.TAR_FORMATS)))
def test_headers_made_up_are_read_as_tarfile_reads_them_or_refused(data, tar_format):
    """Where both programs read on, they agree on where data lie: no member of one is data for the other."""
    changed = data.draw(rewritten(tar_examples.BY_FORMAT[tar_format]))
    try:
        found = [(member.header_position, member.data_position) for member, _ in tar_reading.parse_whole(changed)]
    except errors.DamagedFileError:
        return
    try:
        expected = [tuple(fields[2:4]) for fields in tar_reading.expected_of(changed)]
    except (tarfile.TarError, ValueError, OverflowError):
        return
    # A header that tarfile refuses ends the archive for it.
    assert found[: len(expected)] == expected


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(["gnu", "pax", "ustar"]))
def test_damage_costs_only_what_it_touches(data, tar_format):
    """A flipped byte loses at most one member; its neighbours are found again."""
    whole = tar_examples.BY_FORMAT[tar_format]
    members = [member for member, _ in tar_reading.parse_whole(whole)]
    end = members[-1].data_position + members[-1].size
    at = data.draw(st.integers(0, end - 1))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found, _, _ = parse_over_damage(tar_reading.pieces(bytes(damaged), 900))
    except errors.UnsafeArchiveError:
        return
    untouched = [member for member in members if not member.header_position <= at < member.data_position + member.size]
    assert [member for member in found if member in untouched] == untouched

"""Headers and extensions of tar archives: what is read, what is refused, and within which limits."""

import itertools

import pytest

from tests.zoo.archive import archives, tar_reading
from zoo import errors
from zoo.archive import tar_stream


def with_end(*parts):
    return b"".join(parts) + archives.END


def only_member(data):
    ((member, content),) = tar_reading.parse_whole(data)
    return member, content


@pytest.mark.parametrize(
    "size",
    [b"00000000005\0", b"          5 ", b"5", b"000000000005", b" 5 \0", b"\x80" + (5).to_bytes(11, "big"), b"5\0junk"],
)
def test_ways_to_write_a_size(size):
    member, content = only_member(with_end(archives.raw_member(archives.header("a", size), b"12345")))
    assert (member.size, content) == (5, b"12345")


def test_empty_size_field():
    assert only_member(with_end(archives.header("a", b"")))[0].size == 0


def test_sizes_beyond_octal():
    size = (1 << 33) + 5
    for data in (
        archives.header("a", size),
        archives.pax_extension(archives.pax_record("size", str(size))) + archives.header("a", 0),
    ):
        (start,) = tar_stream.TarParser().feed(data)
        assert start.member.size == size
        assert start.member.data_position == len(data)


def test_largest_size():
    (start,) = tar_stream.TarParser().feed(archives.header("a", b"\x80" + (1 << 36).to_bytes(11, "big")))
    assert start.member.size == 1 << 36


def test_checksum_of_signed_bytes():
    block = archives.header("é", 0)
    signed = sum(byte - 256 * (byte > 127) for byte in block) - sum(block[148:156]) + 256
    data = with_end(block[:148] + b"%06o\0 " % signed + block[156:])
    assert only_member(data)[0].name == "é"
    assert tar_reading.comparable(tar_reading.parse_whole(data)) == tar_reading.expected_of(data)


@pytest.mark.parametrize("position", [0, 100, 124, 136, 156, 157, 257, 345, 511])
def test_any_flipped_byte_of_a_header_is_found(position):
    data = bytearray(archives.HOSTILE["npz_none"]())
    data[position] ^= 4
    with pytest.raises(tar_stream.TarHeaderError, match="byte 0 of the tar data: no tar header") as caught:
        tar_reading.parse([bytes(data)])
    assert (caught.value.position, caught.value.block) == (0, data[:512])


def test_text_that_is_no_archive():
    with pytest.raises(tar_stream.TarHeaderError, match="its checksum does not hold"):
        tar_reading.parse([b"<html>" * 100])


def test_folders_of_old_archives_are_named_with_a_slash():
    for type_flag in (b"0", b"\0", b"5"):
        assert only_member(with_end(archives.header("a/", 0, type_flag)))[0].kind == "directory"
    for long_name, name, kind in ((b"a/", "b", "directory"), (b"a", "b/", "file")):
        header = archives.header(name, 0)
        assert only_member(with_end(extension(long_name, b"L"), header))[0].kind == kind
        with pytest.raises(errors.UnsafeArchiveError, match="named like a folder and declares 1 bytes"):
            tar_reading.parse([extension(long_name, b"L") + archives.header(name, 1)])


def test_sizes_of_folders_and_links_mean_nothing():
    for type_flag, kind in ((b"5", "directory"), (b"1", "link"), (b"2", "link"), (b"6", "special")):
        data = with_end(archives.header("a", 512, type_flag))
        member, _ = only_member(data)
        assert (member.kind, member.size) == (kind, 0)
        assert tar_reading.comparable(tar_reading.parse_whole(data)) == tar_reading.expected_of(data)


@pytest.mark.parametrize("type_flag", [b"V", b"M", b"N", b"Z", b"D"])
def test_unknown_types_are_passed_over_with_their_data(type_flag):
    data = with_end(archives.raw_member(archives.header("a", 3, type_flag), b"abc"), archives.header("b", 0))
    (first, content), (second, _) = tar_reading.parse_whole(data)
    assert (first.kind, content) == ("directory" if type_flag == b"D" else "special", b"abc")
    assert (second.name, second.header_position) == ("b", 1024)


def test_contiguous_files_are_files():
    assert only_member(with_end(archives.header("a", 0, b"7")))[0].kind == "file"


def test_prefix_belongs_to_ustar_only():
    for tar_format, name in (("ustar", "prefix/a"), ("gnu", "a"), ("v7", "a")):
        block = archives.header("a", 0, tar_format=tar_format)
        data = with_end(archives.with_checksum(block[:345] + b"prefix" + block[351:]))
        assert only_member(data)[0].name == name


def extension(content, type_flag):
    return archives.raw_member(archives.header("././@LongLink", len(content), type_flag), content)


@pytest.mark.parametrize("order", list(itertools.permutations("LKxg")))
def test_extensions_in_any_order(order):
    parts = {
        "L": extension(b"long name\0", b"L"),
        "K": extension(b"long link\0", b"K"),
        "x": archives.pax_extension(archives.pax_record("mtime", "1.5")),
        "g": archives.pax_extension(archives.pax_record("comment", "made by hand"), b"g"),
    }
    data = with_end(*(parts[letter] for letter in order), archives.header("a", 0, b"2"), archives.header("b", 0))
    (first, _), (second, _) = tar_reading.parse_whole(data, 300)
    assert (first.name, first.link_name, first.kind) == ("long name", "long link", "link")
    assert first.header_position == (1024 if order[0] == "g" else 0)
    assert first.data_position == 4 * 1024 + 512
    assert first.header_format == "pax"
    assert (second.name, second.header_format) == ("b", "gnu")


def test_pax_goes_before_gnu():
    records = archives.pax_record("path", "by pax") + archives.pax_record("linkpath", "link by pax")
    for parts in ([extension(b"n", b"L"), extension(b"l", b"K"), archives.pax_extension(records)],):
        for ordered in (parts, parts[::-1]):
            member, _ = only_member(with_end(*ordered, archives.header("a", 0, b"2")))
            assert (member.name, member.link_name) == ("by pax", "link by pax")


def test_pax_records():
    records = [("comment", "ü=\n="), ("path", "first"), ("path", "e/é\udcff"), ("size", "3"), ("mtime", "")]
    content = b"".join(archives.pax_record(*record) for record in records) + bytes(5)
    data = with_end(archives.pax_extension(content), archives.raw_member(archives.header("a", 0), b"abc"))
    member, its_data = only_member(data)
    assert (member.name, member.size, its_data) == ("e/é\udcff", 3, b"abc")


def test_solaris_letter_for_pax():
    data = with_end(archives.pax_extension(archives.pax_record("path", "p"), b"X"), archives.header("a", 0))
    assert only_member(data)[0].name == "p"


def test_empty_extensions_change_nothing():
    for type_flag in (b"x", b"g", b"L", b"K"):
        assert only_member(with_end(extension(b"", type_flag), archives.header("a", 0)))[0].name == "a"


@pytest.mark.parametrize("key", ["path", "linkpath", "size", "GNU.sparse.major"])
@pytest.mark.parametrize("value", ["", "1"])
def test_what_no_extension_says_of_all_members(key, value):
    with pytest.raises(errors.UnsafeArchiveError, match=f"an extension gives {key} of all members at once"):
        tar_reading.parse([archives.pax_extension(archives.pax_record(key, value), b"g")])


@pytest.mark.parametrize("key", ["path", "linkpath", "size", "GNU.sparse.major"])
def test_empty_values_for_one_member(key):
    with pytest.raises(tar_stream.TarHeaderError, match=f"a PAX extension gives an empty {key}"):
        tar_reading.parse([archives.pax_extension(archives.pax_record(key, ""))])


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=x\n",
        b"9 path=xy\n",
        b"7 path=x",
        b"path=x\n",
        b"0 path=x\n",
        b"-9 path=x\n",
        b"09 path=x\n",
        b"10  path=x\n"[:-1],
        b"4 a\n",
        b"5 =a\n",
        b"2 \n",
        b"99999999999 path=x\n",
        archives.pax_record("path", "x") + b"\0x",
        archives.pax_record("path", "x") + b"junk",
    ],
)
def test_damaged_pax_records(records):
    with pytest.raises(tar_stream.TarHeaderError, match="byte 512 of the tar data: a PAX extension holds") as caught:
        tar_reading.parse([with_end(archives.pax_extension(records), archives.header("a", 0))])
    assert (caught.value.position, caught.value.block) == (512, records)


@pytest.mark.parametrize("value", ["abc", "+5", "5.0", "--5", "٥", "1" * 21])
def test_pax_sizes_that_are_no_numbers(value):
    with pytest.raises(tar_stream.TarHeaderError, match=r"a PAX extension gives 'a' size .*, expected a number"):
        tar_reading.parse([archives.pax_extension(archives.pax_record("size", value)) + archives.header("a", 0)])


# Limits.


def test_longest_extension_and_name():
    name = 4096 * "n"
    records = archives.pax_record("path", name) + archives.pax_record("comment", "c" * 1_000_000)
    assert only_member(with_end(archives.pax_extension(records), archives.header("a", 0)))[0].name == name
    with pytest.raises(errors.UnsafeArchiveError, match="a name of 4097 characters"):
        tar_reading.parse([with_end(extension(4097 * b"n", b"L"), archives.header("a", 0))])
    with pytest.raises(errors.UnsafeArchiveError, match="a name of 4097 characters"):
        tar_reading.parse([with_end(extension(4097 * b"n", b"K"), archives.header("a", 0, b"2"))])
    with pytest.raises(errors.UnsafeArchiveError, match="an extension declares 1048577 bytes, expected 1048576"):
        tar_reading.parse([archives.header("x", (1 << 20) + 1, b"x")])
    assert list(tar_stream.TarParser().feed(archives.header("x", 1 << 20, b"x"))) == []


def test_longest_map_of_a_file_with_holes():
    head = bytearray(archives.header("a", 0, b"S"))
    head[482] = 1
    parser = tar_stream.TarParser()
    assert list(parser.feed(archives.with_checksum(bytes(head)))) == []
    with pytest.raises(errors.UnsafeArchiveError, match="the map of 'a', a file with holes, goes on"):
        list(parser.feed((bytes(504) + b"\1" + bytes(7)) * 10_000))


def test_most_members():
    state = tar_stream.TarParser().state() | {"num_members": tar_stream.MAX_MEMBERS - 1}
    parser = tar_stream.TarParser(0, state)
    assert len(list(parser.feed(archives.header("a", 0)))) == 2
    with pytest.raises(errors.UnsafeArchiveError, match="byte 512 of the tar data: more than 10000000 members"):
        list(parser.feed(archives.header("b", 0)))

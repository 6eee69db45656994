"""The parser of tar streams, held against Python's tarfile and GNU tar, in pieces of all sizes, and over damage."""

import base64
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from tests.zoo import corruptions
from tests.zoo.archive import archives, tar_reading
from zoo import errors
from zoo.archive import tar_stream

LONG = "e/0.5/" + 60 * "long/" + "aux_arrays.npz"
LONG_USTAR = 10 * "folder/" + 80 * "n"
CONTENTS = [b"", b"a", 511 * b"b", 512 * b"c", 513 * b"d", bytes(2000), 3 * b"last"]
GNU_TAR = shutil.which("tar")


def members_of(tar_format):
    long_name = {"v7": 99 * "n", "ustar": LONG_USTAR}.get(tar_format, LONG)
    long_link = 99 * "l" if tar_format in ("v7", "ustar") else 300 * "l"
    all_names = ["./e/recipe.json", long_name, "e/é…", "e/0.5/1/aux_arrays.npz", "e/\udcff", "x", f"./{long_name[2:]}"]
    files = [archives.member(name, data, tar_format) for name, data in zip(all_names, CONTENTS, strict=True)]
    special = [
        archives.member("e/0.5", tar_format=tar_format, type=tarfile.DIRTYPE),
        archives.member("e/link", tar_format=tar_format, type=tarfile.SYMTYPE, linkname=long_link),
        archives.member("e/hard", tar_format=tar_format, type=tarfile.LNKTYPE, linkname="x"),
        archives.member("e/pipe", tar_format=tar_format, type=tarfile.FIFOTYPE),
        archives.member("e/device", tar_format=tar_format, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        archives.member("e/disk", tar_format=tar_format, type=tarfile.BLKTYPE),
    ]
    return [member for pair in itertools.zip_longest(files, special) for member in pair if member]


@pytest.fixture(scope="module", params=archives.TAR_FORMATS)
def example(request):
    """An archive by Python's tarfile with everything in it, and its format."""
    return archives.tar_bytes(members_of(request.param), request.param), request.param


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


# Programs.


@pytest.fixture
def tree(tmp_path):
    """A folder with files of several sizes, long names, links, a pipe and a file with holes."""
    root = tmp_path / "e"
    for number, content in enumerate(CONTENTS):
        path = root / "0.5" / str(number) / "aux_arrays.npz"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (root / "link").symlink_to("0.5/0/aux_arrays.npz")
    os.link(root / "0.5/1/aux_arrays.npz", root / "hard")
    os.mkfifo(root / "pipe")
    return root


def run_tar(*arguments, folder):
    command = [GNU_TAR, "--create", "--file=-", *arguments, "e"]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.skipif(GNU_TAR is None, reason="there is no tar program")
@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_as_gnu_tar_writes_it(tree, tar_format):
    if tar_format in ("oldgnu", "gnu", "posix"):
        long_path = tree / ("l" * 200) / ("m" * 200)
        long_path.mkdir(parents=True)
        (long_path / "file").write_bytes(b"content")
        (tree / "long_link").symlink_to("t" * 300)
        (tree / "é\udcff").write_bytes(b"not UTF-8")
    if tar_format == "v7":
        (tree / "pipe").unlink()  # it has no pipes
    data = run_tar(f"--format={tar_format}", folder=tree.parent)
    found = tar_reading.parse_whole(data, 5000)
    assert tar_reading.comparable(found) == tar_reading.expected_of(data)
    by_name = {member.name: content for member, content in found}
    for number, content in enumerate(CONTENTS):
        assert number == 1 or by_name[f"e/0.5/{number}/aux_arrays.npz"] == content


@pytest.mark.skipif(GNU_TAR is None, reason="there is no tar program")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--format=gnu",),
        ("--format=posix", "--sparse-version=0.0"),
        ("--format=posix", "--sparse-version=0.1"),
        ("--format=posix", "--sparse-version=1.0"),
    ],
)
def test_files_with_holes_are_special(tree, arguments):
    with open(tree / "holes", "wb") as stream:
        for number in range(60):
            stream.seek(number * 100_000)
            stream.write(b"x")
    data = run_tar("--sparse", *arguments, folder=tree.parent)
    found = tar_reading.parse_whole(data)
    assert {member.name for member, _ in found if member.kind == "special"} >= {"e/pipe"}
    (holes,) = [member for member, _ in found if "holes" in member.name]
    if os.stat(tree / "holes").st_blocks * 512 >= 6_000_000:
        pytest.skip("this file system keeps no holes")
    assert holes.kind == "special"
    expected = [(name, position) for name, _, position, *_ in tar_reading.expected_of(data)]
    ours = [(member.name.rstrip("/"), member.header_position) for member, _ in found]
    assert [pair for pair in ours if "holes" not in pair[0]] == [pair for pair in expected if "holes" not in pair[0]]


@pytest.mark.skipif(GNU_TAR is None, reason="there is no tar program")
def test_incremental_archives_of_gnu_tar(tree):
    """Their folders have data, and their headers times where ustar has the prefix."""
    data = run_tar("--format=gnu", "--listed-incremental=snapshot", folder=tree.parent)
    found = tar_reading.parse_whole(data)
    folders = {member.name: content for member, content in found if member.kind == "directory"}
    assert b"Yaux_arrays.npz" in folders["e/0.5/0/"]
    assert {member.name for member, _ in found} >= {"e/0.5/2/aux_arrays.npz", "e/link", "e/pipe"}


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


# Going on behind damage.


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


# Random archives, pieces and damage.

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


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(sorted(archives.TAR_FORMATS)), st.sampled_from([1000, 5000, 10**6]))
def test_damaged_archives_are_read_in_order_or_refused(data, tar_format, size):
    damaged = data.draw(corruptions.corrupted(SMALL[tar_format]))
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
    changed = data.draw(rewritten(SMALL[tar_format]))
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
    whole = SMALL[tar_format]
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


SMALL = {tar_format: archives.tar_bytes(members_of(tar_format), tar_format) for tar_format in archives.TAR_FORMATS}

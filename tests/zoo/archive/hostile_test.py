"""Hostile archives, passed through every layer that reads them, and which layer refuses them."""

import itertools

import pytest

from tests.zoo.archive import archives, tar_reading
from zoo import aux_arrays, errors
from zoo.archive import names, tar_stream


def screen(data):
    """What a careful reader makes of an archive: sound records, and what it refuses, by the layer that refuses."""
    parser, sound, refused, seen = tar_stream.TarParser(), [], [], set()
    content = bytearray()
    try:
        for event in itertools.chain.from_iterable(parser.feed(piece) for piece in tar_reading.pieces(data, 4096)):
            member = event.member
            if isinstance(event, tar_stream.Start):
                content = bytearray()
            elif isinstance(event, tar_stream.Data):
                content += event.data
            elif member.kind != "file":
                refused.append(f"kind {member.kind}")
            else:
                name = names.classify(member.name)
                if name.relative in seen:
                    refused.append("twice")
                seen.add(name.relative)
                aux_arrays.read(member.name, bytes(content))
                sound.append(name.relative)
        parser.finish()
    except errors.HeldoutError as error:
        refused.append(str(error))
    return sound, refused


REFUSED = {
    "absolute_path": "its path is absolute",
    "absolute_path_of_a_run": "its path is absolute",
    "parent_folder": "its path holds",
    "parent_folder_within": "its path holds",
    "backslash": "backslash",
    "newline": "control characters",
    "escape_sequence": "control characters",
    "direction_of_text": "control characters",
    "nul": "control characters",
    "not_utf8": "not UTF-8",
    "long_path": "expected 1024 at most",
    "longer_path": "expected 4096 at most",
    "symbolic_link": "kind link",
    "symbolic_link_to_folder": "kind link",
    "hard_link": "kind link",
    "character_device": "kind special",
    "block_device": "kind special",
    "pipe": "kind special",
    "folder_for_file": "kind directory",
    "unknown_type": "kind special",
    "sparse": "kind special",
    "sparse_pax": "kind special",
    "duplicate": "twice",
    "duplicate_in_another_spelling": "twice",
    "huge_size": "declares 1125899906842624 bytes",
    "huge_pax_size": "declares 4611686018427387904 bytes",
    "size_beyond_the_end": "truncated",
    "negative_size": "declares -512 bytes",
    "negative_pax_size": "declares -512 bytes",
    "size_no_number": "expected an octal number",
    "folder_with_data": "named like a folder",
    "pax_wrong_length": "expected <length> <key>=<value>",
    "pax_for_all": "gives path of all members at once",
    "huge_extension": "an extension declares 1073741824 bytes",
    "extension_twice": "two extensions of one sort",
    "extension_without_member": "the archive ends behind an extension",
    "behind_the_end": "data behind the two blocks of zeros",
    "npz_bomb": "its arrays declare 3221225344 bytes",
    "npz_that_claims": "declares shape",
    "npz_with_pickle": "dtype object",
    "npz_none": "not a sound npz file",
}


def test_all_hostile_archives_have_their_reason():
    assert list(REFUSED) == list(archives.HOSTILE)


@pytest.mark.parametrize("kind", archives.HOSTILE)
def test_hostile_archives(kind):
    sound, refused = screen(archives.HOSTILE[kind]())
    assert sound[0] == "0.5/0/aux_arrays.npz"
    assert REFUSED[kind] in refused[0]


def test_a_harmless_archive_passes():
    data = archives.tar_bytes(
        [archives.member(f"e/0.5/{seed}/aux_arrays.npz", archives.record(seed)) for seed in (1, 2)]
    )
    assert screen(data) == (["0.5/1/aux_arrays.npz", "0.5/2/aux_arrays.npz"], [])

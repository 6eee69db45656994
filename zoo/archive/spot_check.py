"""Looks whether a file is the archive that an index was made of, by a few of its members.

The size may be the same by chance, and of a file on this machine nobody states a digest. So some members between the
first and the last run are read by the index, and held against their CRC32 in it: a few megabytes at most. That tells
another archive from the right one; damage in one place it may miss, which only reading all of it finds.
"""

import zlib

from zoo import errors
from zoo.archive import extract_plan, index, seek_points
from zoo.remote import addresses, source

_NUM_MEMBERS = 4
# Of each, compressed and uncompressed, with what has to be inflated before it.
_MOST_READ = 1 << 20
_MOST_INFLATED = 1 << 24
# Members that are tried instead of one that takes more.
_MOST_TRIED = 12


def check(stored: index.Index, archive: source.Source) -> int:
    """Holds some members of an archive against its index.

    Args:
        stored: the index.
        archive: what should be its archive, of the size that the index says.

    Returns:
        How many members were read; 0 where none is small enough.

    Raises:
        MismatchError: one has not the bytes that the index says.
        DamagedFileError: the index contradicts itself.
    """
    wanted = _members(stored)
    for member in wanted:
        if _crc32(stored, archive, member) != member.crc32:
            raise errors.MismatchError(
                f"{stored.path}: index of another archive than {addresses.display(archive.state.url)}, or that is "
                f"damaged: {member.name} has not the bytes that the index says. Get the archive again; or, if it is "
                "what it should be, delete the index to make it anew"
            )
    return len(wanted)


def _members(stored: index.Index) -> list[index.Member]:
    """The first small member of a run, the last one, and some between."""
    # Of a damaged archive only what its own checksums prove was readable at all.
    states = ("sound",) if stored.facts.state == "damaged" else ("sound", "unchecked")
    of_runs = [member for member in stored.members() if member.run and member.size and member.state in states]
    found: dict[int, index.Member] = {}
    for number in range(_NUM_MEMBERS):
        place = number * (len(of_runs) - 1) // (_NUM_MEMBERS - 1)
        nearest = sorted(range(len(of_runs)), key=lambda other: abs(other - place))[:_MOST_TRIED]
        member = next((of_runs[other] for other in nearest if _is_small(stored, of_runs[other])), None)
        if member is not None:
            found[member.member_id] = member
    return list(found.values())


def _is_small(stored: index.Index, member: index.Member) -> bool:
    """Whether little has to be read and inflated for it."""
    point = extract_plan.point_of(stored, member)
    num_inflated = member.position + member.size - point.position
    return member.end_offset - point.first_byte <= _MOST_READ and num_inflated <= _MOST_INFLATED


def _crc32(stored: index.Index, archive: source.Source, member: index.Member) -> int | None:
    """Of a member as the archive has it; None where there is none."""
    point = extract_plan.point_of(stored, member)
    data = archive.read(point.first_byte, member.end_offset - point.first_byte)
    crc32 = 0
    try:
        for piece in seek_points.inflate_range(point, data, member.position, member.size):
            crc32 = zlib.crc32(piece, crc32)
    except errors.DamagedFileError:
        return None
    return crc32

"""Verifies an archive: one pass, its digests and contents, and every member against an index made when it was sound."""

import dataclasses
import pathlib

from zoo import files
from zoo.archive import extract_plan, index, indexing, scan
from zoo.remote import source


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is wrong with one member, or with the archive as a whole.

    Attributes:
        name: path of the member in the archive; None for the archive as a whole.
        reason: a sentence.
    """

    name: str | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Check:
    """What a verification has found.

    Attributes:
        facts: of the archive, as it is now.
        num_members: files in it.
        num_proved: those among them that were proved right, by their own checksums or by the index.
        findings: what is wrong.
    """

    facts: index.Facts
    num_members: int
    num_proved: int
    findings: tuple[Finding, ...]


def check(
    url: str,
    work: files.PathLike,
    stored: index.Index | None = None,
    expected: scan.Expected = scan.Expected(),  # noqa: B008
    options: source.Options = source.Options(),  # noqa: B008
    progress: scan.Progress | None = None,
) -> Check:
    """Reads an archive once, resumably, and says what is wrong with it.

    Args:
        url: of the archive.
        work: a file to be made for the time of the pass, and deleted; what a kill leaves of it, the next call takes up.
        stored: index from a time when the archive was sound; None where there is none.
        expected: what else is known of the archive. Another size is a finding, and the archive is read all the same.
        options: how it is read.
        progress: called with the number of compressed bytes done and the number of all.

    Raises:
        As `indexing.make`.
    """
    places = indexing.Places(pathlib.Path(work))
    # Of an earlier call that was killed before it could compare; the archive may be another now.
    places.index.unlink(missing_ok=True)
    # A pass refuses an archive that is cut short; here it is to be said which of its members are left.
    try:
        result = indexing.make(url, places, dataclasses.replace(expected, size=None), options, progress)
    except scan.UnreadableArchiveError:
        places.lock.unlink(missing_ok=True)
        raise
    with index.Index(places.index) as found:
        checked = _compare(result.facts, found, stored, expected.size)
    places.index.unlink()
    places.lock.unlink(missing_ok=True)
    return checked


def _compare(facts: index.Facts, found: index.Index, stored: index.Index | None, size: int | None) -> Check:
    findings = [Finding(None, fault) for fault in facts.faults]
    if size not in (None, facts.size):
        findings.append(Finding(None, f"it has {facts.size} bytes, the archive that is known has {size}"))
    if stored is not None:
        now = source.ObjectState(facts.name, facts.size, None, facts.md5, facts.crc32c)
        findings += [Finding(None, difference) for difference in extract_plan.differences(stored.facts, now)]
    sound = () if stored is None else (member for member in stored.members() if member.state in ("sound", "unchecked"))
    known = {member.name: (member.size, member.crc32) for member in sound}
    num_members = num_proved = 0
    for member in found.members():
        num_members += 1
        expected = known.pop(member.name, None)
        if member.state in ("damaged", "refused"):
            findings.append(Finding(member.name, f"{member.state}: {member.why}"))
        elif expected is not None and expected != (member.size, member.crc32):
            findings.append(
                Finding(
                    member.name,
                    f"damaged: {member.size} bytes with CRC32 {member.crc32:08x}, the index says {expected[0]} with "
                    f"{expected[1]:08x}",
                )
            )
        else:
            if stored is not None and expected is None:
                findings.append(Finding(member.name, "is not in the index"))
            num_proved += member.state == "sound" or expected is not None
    findings += [Finding(name, "lost: the index has it, the archive no longer gives it") for name in known]
    return Check(facts, num_members, num_proved, tuple(findings))

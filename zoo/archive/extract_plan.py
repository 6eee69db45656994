"""What has to be read from an archive to have some of its runs: which members, in which ranges of the file."""

from collections.abc import Callable, Collection, Iterable, Sequence
import dataclasses
import pathlib
import zlib

from zoo import errors, files, layout
from zoo.archive import contents, index, names, seek_points
from zoo.remote import addresses, source

Run = tuple[float, int]
Part = names.Part
Progress = Callable[[int, int], None]

# Members with less than this between them (compressed) are read in one go: cheaper than another request.
_GAP = 1 << 18
# Where a group is damaged, what is left of it is read member by member: so many bytes are a group at most.
_LARGEST_GROUP = 1 << 26
_HALVES: tuple[names.Part, ...] = ("checkpoint_index", "checkpoint_data")
PARTS: tuple[names.Part, ...] = ("aux_arrays", *_HALVES)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A member to extract, and where to."""

    member: index.Member
    target: pathlib.Path
    point: seek_points.Point

    @property
    def start(self) -> int:
        """First byte of the compressed file that is needed."""
        return self.point.first_byte


@dataclasses.dataclass(frozen=True)
class Problem:
    """A run that cannot be had, or only in part."""

    run: Run | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be fetched.

    Attributes:
        groups: members, neighbours together, in the order of the archive.
        num_there: files that are there already, with the right bytes.
        problems: what cannot be fetched, and why.
    """

    groups: tuple[tuple[Wanted, ...], ...]
    num_there: int
    problems: tuple[Problem, ...]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Compressed bytes [start, stop) of each group."""
        return [(group[0].start, max(wanted.member.end_offset for wanted in group)) for group in self.groups]

    @property
    def num_compressed(self) -> int:
        """Bytes to be read."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def num_bytes(self) -> int:
        """Bytes to be written."""
        return sum(wanted.member.size for group in self.groups for wanted in group)

    @property
    def num_files(self) -> int:
        """Files to be written."""
        return sum(len(group) for group in self.groups)


@dataclasses.dataclass(frozen=True)
class RatioContents:
    """The runs of an archive at one ratio.

    Attributes:
        subset_ratio: the ratio.
        run_ids: of the runs that have a readable file, ascending.
        num_with_checkpoint: those among them that have both files of a checkpoint.
    """

    subset_ratio: float
    run_ids: tuple[int, ...]
    num_with_checkpoint: int


def contents_of(stored: index.Index) -> list[RatioContents]:
    """The runs of an archive by ratio."""
    halves: set[tuple[Run, int | None, str]] = set()
    for member in stored.members():
        if member.run is not None and member.parsed is not None and _refusal(stored, member) is None:
            halves.add((member.run, member.parsed.epoch, member.parsed.part))
    whole = {run for run, epoch, _ in halves if all((run, epoch, half) in halves for half in _HALVES)}
    runs = stored.runs()
    return [
        RatioContents(ratio, tuple(run_id for of, run_id in runs if of == ratio), sum(of == ratio for of, _ in whole))
        for ratio in sorted({ratio for ratio, _ in runs})
    ]


def plan(
    stored: index.Index,
    zoo: files.PathLike,
    experiment: str,
    runs: Iterable[Run],
    parts: Collection[names.Part] = PARTS,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Finds what has to be read for some runs.

    Args:
        stored: the index.
        zoo: folder that the experiment's folder is in.
        experiment: name of that folder.
        runs: subset ratio and run id of each run wanted.
        parts: which of its files.
        overwrite: replace files that are there with other bytes, instead of leaving their runs alone.
        progress: called with the number of bytes that were read of files that are there, and the number of all.

    Returns:
        The plan. A run that is not in the archive, has none of the parts, or is there with other bytes is a problem.

    Raises:
        DamagedFileError: the index contradicts itself.
    """
    wanted, problems, num_there = [], [], 0
    for member in stored.members_of_no_run():
        if member.parsed is not None and member.parsed.part == "recipe" and _is_own(stored, member.parsed):
            target = layout.recipe_path(zoo, experiment)
            reason = _refusal(stored, member)
            if reason is not None:
                problems.append(Problem(None, reason))
            elif not target.exists():
                wanted.append(_wanted(stored, member, target))
    by_run = {run: _members_of(stored, run, parts) for run in sorted(set(runs))}
    there = _There([(_target(zoo, experiment, member), member) for found, _ in by_run.values() for member in found])
    for run, (of_run, reasons) in by_run.items():
        problems += [Problem(run, reason) for reason in reasons]
        targets = [(member, _target(zoo, experiment, member)) for member in of_run]
        missing = [(member, target) for member, target in targets if not there.has(target, member, progress)]
        others = [target for _, target in missing if target.is_file()]
        if others and not overwrite:
            problems.append(Problem(run, f"{others[0]}: is there with other bytes; --overwrite replaces it"))
            continue
        num_there += len(targets) - len(missing)
        wanted += [_wanted(stored, member, target) for member, target in missing]
    return Plan(_grouped(wanted), num_there, tuple(problems))


def _is_own(stored: index.Index, parsed: names.MemberName) -> bool:
    """Whether a file of an experiment as a whole is the one of the archive's experiment."""
    return parsed.folder == stored.facts.folder


def _target(zoo: files.PathLike, experiment: str, member: index.Member) -> pathlib.Path:
    assert member.parsed is not None
    return layout.experiment_directory(zoo, experiment) / member.parsed.relative


def _wanted(stored: index.Index, member: index.Member, target: pathlib.Path) -> Wanted:
    """A member with its point."""
    return Wanted(member, target, point_of(stored, member))


def point_of(stored: index.Index, member: index.Member) -> seek_points.Point:
    """The point from which a member is inflated.

    Raises:
        DamagedFileError: no way leads from the point to the member.
    """
    point = stored.point(member.point_id)
    if not (point.position <= member.position and point.first_byte < member.end_offset):
        raise errors.DamagedFileError(
            f"{stored.path}: not a sound index of an archive: {member.name} does not lie behind point "
            f"{member.point_id}. Delete it and make it again with zoo_index."
        )
    return point


def _members_of(stored: index.Index, run: Run, parts: Collection[str]) -> tuple[list[index.Member], list[str]]:
    """The members of a run that can be fetched, and why others cannot."""
    name = f"{layout.ratio_name(run[0])}/{run[1]}"
    found, reasons = [], []
    for member in stored.members(run):
        reason = _refusal(stored, member)
        if reason is None and member.parsed is not None and member.parsed.part in parts:
            found.append(member)
        elif reason is not None and (member.parsed is None or member.parsed.part in parts):
            reasons.append(reason)
    for member in _half_checkpoints(found) if set(_HALVES) <= set(parts) else ():
        found.remove(member)
        stem, dot, _ = member.name.rpartition(".")
        if not any(other.startswith(stem + dot) for other in reasons):
            reasons.append(f"{member.name}: the archive has no other file of this checkpoint")
    if not found and not reasons:
        reasons.append(f"run {name}: the archive has none of its {', '.join(parts)}")
    return found, reasons


def _half_checkpoints(found: Sequence[index.Member]) -> list[index.Member]:
    """Files of checkpoints whose other file cannot be had: of no use, and a run with one counts as damaged."""
    epochs = {member: (member.parsed.epoch, member.parsed.part) for member in found if member.parsed is not None}
    there = set(epochs.values())
    return [
        member
        for member, (epoch, part) in epochs.items()
        if part in _HALVES and not all((epoch, half) in there for half in _HALVES)
    ]


def _refusal(stored: index.Index, member: index.Member) -> str | None:
    """Why a member is not fetched; None if it is."""
    if member.state in ("damaged", "refused"):
        return f"{member.name} is {member.state} in the archive: {member.why}"
    if member.state == "unchecked" and stored.facts.state == "damaged":
        return f"{member.name}: nothing proves it sound, and the archive is damaged"
    part = None if member.parsed is None else member.parsed.part
    largest = contents.LARGEST[part] if part in ("aux_arrays", "recipe") else member.size
    if member.size > largest:
        return f"{member.name}: {files.size_text(member.size)}, expected {files.size_text(largest)} at most"
    return None


class _There:
    """Which files are there already; to tell, they are read: a whole zoo takes minutes.

    Args:
        targets: all that will be asked for.
    """

    def __init__(self, targets: Iterable[tuple[pathlib.Path, index.Member]]) -> None:
        self._num_read = 0
        self._to_read = sum(member.size for target, member in targets if _has_size(target, member))

    def has(self, target: pathlib.Path, member: index.Member, progress: Progress | None) -> bool:
        """Whether the file is there with the bytes of the member."""
        if not _has_size(target, member):
            return False
        crc32 = 0
        try:
            with open(target, "rb") as stream:
                while block := stream.read(1 << 20):
                    crc32 = zlib.crc32(block, crc32)
        except FileNotFoundError:  # it has just gone
            return False
        self._num_read += member.size
        if progress is not None:
            progress(self._num_read, self._to_read)
        return crc32 == member.crc32


def _has_size(target: pathlib.Path, member: index.Member) -> bool:
    return target.is_file() and target.stat().st_size == member.size


def _grouped(wanted: Sequence[Wanted]) -> tuple[tuple[Wanted, ...], ...]:
    groups: list[list[Wanted]] = []
    for item in sorted(wanted, key=lambda item: item.member.position):
        last = groups[-1] if groups else []
        if (
            last
            and item.start - last[-1].member.end_offset < _GAP
            and item.member.end_offset - last[0].start <= _LARGEST_GROUP
        ):
            last.append(item)
        else:
            groups.append([item])
    return tuple(tuple(group) for group in groups)


def check_same(stored: index.Index, state: source.ObjectState) -> None:
    """Refuses an archive that is not the one of the index.

    Raises:
        MismatchError: size or a digest differ.
    """
    found = differences(stored.facts, state)
    if found:
        raise errors.MismatchError(
            f"{addresses.display(state.url)}: not the archive that {stored.path} is the index of: {'; '.join(found)}. "
            "Get the index that belongs to it, or make one with zoo_index"
        )


def differences(facts: index.Facts, state: source.ObjectState) -> list[str]:
    """In what an archive differs from the one that an index was made of."""
    found = []
    if facts.size != state.size:
        found.append(f"it has {state.size} bytes, the index says {facts.size}")
    if state.md5 is not None and facts.md5 is not None and state.md5 != facts.md5:
        found.append(f"its MD5 is {state.md5}, the index says {facts.md5}")
    if state.crc32c is not None and state.crc32c != facts.crc32c:
        found.append(f"its CRC32C is {state.crc32c:08x}, the index says {facts.crc32c:08x}")
    return found

"""From the events of a tar stream to the members of an index: what each is called, where it lies, what it is worth."""

from collections.abc import Callable
import dataclasses
from typing import Any

from zoo import errors
from zoo.archive import contents, gzip_stream, index, journal, names, seek_plan, tar_stream

# Parts that can be fetched, so that a point leads to them.
_FETCHED = ("aux_arrays", "checkpoint_index", "checkpoint_data", "recipe", "run_table")
# Files of experiments as a whole whose second one is noticed; an archive has one or two.
_MOST_PATHS = 1000
# Members of one run lie together, or all runs take their turns.
_MOST_RUNS_KNOWN = 64
# A run has two files for each checkpoint.
_MOST_OF_RUN = 10_000


@dataclasses.dataclass
class _Passing:
    """A member whose bytes are passing; `parsed` is None where it is refused."""

    member_id: int
    name: str
    size: int
    position: int
    point_id: int
    parsed: names.MemberName | None
    reason: str


class MemberLog:
    """Takes the events of one archive in order.

    Args:
        log: where members and rows go.
        plan: the points.
        experiment: the name that the experiment shall have; None for that of its folder in the archive.
        keep: called with name and content of each sound file of an experiment as a whole.
        state: what `state` returned, to go on.
        blobs: likewise.
    """

    def __init__(
        self,
        log: journal.Journal,
        plan: seek_plan.SeekPlan,
        experiment: str | None,
        keep: Callable[[names.MemberName, bytes], None],
        state: dict[str, Any] | None = None,
        blobs: dict[str, bytes] | None = None,
    ) -> None:
        self._log, self._plan, self._experiment = log, plan, experiment
        self._contents = contents.Contents(log.add_row, keep)
        self._folder: str | None = None
        # Files of the experiment as a whole that have been there.
        self._paths: list[str] = []
        self._passing: _Passing | None = None
        self._names: dict[tuple[float, int], set[str]] = {}
        # Members that are complete, and the boundary behind them is still to come.
        self._ended: list[tuple[index.Member, int]] = []
        self.num_members = 0
        self.last_name = ""
        self.header_formats: list[str] = []
        if state is not None:
            self._restore(state, blobs or {})

    @property
    def folder(self) -> str:
        """Path of the experiment's folder in the archive; empty where its files lie at the top."""
        return self._folder or ""

    @property
    def experiment(self) -> str:
        """The experiment's name: the one asked for, else that of the folder, else simply "experiment"."""
        return self._experiment or self.folder.rpartition("/")[2] or "experiment"

    @property
    def num_held(self) -> int:
        """Bytes of members held at the moment."""
        return self._contents.num_held

    def start(self, member: tar_stream.TarMember) -> None:
        """A member begins."""
        if member.header_format not in self.header_formats:
            self.header_formats.append(member.header_format)
        parsed, reason = self._admit(member)
        if member.kind == "directory" and parsed is not None:
            return
        point_id = 0
        if parsed is not None and parsed.part in _FETCHED:
            point_id = self._plan.point_before(member.header_position)
        name = names.printable(member.name) if parsed is None else member.name
        self._passing = _Passing(self.num_members, name, member.size, member.data_position, point_id, parsed, reason)
        self.num_members += 1
        if parsed is not None:
            self._contents.begin(self._passing.member_id, parsed, member.size, self.experiment)

    def data(self, data: memoryview) -> None:
        """The next bytes of the member."""
        if self._passing is not None and self._passing.parsed is not None:
            self._contents.add(data)

    def end(self) -> None:
        """The member is complete."""
        passing = self._passing
        if passing is None:
            return
        self._passing = None
        self.last_name = passing.name
        if passing.parsed is None:
            self._ended.append(_as_member(passing, 0, "refused", passing.reason))
            return
        crc32, state, reason = self._contents.end()
        self._ended.append(_as_member(passing, crc32, state, reason))
        for verdict in self._contents.take_verdicts():
            self._judge(verdict)

    def find_ends(self, batch: gzip_stream.Batch) -> None:
        """The events of a batch are done: notes where in the archive the members end that have ended."""
        waiting = []
        for member, end in self._ended:
            offset = self._plan.end_offset(end, batch)
            if offset is None:
                waiting.append((member, end))
            else:
                self._log.add_member(dataclasses.replace(member, end_offset=offset))
        self._ended = waiting

    def interrupt(self, offset: int, reason: str) -> None:
        """The stream ends or breaks here: the member that is passing is damaged.

        Args:
            offset: place in the compressed file behind everything that was read.
            reason: what happened.
        """
        for member, _ in self._ended:
            self._log.add_member(dataclasses.replace(member, end_offset=offset))
        self._ended = []
        passing, self._passing = self._passing, None
        if passing is not None:
            self._contents.abandon()
            is_refused = passing.parsed is None
            member, _ = _as_member(passing, 0, *(("refused", passing.reason) if is_refused else ("damaged", reason)))
            self._log.add_member(dataclasses.replace(member, end_offset=offset))
            self.last_name = passing.name

    @property
    def passing_name(self) -> str | None:
        """Name of the member whose bytes are passing."""
        return None if self._passing is None else self._passing.name

    def state(self) -> tuple[dict[str, Any], dict[str, contents.Content]]:
        """What the log continues from: values that go through JSON, and bytes by name."""
        inside, blobs = self._contents.state()
        passing = None if self._passing is None else dataclasses.asdict(self._passing)
        return {
            "contents": inside,
            "passing": passing,
            "folder": self._folder,
            "paths": self._paths,
            "num_members": self.num_members,
            "last_name": self.last_name,
            "header_formats": self.header_formats,
        }, blobs

    def _restore(self, state: dict[str, Any], blobs: dict[str, bytes]) -> None:
        self._contents.restore(state["contents"], blobs)
        if state["passing"] is not None:
            self._passing = _Passing(**state["passing"])
            if self._passing.parsed is not None:
                self._passing.parsed = names.classify(self._passing.name)
        self._folder, self._paths = state["folder"], state["paths"]
        self.num_members, self.last_name = state["num_members"], state["last_name"]
        self.header_formats = state["header_formats"]

    def _admit(self, member: tar_stream.TarMember) -> tuple[names.MemberName | None, str]:
        """What the name says, or None and why the member is refused."""
        try:
            parsed = names.classify(member.name)
        except errors.UnsafeArchiveError as error:
            return None, str(error)
        if member.kind == "directory":
            if parsed.part == "other":
                return parsed, ""
            return None, f"member {member.name}: a folder, where zoos have a file"
        if member.kind != "file":
            what = f"a link to {member.link_name!a}" if member.kind == "link" else "a device, pipe or sparse file"
            return None, f"member {member.name}: {what}; archives of zoos hold plain files and folders only"
        if parsed.part == "other":
            return parsed, ""
        # A file that is called as a recipe is may belong to anything: only runs tell which folder is meant.
        if self._folder is None and parsed.run_id is not None:
            self._folder = parsed.folder
        elif self._folder is not None and parsed.folder != self._folder:
            if parsed.run_id is None:
                return dataclasses.replace(parsed, part="other"), ""
            return None, (
                f"member {member.name}: belongs to another experiment than {self._folder or 'the first member'}; "
                "an archive holds one experiment"
            )
        run = parsed.subset_ratio, parsed.run_id
        if run[0] is not None and run[1] is not None and len(self._names_of_run((run[0], run[1]))) >= _MOST_OF_RUN:
            return None, f"member {member.name}: its run has more than {_MOST_OF_RUN} files"
        if self._is_there(parsed):
            return None, f"member {member.name}: is there twice; only the first counts"
        return parsed, ""

    def _is_there(self, parsed: names.MemberName) -> bool:
        """Whether a member that would be the same file has been admitted before."""
        if parsed.subset_ratio is None or parsed.run_id is None:
            path = f"{parsed.folder}/{parsed.relative}"
            known = path in self._paths
            self._paths = self._paths if known or len(self._paths) > _MOST_PATHS else [*self._paths, path]
            return known
        known_names = self._names_of_run((parsed.subset_ratio, parsed.run_id))
        is_known = parsed.relative in known_names
        known_names.add(parsed.relative)
        return is_known

    def _names_of_run(self, run: tuple[float, int]) -> set[str]:
        """Relative names of the run's members so far, from memory for the runs that were asked for last."""
        if run not in self._names:
            self._names[run] = {names.classify(name).relative for name in self._log.names_of_run(*run)}
            self._names[run] |= {
                member.parsed.relative for member, _ in self._ended if member.parsed is not None and member.run == run
            }
            if len(self._names) > _MOST_RUNS_KNOWN:
                del self._names[next(iter(self._names))]
        return self._names[run]

    def _judge(self, verdict: contents.Verdict) -> None:
        for place, (member, end) in enumerate(self._ended):
            if member.member_id == verdict.member_id:
                judged = dataclasses.replace(member, state=verdict.state, reason=verdict.reason)
                self._ended[place] = judged, end
                return
        self._log.judge_member(verdict.member_id, verdict.state, verdict.reason)


def _as_member(passing: _Passing, crc32: int, state: index.State, reason: str) -> tuple[index.Member, int]:
    """The member, still without its end in the archive, and its end in the tar stream."""
    member = index.Member(
        passing.member_id, passing.name, passing.size, crc32, passing.position, passing.point_id, 0, state, reason,
        passing.parsed if state != "refused" else None,
    )  # fmt: skip
    return member, passing.position + passing.size

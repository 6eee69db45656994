"""Finds the runs that must not be packed: damaged records and checkpoints, and remembers what was found sound.

Everything is read once for it. What was sound is noted, with size and time of modification, so that the command that
continues after a kill need not read it again.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import time

from zoo import checkpoint_bundle, errors, files, inventory, layout, run_scan, run_table, run_table_update
from zoo.archive import pack_tar

READING_RECORDS, READING_CHECKPOINTS = "reading records", "reading checkpoints"
# Stage, done, of so many.
Progress = Callable[[str, int, int], None]


class Memory:
    """What earlier calls have found sound.

    Args:
        rows: run table of the sound records; created by `save_rows`.
        checkpoints: JSON file of the sound checkpoint files; created by `save_checkpoints`.
    """

    def __init__(self, rows: pathlib.Path, checkpoints: pathlib.Path) -> None:
        self._rows, self._checkpoints = rows, checkpoints
        self._table: run_table.RunTable | None = None
        self._sound: dict[str, list[int]] = {}
        # Whatever is wrong with these files, all can be read again from the zoo.
        with contextlib.suppress(errors.HeldoutError):
            self._table = run_table.read(rows)
        with contextlib.suppress(errors.HeldoutError):
            self._sound = files.read_json(checkpoints)

    def known_rows(self, runs: Sequence[layout.Run]) -> dict[layout.Run, run_scan.RunRow]:
        """Rows that a scan may take over. Without its record a run cannot be packed, whatever was known of it."""
        rows = {} if self._table is None else run_table_update.rows_by_run(self._table, runs)
        return {run: row for run, row in rows.items() if run.aux_arrays_path.exists()}

    def save_rows(self, rows: Sequence[run_scan.RunRow]) -> None:
        """Notes these rows, and only these."""
        if rows:
            run_table.write(self._rows, run_table_update.from_rows(rows))

    def is_known(self, source: pack_tar.Source) -> bool:
        """Whether a checkpoint file is one that was found sound."""
        return self._sound.get(source.name) == [source.size, source.mtime_ns]

    def add(self, source: pack_tar.Source) -> None:
        """Notes a checkpoint file until the next `save_checkpoints`."""
        self._sound[source.name] = [source.size, source.mtime_ns]

    def save_checkpoints(self) -> None:
        """Writes what `add` noted."""
        files.write_json(self._checkpoints, self._sound)


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
    """Runs that may be packed, and the others.

    Attributes:
        rows: of the runs whose record and, if they have any, checkpoints are sound.
        checkpoints: for each of these runs the checkpoint files, as they were before they were read.
        problems: what is wrong with the others.
    """

    rows: Sequence[run_scan.RunRow]
    checkpoints: Mapping[layout.Run, tuple[pack_tar.Source, ...]]
    problems: Sequence[run_scan.RunProblem]


def check(
    runs: Sequence[layout.Run],
    sizes: tuple[int, int] | None,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Reads what is to be packed.

    Args:
        runs: all runs of an experiment.
        sizes: numbers of training and test examples; None for those that most of the runs have.
        memory: of earlier calls; brought up to date.
        progress: called with the stage and with the number of runs done and of all, after each run.

    Raises:
        MismatchError: a file vanished meanwhile.
    """
    rows, problems = run_scan.scan(
        runs,
        {} if memory is None else memory.known_rows(runs),
        stage(progress, READING_RECORDS),
        sizes=sizes,
        save=None if memory is None else memory.save_rows,
    )
    if memory is not None:
        memory.save_rows(rows)
    incomplete = {problem.run: problem for problem in inventory.checkpoint_problems([row.run for row in rows])}
    rows = [row for row in rows if row.run not in incomplete]
    checkpoints = {row.run: _checkpoint_sources(row.run) for row in rows}
    damaged = _damaged_checkpoints(checkpoints, memory, stage(progress, READING_CHECKPOINTS))
    return Checked(
        rows=[row for row in rows if row.run not in damaged],
        checkpoints=checkpoints,
        problems=[*problems, *incomplete.values(), *damaged.values()],
    )


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """Progress within one stage."""
    return None if progress is None else lambda done, total: progress(name, done, total)


def _checkpoint_sources(run: layout.Run) -> tuple[pack_tar.Source, ...]:
    """The files of the run's checkpoints by epoch, as they are now.

    Raises:
        MismatchError: one of them vanishes meanwhile.
    """
    prefixes = [run.checkpoint_prefix(epoch) for epoch in layout.checkpoint_epochs(run)]
    suffixes = (layout.CHECKPOINT_DATA_SUFFIX, layout.CHECKPOINT_INDEX_SUFFIX)
    paths = [prefix.with_name(prefix.name + suffix) for prefix in prefixes for suffix in suffixes]
    try:
        return tuple(pack_tar.source(run.zoo, path) for path in paths)
    except FileNotFoundError as error:
        raise errors.MismatchError(
            f"{error.filename}: vanished while the zoo was looked at; let what changes the zoo finish, then run the "
            "command again"
        ) from error


def _damaged_checkpoints(
    checkpoints: Mapping[layout.Run, Sequence[pack_tar.Source]],
    memory: Memory | None,
    progress: run_scan.Progress | None,
) -> Mapping[layout.Run, run_scan.RunProblem]:
    """Runs with a checkpoint that contradicts its own checksums or cannot be read."""
    problems = {}
    saved_at = time.monotonic()
    for done, (run, sources) in enumerate(checkpoints.items(), start=1):
        if memory is None or not all(memory.is_known(source) for source in sources):
            reason = _damage(run)
            if reason is not None:
                problems[run] = run_scan.RunProblem(run, "damaged", reason)
            elif memory is not None:
                for source in sources:
                    memory.add(source)
        if memory is not None and time.monotonic() - saved_at >= run_scan.SAVE_INTERVAL_S:
            memory.save_checkpoints()
            saved_at = time.monotonic()
        if progress is not None:
            progress(done, len(checkpoints))
    if memory is not None:
        memory.save_checkpoints()
    return problems


def _damage(run: layout.Run) -> str | None:
    for epoch in layout.checkpoint_epochs(run):
        try:
            checkpoint_bundle.verify_files(run.checkpoint_prefix(epoch))
        except (errors.HeldoutError, OSError) as error:
            return errors.explain(error)
    return None

"""What goes into the archive of an experiment, and in which order.

    recipe.json
    for every run, by ratio and run id:    the files of its checkpoints, by epoch, then aux_arrays.npz

Only runs whose record is sound and whose checkpoints, if there are any, agree with their own checksums are packed, and
nothing else is.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from zoo import errors, files, layout, run_scan, run_table, run_table_update
from zoo.archive import pack_checks, pack_tar

_MOST_NAMED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is packed and what is not.

    Attributes:
        experiment: its name.
        segments: the tar file in order.
        table: the rows of the packed runs, with the size and time of each record.
        problems: the runs that are left out, partial and damaged.
        num_with_checkpoint: packed runs that have a checkpoint.
        recipe: content of recipe.json; None where there is none.
    """

    experiment: str
    segments: Sequence[pack_tar.Segment]
    table: run_table.RunTable
    problems: Sequence[run_scan.RunProblem]
    num_with_checkpoint: int
    recipe: dict[str, Any] | None

    @property
    def num_bytes(self) -> int:
        """Size of the tar file, before it is compressed."""
        return sum(segment.stop - segment.start for segment in self.segments)


def make(
    zoo: files.PathLike,
    experiment: str,
    *,
    skip_damaged: bool = False,
    memory: pack_checks.Memory | None = None,
    progress: pack_checks.Progress | None = None,
) -> Plan:
    """Reads every record and every checkpoint of an experiment, and plans the archive.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        skip_damaged: leave damaged runs out instead of refusing. Partial runs are always left out.
        memory: what earlier calls have found sound is not read again, and what this one finds is noted; without it
            nothing is written.
        progress: called with the stage and with the number of runs done and of all, after each run.

    Raises:
        InvalidValueError: the name of the experiment cannot be packed.
        DamagedFileError: runs are damaged, or the run table or recipe.json is.
        MissingFileError: there is no run to pack.
        MismatchError: a file vanished while it was looked at.
    """
    if not experiment.isprintable():
        raise errors.InvalidValueError(
            f"experiment is {experiment!r}, expected printable UTF-8; rename its folder before packing"
        )
    recipe_path, table_path = layout.recipe_path(zoo, experiment), layout.run_table_path(zoo, experiment)
    recipe = files.read_json(recipe_path) if recipe_path.exists() else None
    stored = run_table.read(table_path) if table_path.exists() else None
    sizes = None if stored is None else (stored.num_train, stored.num_test)
    runs = layout.runs(zoo, experiment)
    checked = pack_checks.check(runs, sizes, memory, progress)
    _refuse(layout.experiment_directory(zoo, experiment), len(runs), checked, skip_damaged)
    groups: list[tuple[pack_tar.Source, ...]] = []
    if recipe is not None:
        groups.append((pack_tar.source(pathlib.Path(zoo), recipe_path),))
    for row in checked.rows:
        groups += [checked.checkpoints[row.run], (_record(row),)]
    return Plan(
        experiment=experiment,
        segments=list(pack_tar.segments(groups)),
        table=run_table_update.from_rows(checked.rows, stored),
        problems=checked.problems,
        num_with_checkpoint=sum(bool(checked.checkpoints[row.run]) for row in checked.rows),
        recipe=recipe,
    )


def _refuse(directory: pathlib.Path, num_runs: int, checked: pack_checks.Checked, skip_damaged: bool) -> None:
    """Ends what must not or cannot be packed, with the reasons."""
    damaged = [problem.reason for problem in checked.problems if problem.state == "damaged"]
    if damaged and not skip_damaged:
        listed = "".join(f"\n  {reason}" for reason in damaged[:_MOST_NAMED])
        rest = f"\n  and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
        raise errors.DamagedFileError(
            f"{directory}: {files.count_text(len(damaged), 'damaged run')} to mend, or to leave out with "
            f"--skip_damaged:{listed}{rest}"
        )
    if not checked.rows:
        raise errors.MissingFileError(
            f"{directory}: no run to pack: {files.count_text(num_runs, 'run folder')}, none with a sound "
            "aux_arrays.npz; train or fetch runs first"
        )


def _record(row: run_scan.RunRow) -> pack_tar.Source:
    """The record as it was read: if it changes from then on, that is noticed."""
    path = row.run.aux_arrays_path
    return pack_tar.Source(path, path.relative_to(row.run.zoo).as_posix(), row.source_size, row.source_mtime_ns)

"""Fetches single runs out of an archive of a zoo: megabytes, not gigabytes.

    python -m scripts.zoo_fetch --experiment=cifar10-inception --runs=0.5/123,0.5/124 --dest=runs

Asks the server for exactly the ranges that hold these runs, by the seek index that zoo_stream or zoo_index made, or
that is published beside the archive. Every file is held against its CRC32 in the index and against its own checksums
before it counts, so evaluate_run and compute_scores work on what is there. What is there already is not fetched again.
--runs takes ratio/run, ratio/first:end, ratio/*, or all, separated by commas; --list tells which runs the archive has,
and ends. A healthy fetch prints

    2 runs: 6 files, 13.1 MB (13.0 MB read) in runs/cifar10-inception
    next: python -m scripts.evaluate_run --run=runs/cifar10-inception/0.5/123

and ends with status 0. Runs that are damaged in the archive, or there already with other bytes, are named, the others
fetched; the status is then 3. Counted are the runs and files that are there in the end: what arrived of a run and does
not count without the rest is named as withheld. Of a checkpoint both files come, or none. Runs that the archive does
not have are a mistake: nothing is fetched; a range of them may reach over gaps, which are named.
"""

from collections.abc import Sequence
import contextlib
import pathlib
import tempfile

from absl import flags

from scripts import archive_flags, choices, cli, transfer_bar
from zoo import errors, files, layout
from zoo.archive import extract, extract_plan, finding, index, indexing, lock
from zoo.remote import source

_SHARED_FLAGS = ("experiment", "dest", *archive_flags.READING)

_PARTS: dict[str, tuple[extract_plan.Part, ...]] = {
    "aux_arrays": ("aux_arrays",),
    "checkpoints": ("checkpoint_index", "checkpoint_data"),
}

_MOST_RANGES = 10

_RUNS = flags.DEFINE_list("runs", None, "Which runs: 0.5/123,0.5/124 or 0.5/0:10 (end left out), 0.5/*, all.")
_PARTS_FLAG = flags.DEFINE_multi_string(
    "parts",
    list(_PARTS),
    "Which files of each run: aux_arrays (what it got right, enough for scores), checkpoints (its weights, for "
    "evaluate_run), or both.",
)
_LIST = flags.DEFINE_bool("list", False, "Say which runs the archive has, by its index, and stop; needs no --runs.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that are there with other bytes.")
_INDEX = flags.DEFINE_string("index", None, "The seek index, a path or an address. Without it, it is looked for.")


def run(argv: Sequence[str]) -> int:
    """Flags -> plan -> ranges -> files. Status 3 if a run could not be had."""
    del argv
    if _LIST.value:
        return _list()
    zoo = choices.required_path("dest", archive_flags.DEST.value)
    texts = choices.required_list("runs", _RUNS.value)
    parts = [part for name in choices.several_of("parts", _PARTS_FLAG.value, _PARTS) for part in _PARTS[name]]
    archive = archive_flags.archive()
    dry_run = archive_flags.DRY_RUN.value
    with contextlib.ExitStack() as stack:
        opened = _open_index(archive, zoo, stack, keep=not dry_run)
        runs = choices.runs_of("runs", texts, opened.runs(), ". --list tells more of them")
        for text in choices.gaps("runs", texts, opened.runs()):
            print(f"not in the archive: {text}")
        if dry_run:
            todo = _plan(opened, zoo, archive, runs, parts)
            ranges = _ranges_report(opened, archive, todo)
            return _say_plan(todo, archive, layout.experiment_directory(zoo, archive.folder), ranges)
        stack.enter_context(lock.held(layout.experiment_directory(zoo, archive.folder) / ".fetch.lock"))
        return _fetch(opened, archive, zoo, runs, parts)


def _open_index(
    archive: archive_flags.Archive, zoo: str | None, stack: contextlib.ExitStack, *, keep: bool
) -> index.Index:
    """The index of the archive; one that is downloaded stays in the zoo or is forgotten.

    Raises:
        IntegrityError: it is that of another archive than the one that is known.
        As `finding.index_path`.
    """
    folder = None if keep else stack.enter_context(tempfile.TemporaryDirectory())
    path = finding.index_path(
        archive.url,
        zoo or str(folder),
        archive.folder,
        choices.path(_INDEX.value),
        archive_flags.options(),
        offline=archive_flags.OFFLINE.value,
        download_to=folder,
        published=archive.published_index,
    )
    opened = stack.enter_context(index.Index(path))
    indexing.check_expected(opened.facts, path, archive.md5)
    return opened


def _list() -> int:
    """Says which runs the archive has.

    Raises:
        UsageError: runs are asked for, too.
    """
    if _RUNS.value:
        raise errors.UsageError("--list says which runs there are and fetches none; leave out --runs or --list")
    archive = archive_flags.archive()
    with contextlib.ExitStack() as stack:
        opened = _open_index(archive, choices.path(archive_flags.DEST.value), stack, keep=False)
        contents = extract_plan.contents_of(opened)
        print(f"{opened.facts.name}: {files.count_text(sum(len(of.run_ids) for of in contents), 'run')}")
        for of in contents:
            name = layout.ratio_name(of.subset_ratio)
            ranges = [f"{name}/{text}" for text in choices.id_ranges(of.run_ids)]
            rest = [f"and {len(ranges) - _MOST_RANGES} more"] if len(ranges) > _MOST_RANGES else []
            print(
                f"  {name}: {files.count_text(len(of.run_ids), 'run')}, {of.num_with_checkpoint} with checkpoint: "
                f"{', '.join(ranges[:_MOST_RANGES] + rest)}"
            )
        return cli.DAMAGED_STATUS if opened.facts.state == "damaged" else 0


def _fetch(
    stored: index.Index,
    archive: archive_flags.Archive,
    zoo: str,
    runs: Sequence[extract_plan.Run],
    parts: Sequence[extract_plan.Part],
) -> int:
    directory = layout.experiment_directory(zoo, archive.folder)
    folders = [layout.Run(directory.parent, archive.folder, *run) for run in runs]
    for folder in [directory, *(f for run in folders for f in (run.directory, run.checkpoints_directory))]:
        files.remove_stale_temporaries(folder)
    todo = _plan(stored, zoo, archive, runs, parts)
    if todo.groups:
        result = _fetched(stored, archive, directory, todo)
        there = f", {files.count_text(todo.num_there, 'file')} there already" if todo.num_there else ""
        print(
            f"{_runs_text(runs, result)}: {files.count_text(result.num_files, 'file')}, "
            f"{files.size_text(result.num_bytes)} ({files.size_text(result.num_compressed)} read) in {directory}{there}"
        )
    else:
        result = extract.Result((), 0, todo.problems)
        print(f"{_runs_text(runs, result)}: everything is there already in {directory}")
    _say_problems(result)
    if not result.problems:
        _say_next(zoo, archive, folders)
    return cli.DAMAGED_STATUS if result.problems else 0


def _plan(
    stored: index.Index,
    zoo: str,
    archive: archive_flags.Archive,
    runs: Sequence[extract_plan.Run],
    parts: Sequence[extract_plan.Part],
) -> extract_plan.Plan:
    with transfer_bar.shown("looking at files that are there") as progress:
        return extract_plan.plan(
            stored, zoo, archive.folder, runs, parts, overwrite=_OVERWRITE.value, progress=progress
        )


def _ranges_report(stored: index.Index, archive: archive_flags.Archive, todo: extract_plan.Plan) -> list[str]:
    """What a dry run says of the server.

    Raises:
        MissingFileError, NetworkError, MismatchError: as the fetch itself.
    """
    if not todo.groups:
        return []
    archive_flags.refuse_offline(archive)
    with source.open_source(archive.url, archive_flags.options()) as opened:
        extract_plan.check_same(stored, opened.state)
        return archive_flags.ranges_report(opened)


def _fetched(
    stored: index.Index, archive: archive_flags.Archive, directory: pathlib.Path, todo: extract_plan.Plan
) -> extract.Result:
    files.check_room(directory, todo.num_bytes, "the files of these runs")
    archive_flags.refuse_offline(archive)
    with source.open_source(archive.url, archive_flags.options()) as opened:
        extract_plan.check_same(stored, opened.state)
        with transfer_bar.shown(archive.name) as progress:
            progress(0, todo.num_compressed)
            return extract.fetch(opened, todo, num_parallel=archive_flags.PARALLEL.value, progress=progress)


def _runs_text(runs: Sequence[extract_plan.Run], result: extract.Result) -> str:
    """How many of the runs are there as a whole, and of how many others a part has arrived."""
    failed = {problem.run for problem in result.problems} & set(runs)
    num_parts = len({item.member.run for item in result.arrived} & failed)
    rest = f" and a part of {files.count_text(num_parts, 'other')}" if num_parts else ""
    return f"{files.count_text(len(runs) - len(failed), 'run')}{rest}"


def _say_plan(
    todo: extract_plan.Plan, archive: archive_flags.Archive, directory: pathlib.Path, ranges: Sequence[str]
) -> int:
    print(
        f"{archive.where}: {files.size_text(todo.num_compressed)} would be read in "
        f"{files.count_text(len(todo.groups), 'range')}, {files.count_text(todo.num_files, 'file')} of "
        f"{files.size_text(todo.num_bytes)} written to {directory}"
    )
    if todo.num_there:
        print(f"{files.count_text(todo.num_there, 'file')} there already")
    for line in [*ranges, *files.room_report(directory, todo.num_bytes)]:
        print(line)
    _say_problems(extract.Result((), 0, todo.problems))
    return cli.DAMAGED_STATUS if todo.problems else 0


def _say_problems(result: extract.Result) -> None:
    for problem in result.problems:
        print(f"not fetched: {problem.reason}")
    for item in result.withheld:
        print(f"withheld: {item.member.name} arrived whole and does not count without the rest of its run")


def _say_next(zoo: str, archive: archive_flags.Archive, runs: Sequence[layout.Run]) -> None:
    """What can be done with the first run that has all that it takes."""
    for run in runs:
        if run.aux_arrays_path.exists() and layout.checkpoint_epochs(run):
            cli.say_next("evaluate_run", f"--run={run.directory}")
            return
    if any(run.aux_arrays_path.exists() for run in runs):
        cli.say_next("compute_scores", f"--zoo={zoo}", f"--experiment={archive.folder}")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

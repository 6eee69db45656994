"""Fetches single runs out of an archive of a zoo: megabytes, not gigabytes.

    python -m scripts.zoo_fetch --experiment=cifar10-inception --runs=0.5/123,0.5/124 --dest=runs

Asks the server for exactly the ranges that hold these runs, by the seek index that zoo_stream or zoo_index made, or
that is published beside the archive. Every file is held against its CRC32 in the index and against its own checksums
before it counts, so evaluate_run and compute_scores work on what is there. What is there already is not fetched again.
--runs takes ratio/run, ratio/first:end, ratio/*, or all, separated by commas. A healthy fetch prints

    2 runs: 6 files, 13.1 MB (13.0 MB read) in runs/cifar10-inception

and ends with status 0. Runs that are damaged in the archive, or there already with other bytes, are named, the others
fetched; the status is then 3. Runs that the archive does not have are a mistake: nothing is fetched.
"""

from collections.abc import Sequence
import contextlib
import tempfile

from absl import flags

from scripts import archive_flags, choices, cli, transfer_bar
from zoo import files, layout
from zoo.archive import extract, extract_plan, finding, index, indexing, lock
from zoo.remote import source

_SHARED_FLAGS = ("experiment", "dest", *archive_flags.READING)

_PARTS: dict[str, tuple[extract_plan.Part, ...]] = {
    "aux_arrays": ("aux_arrays",),
    "checkpoints": ("checkpoint_index", "checkpoint_data"),
}

_RUNS = flags.DEFINE_list("runs", None, "Which runs: 0.5/123,0.5/124 or 0.5/0:10 (end left out), 0.5/*, all.")
_PARTS_FLAG = flags.DEFINE_multi_enum("parts", ["aux_arrays", "checkpoints"], list(_PARTS), "Which of their files.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that are there with other bytes.")
_INDEX = flags.DEFINE_string("index", None, "The seek index, a path or an address. Without it, it is looked for.")


def run(argv: Sequence[str]) -> int:
    """Flags -> plan -> ranges -> files. Status 3 if a run could not be had."""
    del argv
    zoo = choices.required_path("dest", archive_flags.DEST.value)
    texts = choices.required_list("runs", _RUNS.value)
    archive = archive_flags.archive()
    parts = [part for name in _PARTS_FLAG.value for part in _PARTS[name]]
    with contextlib.ExitStack() as stack:
        dry_run = archive_flags.DRY_RUN.value
        stored = finding.index_path(
            archive.url,
            zoo,
            archive.folder,
            choices.path(_INDEX.value),
            archive_flags.options(),
            offline=archive_flags.OFFLINE.value,
            download_to=stack.enter_context(tempfile.TemporaryDirectory()) if dry_run else None,
        )
        opened = stack.enter_context(index.Index(stored))
        indexing.check_expected(opened.facts, stored, archive.md5)
        runs = choices.runs_of("runs", texts, opened.runs())
        directory = layout.experiment_directory(zoo, archive.folder)
        if dry_run:
            return _say_plan(
                extract_plan.plan(opened, zoo, archive.folder, runs, parts, overwrite=_OVERWRITE.value),
                archive,
                directory,
            )
        stack.enter_context(lock.held(directory / ".fetch.lock"))
        return _fetch(opened, archive, zoo, runs, parts)


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
    todo = extract_plan.plan(stored, zoo, archive.folder, runs, parts, overwrite=_OVERWRITE.value)
    if not todo.groups:
        print(f"{_count(len(runs))}: everything is there already in {directory}")
        return _say_problems(todo.problems)
    files.check_room(directory, todo.num_bytes, "the files of these runs")
    archive_flags.refuse_offline(archive)
    with source.open_source(archive.url, archive_flags.options()) as opened:
        extract_plan.check_same(stored, opened.state)
        with transfer_bar.shown(archive.name) as progress:
            progress(0, todo.num_compressed)
            result = extract.fetch(opened, todo, num_parallel=archive_flags.PARALLEL.value, progress=progress)
    there = f", {todo.num_there} were there already" if todo.num_there else ""
    print(
        f"{_count(len(runs))}: {result.num_files} files, {files.size_text(todo.num_bytes)} "
        f"({files.size_text(result.num_compressed)} read) in {directory}{there}"
    )
    return _say_problems(result.problems)


def _say_plan(todo: extract_plan.Plan, archive: archive_flags.Archive, directory: object) -> int:
    print(
        f"{archive.where}: {files.size_text(todo.num_compressed)} would be read in {len(todo.groups)} ranges, "
        f"{todo.num_files} files of {files.size_text(todo.num_bytes)} written to {directory}"
    )
    if todo.num_there:
        print(f"{todo.num_there} files are there already")
    print(f"disk: {files.size_text(files.free_bytes(str(directory)))} are free")
    return _say_problems(todo.problems)


def _say_problems(problems: Sequence[extract_plan.Problem]) -> int:
    for problem in problems:
        print(f"not fetched: {problem.reason}")
    return cli.DAMAGED_STATUS if problems else 0


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

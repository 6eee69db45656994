"""Packs an experiment for publication: archive, MD5, run table, seek index and manifest.

    python -m scripts.zoo_pack --zoo=/tmp/zoo --output=/tmp/packed

reads every run of the experiment, verifies records and checkpoints, and writes

    digits-mlp.tar.gz                all sound runs: checkpoints and records, and recipe.json
    digits-mlp.tar.gz.md5            for md5sum -c
    digits-mlp.run_table.npz         what every run was trained on and got right, one bit each
    digits-mlp.tar.gz.index.sqlite   for fetching single runs out of the archive
    digits-mlp.json                  for the registry of known experiments: where the archive is, its digests, counts

Put the five files into one folder of a web server or bucket; --url says where, if the manifest is to lie elsewhere. A
healthy run ends with

    packed 400 runs, 400 with checkpoint: /tmp/packed/digits-mlp.tar.gz, 92.1 MB of 101 MB, MD5 0b3e...
    published once digits-mlp.* of /tmp/packed are on a server; others read them as here, by the address of the manifest
    next: python -m scripts.zoo_stream --registry=/tmp/packed/digits-mlp.json --dest=streamed

Runs without aux_arrays.npz are named and left out; damaged ones end the program before anything is written, unless
they are to be skipped. The same command continues after a kill, and does nothing when all is there. Equal zoos give
equal archives, byte for byte, with the same --level and the same zlib.
"""

from collections.abc import Callable, Sequence
import contextlib
import pathlib

from absl import flags
import tqdm

from scripts import choices, cli, common_flags, transfer_bar
from zoo import files, run_scan
from zoo.archive import pack, pack_files, pack_plan

_SHARED_FLAGS = ("zoo", "experiment")

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the five files; without it the folder beside the zoo whose name ends in -packed."
)
_LEVEL = flags.DEFINE_integer("level", pack.DEFAULT_LEVEL, "Compression, 1 (fast) to 9 (small).")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "Threads that compress; without it one for each core.")
_URL = flags.DEFINE_string(
    "url",
    None,
    "Where the archive will be published, or its folder with a slash at the end, as in gs://bucket/folder/. Without "
    "it the manifest names the archive beside itself.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be packed and how much disk it takes; write nothing.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an archive that was packed from other files.")
_SKIP_DAMAGED = flags.DEFINE_bool("skip_damaged", False, "Leave damaged runs out instead of refusing.")
_MAX_PROBLEMS = flags.DEFINE_integer("max_problems", 20, "Runs left out to name.")


def run(argv: Sequence[str]) -> None:
    """Flags -> packed experiment, and a line about it."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    experiment = choices.experiment(zoo, common_flags.EXPERIMENT.value)
    output = choices.path(_OUTPUT.value)
    if output is None:
        folder = pathlib.Path(zoo).resolve()
        output = str(folder.with_name(f"{folder.name}-packed"))
    options = pack.Options(
        level=_LEVEL.value,
        num_workers=_NUM_WORKERS.value,
        url=_URL.value,
        overwrite=_OVERWRITE.value,
        skip_damaged=_SKIP_DAMAGED.value,
    )
    if _DRY_RUN.value:
        _say_what_would_be(zoo, experiment, output, options)
    else:
        _pack(zoo, experiment, output, options)


def _bars() -> contextlib.AbstractContextManager[Callable[[str, int, int], None]]:
    """A progress bar for each stage of the work."""
    return transfer_bar.stages(str, lambda stage: "B" if stage in (pack.PACKING, pack.INDEXING) else "run")


def _say_what_would_be(zoo: str, experiment: str, output: str, options: pack.Options) -> None:
    with _bars() as progress:
        plan = pack_plan.make(zoo, experiment, skip_damaged=options.skip_damaged, progress=progress)
    _name_problems(plan.problems)
    print(
        f"would pack {files.count_text(plan.table.num_runs, 'run')}, {plan.num_with_checkpoint} with checkpoint: "
        f"{files.size_text(plan.num_bytes)} before compression, to {output}; nothing was written"
    )
    for line in files.room_report(output, pack.disk_missing(plan, output)):
        print(line)


def _pack(zoo: str, experiment: str, output: str, options: pack.Options) -> None:
    with _bars() as progress:
        result = pack.pack(zoo, experiment, output, options, progress=progress, note=tqdm.tqdm.write)
    _name_problems(result.problems)
    written = result.written
    done = "up to date, nothing to do:" if result.up_to_date else "packed"
    print(
        f"{done} {files.count_text(result.num_runs, 'run')}, {result.num_with_checkpoint} with checkpoint: "
        f"{result.archive}, {files.size_text(written.size)} of {files.size_text(result.num_bytes)}, MD5 {written.md5}"
    )
    print(
        f"published once {experiment}.* of {output} are on a server; others read them as here, by the address of the "
        "manifest"
    )
    manifest = pack_files.Places(pathlib.Path(output), experiment).manifest
    cli.say_next("zoo_stream", f"--registry={manifest}", "--dest=streamed")


def _name_problems(problems: Sequence[run_scan.RunProblem]) -> None:
    for problem in problems[: _MAX_PROBLEMS.value]:
        print(f"left out, {problem.state}: {problem.reason}")
    if len(problems) > _MAX_PROBLEMS.value:
        print(f"and {len(problems) - _MAX_PROBLEMS.value} more: --max_problems={len(problems)} names them all")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

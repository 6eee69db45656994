"""Joins shards of compute_jacobian_stats into the table that one run without shards would have written.

    python -m scripts.merge_jacobian_stats --input=/tmp/networks/mlp/digits/SETTING/seed-0

reads the tables stats_*_i-of-n.parquet in folders, and whatever lies below them, or in files, and writes for each
split and checkpoint stats_*_1-of-1.parquet with its JSON files beside the first shard, or into --outdir; --output
makes one more table of all checkpoints, for other programs. Shards that overlap, are missing, or are of other settings
or weights are refused before anything is written. The shards stay, unless --delete_shards.

A healthy run prints a line for each table. The same command again does nothing where all is there.
"""

from collections.abc import Sequence
import pathlib

from absl import flags
import numpy as np

from heldout.scoring import score_tables
from scripts import choices, cli
from scripts.jacobian_stats import stats_files, stats_published, stats_report, stats_tables
from zoo import errors, files

_SHARED_FLAGS = ()
_INPUT = flags.DEFINE_multi_string("input", None, "Folders or files of shards, also with commas between.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the joined tables; without it that of the first shard.")
_OUTPUT = flags.DEFINE_string("output", None, "One table of all checkpoints, FILE.parquet or FILE.csv.")
_JSON = flags.DEFINE_bool("json", True, "Write the published JSON files as well.")
_DELETE_SHARDS = flags.DEFINE_bool(
    "delete_shards", False, "Delete shards, with their JSON files, once they are joined."
)


def run(argv: Sequence[str]) -> int:
    """Flags -> tables."""
    del argv
    places = [part for text in choices.required_list("input", _INPUT.value) for part in text.split(",") if part]
    output = _output()
    groups = stats_tables.grouped(stats_tables.find([choices.required_path("input", place) for place in places]))
    # All of them before anything is written: what is refused leaves nothing behind.
    merged = [_merged(group) for group in groups]
    if output is not None:
        _check_columns(merged, output)
    for group, found in zip(groups, merged, strict=True):
        _write(group, found)
    if output is not None:
        _write_all(merged, output)
        print(output)
    return 0


def _output() -> pathlib.Path | None:
    path = choices.path(_OUTPUT.value)
    if path is not None and not path.endswith((".parquet", ".csv")):
        raise errors.InvalidValueError(f"--output={path}: expected FILE.parquet or FILE.csv")
    return None if path is None else pathlib.Path(path)


def _merged(group: list[stats_tables.Stored]) -> stats_tables.Whole:
    """Shards joined, held against a whole table where that is there."""
    shards = [one for one in group if one.table.shard != (1, 1)]
    if len(shards) == len(group):
        return stats_tables.joined(shards)
    complete = stats_tables.whole(group)
    for one in shards:
        if (one.table.identity, one.table.weights) != (complete.table.identity, complete.table.weights):
            raise errors.MismatchError(
                f"{one.path} and {complete.paths[0]}: are of other settings or weights; delete one of them"
            )
    return complete


def _write(group: list[stats_tables.Stored], found: stats_tables.Whole) -> None:
    folder = pathlib.Path(_OUTDIR.value) if _OUTDIR.value is not None else found.paths[0].parent
    path = stats_files.table_path(folder, found.table)
    was_there = path.resolve() in found.paths
    if not was_there:
        if path.exists():
            there = stats_files.read_description(path)
            if (there.identity, there.weights) != (found.table.identity, found.table.weights):
                raise errors.MismatchError(f"{path}: is there, of other settings or weights; choose another --outdir")
        folder.mkdir(parents=True, exist_ok=True)
        stats_files.write_table(path, found.table, found.arrays)
    # A table may be there without its JSON files: after a kill, or from a run with --nojson.
    published = [stats_published.path(folder, found.table, column) for column in found.table.columns]
    if _JSON.value and not (was_there and all(one.exists() for one in published)):
        stats_published.write(folder, found.table, found.arrays)
    line = stats_report.line(path, was_there, found.table, found.arrays)
    print(f"{line['text']}{' (was there)' if was_there else ''}\n{path}")
    if _DELETE_SHARDS.value:
        for one in group:
            if one.table.shard != (1, 1):
                for column in one.table.columns:
                    stats_published.path(one.path.parent, one.table, column).unlink(missing_ok=True)
                one.path.unlink()


def _check_columns(merged: list[stats_tables.Whole], output: pathlib.Path) -> None:
    for other in merged[1:]:
        if list(other.arrays) != list(merged[0].arrays):
            raise errors.MismatchError(
                f"--output={output}: {merged[0].paths[0]} and {other.paths[0]} have different columns; give them apart"
            )


def _write_all(merged: list[stats_tables.Whole], output: pathlib.Path) -> None:
    """All checkpoints one after the other, with what tells them from one another."""
    sizes = [len(one.arrays["id"]) for one in merged]
    texts = {
        "model": [one.table.group[0] for one in merged],
        "data": [one.table.group[1] for one in merged],
        "setting": [one.table.group[2] for one in merged],
        "seed": [one.table.seed for one in merged],
        "split": [one.table.split for one in merged],
    }
    columns: dict[str, np.ndarray | None] = {name: np.repeat(values, sizes) for name, values in texts.items()}
    columns |= {name: np.concatenate([one.arrays[name] for one in merged]) for name in merged[0].arrays}
    output.parent.mkdir(parents=True, exist_ok=True)
    score_tables.write(output, columns, output.suffix.removeprefix("."))
    files.sync(output)


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

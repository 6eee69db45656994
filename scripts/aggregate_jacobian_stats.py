"""Mean, largest value and quantiles of input-Jacobian statistics: by class, by clean and changed labels, over seeds.

    python -m scripts.aggregate_jacobian_stats --input=/tmp/networks --output=/tmp/networks/jacobian_summary

reads the tables of compute_jacobian_stats in folders, and whatever lies below them (shards count where all are there),
and writes

    <output>_networks.csv   a row for each network, checkpoint, column and subset of examples: mean with its standard
                            error, maximum with the example that has it, quantiles
    <output>_seeds.csv      the same over networks that differ in their seeds alone: mean over seeds, 95 % interval
                            (Student's t), standard deviation, number of seeds
    <output>.json           both

The maximum of jacobian_operator_norm is the empirical Lipschitz constant. Subsets are all examples, each class, and,
where labels were changed on purpose, those with clean and with changed labels. A healthy run prints a line for each
setting and checkpoint.
"""

from collections.abc import Sequence
import csv
import io
import math
import pathlib
import sys
from typing import Any

from absl import flags

from scripts import choices, cli
from scripts.jacobian_stats import aggregation, stats_tables
from zoo import errors, files

_SHARED_FLAGS = ()
SCHEMA_VERSION = 1

_INPUT = flags.DEFINE_multi_string("input", None, "Folders or tables, also with commas between.")
_OUTPUT = flags.DEFINE_string("output", None, "What the names of the files begin with.")
_COLUMN = flags.DEFINE_multi_string("column", [], "Columns; without it all.")


def run(argv: Sequence[str]) -> int:
    """Tables -> summaries."""
    del argv
    places = [part for text in choices.required_list("input", _INPUT.value) for part in text.split(",") if part]
    output = choices.required_path("output", _OUTPUT.value)
    rows: list[aggregation.Row] = []
    found = [stats_tables.whole(group) for group in stats_tables.grouped(stats_tables.find(places))]
    for one in found:
        rows += aggregation.rows_of(one)
    rows = _chosen(rows)
    seeds = aggregation.over_seeds(rows)
    by_network = [row.flat() for row in rows]
    by_setting = [line for setting in seeds for line in setting.flat()]
    pathlib.Path(output).absolute().parent.mkdir(parents=True, exist_ok=True)
    files.write_text(f"{output}_networks.csv", _csv(by_network))
    files.write_text(f"{output}_seeds.csv", _csv(by_setting))
    stored = {"networks": [_plain(row) for row in by_network], "seeds": [_plain(row) for row in by_setting]}
    files.write_json(f"{output}.json", {"schema_version": SCHEMA_VERSION, **stored})
    for setting in seeds:
        if setting.first.subset == aggregation.ALL:
            print(_line(setting))
    if note := stats_tables.unfinished(found):
        print(note, file=sys.stderr)
    for name in ("_networks.csv", "_seeds.csv", ".json"):
        print(f"{output}{name}")
    return 0


def _chosen(rows: list[aggregation.Row]) -> list[aggregation.Row]:
    wanted = [part.strip() for text in _COLUMN.value for part in text.split(",")]
    there = sorted({row.column for row in rows})
    for name in wanted:
        if name not in there:
            raise errors.InvalidValueError(f"--column={name}: there is none; there are {', '.join(there)}")
    return [row for row in rows if row.column in wanted] if wanted else rows


def _line(found: aggregation.OverSeeds) -> str:
    first, largest, mean = found.first, found.values[aggregation.MAXIMUM], found.values[aggregation.MEAN]
    return (
        f"{first.model} {first.data} noise {first.label_noise}, epoch {first.epoch}, {first.split}, {first.column}: "
        f"mean {_with_interval(mean)}, maximum {_with_interval(largest)} "
        f"({files.count_text(len(found.seeds), 'seed')}; {first.unit})"
    )


def _with_interval(found: aggregation.Interval) -> str:
    if math.isnan(found.low):
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ({found.low:.4g} to {found.high:.4g})"


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None or value != value else value for name, value in row.items()})
    return text.getvalue()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """NaN as null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

"""Draws a statistic of input Jacobians against width or epoch, with test and train error below it.

    python -m scripts.plot_jacobian_stats --input=/tmp/networks --output=/tmp/networks/lipschitz.png

reads the tables of compute_jacobian_stats in folders, and whatever lies below them, with the history.csv of each
network (or, for models without one, the column accuracy measured on train and test; errors of a part of a split are
named as such), and writes the picture (.png, .pdf or .svg) and its numbers as a table .csv beside it.

Each curve is of one label noise, and where they differ of one architecture and data set; points are means over seeds.
Against width each network counts at its last measured checkpoint, and dotted lines stand at the smallest width without
train error, the interpolation threshold. --statistic=maximum of jacobian_operator_norm is the empirical Lipschitz
constant. A healthy run prints for each curve where the statistic peaks, and the interpolation threshold.
"""

from collections.abc import Sequence
import csv
import io
import pathlib
import sys

from absl import flags

from scripts import choices, cli
from scripts.jacobian_stats import aggregation, stats_config, stats_curves, stats_figure, stats_tables
from zoo import errors, files

_SHARED_FLAGS = ()

_INPUT = flags.DEFINE_multi_string("input", None, "Folders or tables, also with commas between.")
_OUTPUT = flags.DEFINE_string("output", None, "The picture, FILE.png, FILE.pdf or FILE.svg.")
_COLUMN = flags.DEFINE_string("column", "jacobian_operator_norm", "Column of the tables.")
_STATISTIC = flags.DEFINE_enum(
    "statistic", aggregation.MAXIMUM, aggregation.STATISTICS, "Of the column, over the examples."
)
_AGAINST = flags.DEFINE_enum("against", stats_curves.WIDTH, stats_curves.AGAINST, "The horizontal axis.")
_DATASET_SPLIT = flags.DEFINE_enum(
    "dataset_split", None, stats_config.SPLITS, "Split of the examples; without it the only one there is."
)
_SUBSET = flags.DEFINE_string("subset", aggregation.ALL, "Of the examples: all, class 3, clean or changed.")
_BARS = flags.DEFINE_enum(
    "bars", stats_figure.DEVIATION, stats_figure.BARS, "Over seeds: 95 % intervals of the mean, standard deviations."
)
_ZERO_ERROR = flags.DEFINE_float("zero_error", 0.0, "Largest share of wrong train examples that counts as none.")
_TITLE = flags.DEFINE_string("title", None, "Over the picture; without it what is drawn.")


def run(argv: Sequence[str]) -> int:
    """Tables -> picture."""
    del argv
    places = [part for text in choices.required_list("input", _INPUT.value) for part in text.split(",") if part]
    output = pathlib.Path(choices.required_path("output", _OUTPUT.value))
    if output.suffix not in stats_figure.FORMATS:
        raise errors.InvalidValueError(f"--output={output}: expected a file {', '.join(stats_figure.FORMATS)}")
    if not 0 <= _ZERO_ERROR.value < 1:
        raise errors.InvalidValueError(f"--zero_error={_ZERO_ERROR.value}: expected a share from 0 to below 1")
    against, column, statistic = _AGAINST.value, _COLUMN.value, _STATISTIC.value
    found = [stats_tables.whole(group) for group in stats_tables.grouped(stats_tables.find(places))]
    points, unit = stats_curves.points(found, column, statistic, against, _DATASET_SPLIT.value, _SUBSET.value)
    first = next(one.table for one in found if _DATASET_SPLIT.value in (None, one.table.split))
    of = "" if _SUBSET.value == aggregation.ALL else f" ({_SUBSET.value})"
    title = _TITLE.value or f"{column}, {statistic} over {first.num_rows} {first.split} examples{of}"
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    stats_figure.write(
        output,
        points,
        against=against,
        title=title,
        label=f"{statistic}\n{unit}",
        bars=_BARS.value,
        zero_error=_ZERO_ERROR.value,
    )
    table = output.with_suffix(".csv")
    files.write_text(table, _csv(points, against))
    for curve in dict.fromkeys(point.curve for point in points):
        print(_line(points, curve, against))
    if note := stats_tables.unfinished(found):
        print(note, file=sys.stderr)
    print(f"{output}\n{table}")
    return 0


def _line(points: Sequence[stats_curves.Point], curve: str, against: str) -> str:
    of_curve = [point for point in points if point.curve == curve]
    at = stats_curves.peak(of_curve, curve)
    values = [point.values[stats_curves.STATISTIC].mean for point in of_curve if point.x == at]
    text = f"{curve}: largest {values[0]:.4g} at {against} {at}" if values else f"{curve}: nowhere a number"
    if against == stats_curves.WIDTH:
        threshold = stats_curves.interpolation(points, curve, _ZERO_ERROR.value)
        most = "no" if _ZERO_ERROR.value == 0 else f"at most {100 * _ZERO_ERROR.value:g} %"
        found = "at no width" if threshold is None else f"first at width {threshold}"
        text += f"; {most} train error {found}"
        text += stats_curves.judged_text(of_curve, stats_curves.TRAIN_ERROR)
    return text


def _csv(points: Sequence[stats_curves.Point], against: str) -> str:
    rows = [point.flat(against) for point in points]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value != value else value for name, value in row.items()})
    return text.getvalue()


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

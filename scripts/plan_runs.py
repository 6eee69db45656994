"""Tells how many more runs a zoo needs for scores of some standard error, or how many a new one will need.

    python -m scripts.plan_runs --zoo=/tmp/zoo --standard_error=0.02

reads the run table, brought up to date with the run folders, and prints for each statistic and subset ratio, and for
the median example, one more uncertain than nine tenths of all, and the worst (for subset influence: of 10,000 pairs
drawn at random),

    statistic         ratio  examples    runs  standard error   needed    more  time
    memorization      0.7    median        60          0.0923     1278    1218  12.2 h
    memorization      0.7    worst         60          0.1177     2079    2019  20.2 h

then the ratio at which memorization would be least uncertain with as many runs, and the number of runs at which a pair
of --influence is told from none among all pairs: at which its adjusted p-value in the tables of compute_scores is at
most --rate. Without --zoo, rates are assumed:

    python -m scripts.plan_runs --subset_ratio=0.7 --num_train=50000 --num_test=10000

The time is that of --runs_per_hour, or of the training that goes on. --output=FILE keeps it all as JSON.
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

from absl import flags

from heldout.scoring import planning
from heldout.watching import training_status
from scripts import choices, cli, common_flags, training_texts
from zoo import errors, files, layout, run_table, run_table_update

_SHARED_FLAGS = ("zoo", "experiment")

_SCHEMA_VERSION = 1
_DEFAULTS = planning.PlanConfig()

_STANDARD_ERROR = flags.DEFINE_float("standard_error", _DEFAULTS.standard_error, "The standard error wanted.")
_SUBSET_RATIO = flags.DEFINE_multi_float(
    "subset_ratio", None, "Ratios to plan; without it all that have runs, or 0.7 without a zoo."
)
_INFLUENCE = flags.DEFINE_float("influence", _DEFAULTS.influence, "Subset influence of a pair that is to be found.")
_RATE = flags.DEFINE_float(
    "rate", _DEFAULTS.rate, "False discovery rate of the list that it is to be in, after Benjamini & Yekutieli."
)
_POWER = flags.DEFINE_float("power", _DEFAULTS.power, "Wanted probability that it is in the list.")
_RATE_IN = flags.DEFINE_float(
    "rate_in", _DEFAULTS.rate_in, "Without a zoo: share of runs right on a typical example that they trained on."
)
_RATE_HELDOUT = flags.DEFINE_float(
    "rate_heldout", _DEFAULTS.rate_heldout, "Without a zoo: the same where it was held out, and on test examples."
)
_NUM_TRAIN = flags.DEFINE_integer("num_train", _DEFAULTS.num_train, "Without a zoo: training examples.", 1)
_NUM_TEST = flags.DEFINE_integer("num_test", _DEFAULTS.num_test, "Without a zoo: test examples.", 1)
_RUNS_PER_HOUR = flags.DEFINE_float(
    "runs_per_hour", None, "How fast runs are trained; without it as fast as the training that goes on, if one does."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an --output that holds another plan.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> plan -> text and JSON. Status 1 if damaged runs were left out."""
    del argv
    config = planning.PlanConfig(
        standard_error=_STANDARD_ERROR.value,
        subset_ratios=tuple(_SUBSET_RATIO.value) if _SUBSET_RATIO.value else None,
        influence=_INFLUENCE.value,
        rate=_RATE.value,
        power=_POWER.value,
        rate_in=_RATE_IN.value,
        rate_heldout=_RATE_HELDOUT.value,
        num_train=_NUM_TRAIN.value,
        num_test=_NUM_TEST.value,
    )
    runs_per_hour, zoo = _RUNS_PER_HOUR.value, choices.path(common_flags.ZOO.value)
    if runs_per_hour is not None and not runs_per_hour > 0:
        raise errors.InvalidValueError(f"--runs_per_hour={runs_per_hour}: expected a number above 0")
    table, status = None, 0
    if zoo:
        experiment = choices.experiment(zoo, common_flags.EXPERIMENT.value)
        table, status = _table(zoo, experiment)
        runs_per_hour = runs_per_hour or training_status.take(zoo, experiment).runs_per_hour
    found = planning.plan(config, table)
    output = choices.path(_OUTPUT.value)
    if output:
        _write(output, config, table, found, runs_per_hour)
    _show(config, found, runs_per_hour)
    return status


def _table(zoo: str, experiment: str) -> tuple[run_table.RunTable, int]:
    table, problems = run_table_update.update(zoo, experiment)
    for problem in problems:
        print(f"left out, {problem.state}: {problem.reason}")
    return table, int(any(problem.state == "damaged" for problem in problems))


def _show(config: planning.PlanConfig, found: planning.Plan, runs_per_hour: float | None) -> None:
    print(
        f"{'statistic':<18}{'ratio':<7}{'examples':<11}{'runs':>5}{'standard error':>16}{'needed':>9}{'more':>8}  time"
    )
    for row in found.rows:
        ratio = "all" if row.subset_ratio is None else layout.ratio_name(row.subset_ratio)
        error = f"{row.standard_error:.4f}" if row.num_runs else "-"
        time = training_texts.duration(3600 * row.more_runs / runs_per_hour) if runs_per_hour and row.more_runs else "-"
        print(
            f"{row.statistic:<18}{ratio:<7}{row.case:<11}{row.num_runs:>5}{error:>16}{row.runs_needed:>9}"
            f"{row.more_runs:>8}  {time}"
        )
    for subset_ratio, (best, factor) in found.best_ratios.items():
        print(
            f"ratio {layout.ratio_name(subset_ratio)}: with as many runs at ratio {best:.2f} the mean variance of "
            f"memorization would be {factor:.2f} of this, if the rates stayed"
        )
    for subset_ratio, number in found.runs_to_separate.items():
        print(
            f"ratio {layout.ratio_name(subset_ratio)}: {files.count_text(number, 'run')} tell a pair of influence "
            f"{config.influence:g} from none among {found.num_tests} pairs (false discovery rate {config.rate:g}, "
            f"power {config.power:g}, a test example that half of the runs are right on)"
        )


def _write(
    output: str,
    config: planning.PlanConfig,
    table: run_table.RunTable | None,
    found: planning.Plan,
    runs_per_hour: float | None,
) -> None:
    """Keeps the plan as JSON, beside what it follows from."""
    record = dataclasses.asdict(config) | {"subset_ratios": list(config.subset_ratios or []) or None}
    identity = {"experiment": None if table is None else table.experiment, "config": record}
    if pathlib.Path(output).exists() and not _OVERWRITE.value:
        stored = files.read_json(output)
        there = {name: stored.get(name) for name in identity}
        if there != identity:
            raise errors.MismatchError(
                f"{output}: holds another plan: {json.dumps(there)}, not {json.dumps(identity)}; name another "
                "--output, or give --overwrite"
            )
    content: dict[str, Any] = {
        "schema_version": _SCHEMA_VERSION,
        **identity,
        "table_digest": None if table is None else table.digest(),
        "runs_per_hour": runs_per_hour,
        "num_tests": found.num_tests,
        "rows": [row.to_json() for row in found.rows],
        "best_ratios": [
            {"subset_ratio": ratio, "best_ratio": best, "variance_factor": factor}
            for ratio, (best, factor) in found.best_ratios.items()
        ],
        "runs_to_separate": [
            {"subset_ratio": ratio, "num_runs": number} for ratio, number in found.runs_to_separate.items()
        ],
    }
    files.write_json(output, content)


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

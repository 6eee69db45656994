"""Trains a zoo over many subset ratios by a named recipe, and reports its consistency scores and how reliable they are.

    python -m scripts.reproduce_consistency --data_dir=DIR --zoo=/tmp/zoo --hours=1

trains the recipe mnist-mlp-consistency (the published recipe of MNIST's C-scores, ratios 0.1 to 0.9) in rounds of some
runs at every ratio, until the time is over or --runs_per_ratio are there. Before each round it says how many runs are
trained, as in "round 2 of 4: 72 runs to train, to have 16 of each of 9 ratios". It writes into --output

    consistency.json, consistency.md    held-out accuracy per ratio; split-half reliability of the scores as runs grow
    reliability.png, accuracy.png       the same to look at
    cscores.npz, cscores.npy            the scores in stored order, in the published formats, to compare with others

The same command again trains on. It ends with lines such as

    ratio 0.5, 40 runs: accuracy 0.9742 held out (standard error 0.0001)
    scores from 20 runs of each ratio and 20 others: correlation 0.985, of ranks 0.840
    a linear correlation of 0.9 between scores from disjoint runs takes about 2 runs of each ratio (measured)

With --hours=0 nothing is trained: what is there is reported. --published=FILE compares with published scores.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import shlex
import sys
import time

from absl import flags

from heldout.datasets import registry
from heldout.experiments import named_recipes, recipes
from heldout.report import consistency_report
from heldout.training import train_runs_config, zoo_training
from scripts import choices, cli, common_flags, terminal
from zoo import errors, files, layout, run_table, run_table_update

_SHARED_FLAGS = ("zoo", "experiment", "data_dir", "device")

_RECIPE = flags.DEFINE_string(
    "recipe", "mnist-mlp-consistency", "Which runs to train; `train_runs --recipe=help` tells all."
)
_HOURS = flags.DEFINE_float("hours", 1.0, "How long to train; a round that has begun is finished.", lower_bound=0)
_RUNS_PER_RATIO = flags.DEFINE_integer("runs_per_ratio", None, "Runs to have; without it those of the recipe.", 2)
_ROUND = flags.DEFINE_integer("round", 8, "Runs of every ratio in a round.", 1)
_WORKERS = flags.DEFINE_integer("workers", None, "Worker processes; without it one for each core on a CPU, else one.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; without it <zoo>/<experiment>/consistency.")
_PUBLISHED = flags.DEFINE_string("published", None, "C-scores to compare with: npz with labels, or MNIST's npy.")


def run(argv: Sequence[str]) -> int:
    """Flags -> rounds of training -> report. Status 1 if runs failed or are damaged."""
    del argv
    named = named_recipes.find(_RECIPE.value)
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    config = train_runs_config.TrainRunsConfig(
        zoo=zoo,
        experiment=common_flags.EXPERIMENT.value or named.name,
        dataset=named.dataset,
        data_dir=choices.path(common_flags.DATA_DIR.value),
        architecture=named.architecture,
        architecture_options=dict(named.architecture_options),
        subset_ratios=named.subset_ratios,
        run_ids=tuple(range(_RUNS_PER_RATIO.value or named.num_runs)),
        training=named.training,
        workers=_WORKERS.value,
        device=common_flags.DEVICE.value,
    )
    terminal.quiet_tensorflow(config.dataset)
    status = _train(config) if _HOURS.value else 0
    table, any_damaged = _table(config)
    findings = consistency_report.examine(table)
    _write(config, findings, table)
    return 1 if any_damaged else status


def _train(config: train_runs_config.TrainRunsConfig) -> int:
    """Round after round, every ratio equally far. Status 1 if a run failed or is damaged."""
    end, longest = time.monotonic() + 3600 * _HOURS.value, 0.0
    ends = [min(first + _ROUND.value, len(config.run_ids)) for first in range(0, len(config.run_ids), _ROUND.value)]
    rounds = [dataclasses.replace(config, run_ids=config.run_ids[:stop]) for stop in ends]
    there = _complete(config)
    if there >= set(config.wanted):
        _check_recipe(config)
        print(f"{_of_each(config)} are there: nothing to train")
        return 0
    for number, part in enumerate(rounds, start=1):
        pending = set(part.wanted) - there
        if not pending:
            continue
        start = time.monotonic()
        if longest and start + longest / 2 > end:
            print(f"--hours={_HOURS.value:g} are over; the same command trains on")
            break
        count = files.count_text(len(pending), "run")
        print(f"round {number} of {len(rounds)}: {count} to train, to have {_of_each(part)}", flush=True)
        summary = terminal.train_runs(part)
        if summary.failed or summary.damaged:
            return 1
        there |= pending
        longest = max(longest, time.monotonic() - start)
    return 0


def _of_each(config: train_runs_config.TrainRunsConfig) -> str:
    """The runs of a configuration in words: "16 runs of each of 9 ratios"."""
    count, num_ratios = files.count_text(len(config.run_ids), "run"), len(config.subset_ratios)
    return f"{count} of " + (f"each of {num_ratios} ratios" if num_ratios > 1 else f"ratio {config.subset_ratios[0]:g}")


def _complete(config: train_runs_config.TrainRunsConfig) -> set[tuple[float, int]]:
    """Ratio and id of the runs with a record, damaged ones among them, and of those that only the table knows."""
    runs = layout.runs(config.zoo, config.experiment_name)
    path = layout.run_table_path(config.zoo, config.experiment_name)
    found: set[tuple[float, int]] = set()
    if path.exists():
        table = run_table.read(path)
        found |= set(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))
    found -= {(run.subset_ratio, run.run_id) for run in runs}
    return found | {(run.subset_ratio, run.run_id) for run in runs if run.aux_arrays_path.exists()}


def _check_recipe(config: train_runs_config.TrainRunsConfig) -> None:
    """Refuses an experiment of another recipe, as training does."""
    data = registry.open_for_training(config.dataset, config.data_dir)
    recipes.adopt(config.zoo, zoo_training.make_recipe(config, data))


def _table(config: train_runs_config.TrainRunsConfig) -> tuple[run_table.RunTable, bool]:
    """All runs of the experiment, with the labels of its data set, and whether damaged ones were left out."""
    experiment = config.experiment_name
    if not layout.experiment_directory(config.zoo, experiment).is_dir():
        raise errors.MissingFileError(f"{config.zoo}: no experiment {experiment}; train it: --hours=1")
    data = recipes.load_dataset(config.zoo, experiment, config.dataset, config.data_dir)
    table, problems = run_table_update.update(
        config.zoo, experiment, train_label=data.train.label, test_label=data.test.label
    )
    for problem in problems:
        print(f"left out, {problem.state}: {problem.reason}")
    for ratio in sorted(set(config.subset_ratios) - set(table.subset_ratios)):
        print(f"ratio {ratio:g} has no run: it is not in the scores")
    return table, any(problem.state == "damaged" for problem in problems)


def _write(
    config: train_runs_config.TrainRunsConfig, findings: consistency_report.Findings, table: run_table.RunTable
) -> None:
    published = None
    path = choices.path(_PUBLISHED.value)
    if path is not None:
        score = findings.consistency.score
        published = consistency_report.rank_correlation_with(score, path, table.train_label)
    experiment = config.experiment_name
    recipe = recipes.read(config.zoo, experiment)
    # Where things lie on this machine says nothing to anybody else.
    given = [text for text in sys.argv[1:] if text.lstrip("-").partition("=")[0] not in ("zoo", "data_dir", "output")]
    command = shlex.join(["reproduce_consistency", *given])
    provenance = {"command": command, "recipe": None if recipe is None else recipe.to_json()}
    output = choices.path(_OUTPUT.value)
    folder = pathlib.Path(output) if output else layout.experiment_directory(config.zoo, experiment) / "consistency"
    consistency_report.write(folder, findings, table, provenance, published)
    for line in consistency_report.lines(findings, published):
        print(line)
    print(f"written: {folder}")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

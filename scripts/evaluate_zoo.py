"""Rebuilds many runs of a zoo from their checkpoints and cross-checks every prediction with their records.

    python -m scripts.evaluate_zoo --zoo=/tmp/zoo --experiment=digits-mlp --split=test

reads recipe, records and checkpoints, evaluates on all cores or, with --runner=ray, on a cluster, and writes

    /tmp/zoo/digits-mlp/evaluation/test/0.7/12.npz     correctness and margin of every example, by original index
    /tmp/zoo/digits-mlp/evaluation/test/0.7/12.json    accuracies, and how many predictions are as recorded
    /tmp/zoo/digits-mlp/evaluation/test/agreement.csv  a row for each run

--runs=0.5/0:10,0.7/* chooses runs, --epoch=5 evaluates earlier checkpoints, where the runs have them. What the runs
were made of follows from the recipe, as in evaluate_run. A healthy run ends with

    40 runs evaluated, 0 skipped: 14360 of 14360 predictions match
    table: /tmp/zoo/digits-mlp/evaluation/test/agreement.csv

and status 0; status 1 if a prediction of a last checkpoint is not the recorded one, or a run could not be evaluated.
The same command again continues after a kill.
"""

from collections.abc import Callable, Sequence

from absl import flags

from heldout.evaluation import evaluation_results, zoo_evaluation
from heldout.experiments import recipes
from scripts import choices, cli, common_flags, runner_flags, terminal, transfer_bar
from zoo import files, layout

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)

_RUNS = flags.DEFINE_list("runs", ["all"], "Runs to evaluate: 0.5/123, 0.5/0:10, 0.5/* or all, with commas between.")
_SPLIT = flags.DEFINE_enum("split", "test", evaluation_results.SPLITS, "Which examples to predict.")
_EPOCH = flags.DEFINE_integer("epoch", None, "Epoch of the checkpoints; without it the last of each run.")
_ARCH = flags.DEFINE_string("arch", None, "Architecture, where no recipe tells; a wrong one is refused.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Worker processes; without it one for each core on a CPU, else one, or all that a cluster holds."
)


class _Bar(zoo_evaluation.Progress):
    """A bar over runs."""

    def __init__(self, advance: Callable[[int, int], None]) -> None:
        self._advance = advance

    def evaluated(self, done: int, total: int) -> None:
        """Advances the bar."""
        self._advance(done, total)

    def note(self, text: str) -> None:
        """Prints a line."""
        transfer_bar.note(text)


def run(argv: Sequence[str]) -> int:
    """Flags -> evaluations -> comparison. Status 0 only if all predictions match."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    experiment = choices.experiment(zoo, common_flags.EXPERIMENT.value)
    there = [(run.subset_ratio, run.run_id) for run in layout.runs(zoo, experiment)]
    config = zoo_evaluation.EvaluateZooConfig(
        zoo=zoo,
        experiment=experiment,
        runs=tuple(choices.runs_of("runs", _RUNS.value, there, "; list_zoo tells more of them")) if there else (),
        split=_SPLIT.value,
        epoch=_EPOCH.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        architecture=_ARCH.value,
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=common_flags.DEVICE.value,
        workers=_WORKERS.value,
        runner=runner_flags.runner(),
    )
    terminal.quiet_tensorflow(config.dataset or recipes.default_dataset(zoo, experiment))
    with transfer_bar.shown("evaluating", unit="run") as advance:
        found = zoo_evaluation.evaluate_zoo(config, _Bar(advance))
    return _report(config, found)


def _report(config: zoo_evaluation.EvaluateZooConfig, found: zoo_evaluation.ZooEvaluation) -> int:
    for row in found.differing:
        print(
            f"differs: run {layout.ratio_name(row.subset_ratio)}/{row.run_id}: "
            f"{row.num_predictions - row.num_matching} of {row.num_predictions} predictions are not as recorded"
        )
    for (ratio, run_id), reason in sorted(found.faults.items()):
        print(f"left out: run {layout.ratio_name(ratio)}/{run_id}: {reason}")
    matching, total = (sum(getattr(r, n) for r in found.summaries) for n in ("num_matching", "num_predictions"))
    num_new = len(found.summaries) - found.num_skipped
    print(
        f"{files.count_text(num_new, 'run')} evaluated, {found.num_skipped} skipped: {matching} of {total} predictions "
        "match"
    )
    print(f"table: {found.table}")
    expected = config.epoch is not None  # earlier checkpoints are not what the records are of
    return 1 if found.faults or (found.differing and not expected) else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

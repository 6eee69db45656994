"""Trains a zoo on scikit-learn's digits, scores it, and writes the report: `make demo`.

    python -m scripts.demo

trains 400 small networks, each on a random 70 % of 1438 images, and 60 more at each of 10, 30, 50 and 90 % for the
consistency profile, into demo/digits-mlp in the published layout; computes memorization, influence and consistency;
and ends with a summary and the path of the report. It takes a few minutes on two cores. A kill at any moment loses
little: the same command continues. A second run does nothing and says so.
"""

from collections.abc import Sequence
import math
import os

from absl import flags

from heldout import report
from heldout.datasets import registry as datasets
from heldout.experiments import training_config
from heldout.scoring import score_config, score_files
from heldout.training import train_runs_config
from scripts import cli, terminal
from zoo import layout

_OUTPUT = flags.DEFINE_string("output", "demo", "Folder of the zoo that the demonstration trains.")
_NUM_RUNS = flags.DEFINE_integer(
    "num_runs", 400, "Runs at ratio 0.7; fewer are quicker, and their scores less certain.", lower_bound=1
)

_EXPERIMENT = "digits-mlp"
_MAIN_RATIO = 0.7
_OTHER_RATIOS = (0.1, 0.3, 0.5, 0.9)
# Runs at each of the other ratios, as a share of those at the main one: enough for means over all examples.
_OTHER_SHARE = 0.15


def training(folder: str, subset_ratios: tuple[float, ...], num_runs: int) -> train_runs_config.TrainRunsConfig:
    """What the demonstration trains at some of its ratios."""
    return train_runs_config.TrainRunsConfig(
        zoo=folder,
        experiment=_EXPERIMENT,
        dataset="digits",
        data_dir=None,
        architecture="mlp",
        architecture_options={"hidden_sizes": [256, 128]},
        subset_ratios=subset_ratios,
        run_ids=tuple(range(num_runs)),
        training=training_config.TrainingConfig(num_epochs=20, batch_size=64),
    )


def run(argv: Sequence[str]) -> int:
    """Trains, scores, renders; each step does nothing where its work is done."""
    del argv
    folder, num_runs = os.path.expanduser(_OUTPUT.value), _NUM_RUNS.value
    plans = (((_MAIN_RATIO,), num_runs), (_OTHER_RATIOS, math.ceil(_OTHER_SHARE * num_runs)))
    trained = [terminal.train_runs(training(folder, ratios, count)) for ratios, count in plans]
    scored = terminal.compute_scores(score_config.ScoreConfig(zoo=folder, experiment=_EXPERIMENT))
    output = layout.report_directory(folder, _EXPERIMENT)
    rendered = report.render(report.ReportConfig(scores=str(scored.directory), output=str(output), dataset="digits"))
    if not any(part.trained for part in trained) and scored.up_to_date and rendered.up_to_date:
        print("The demonstration was complete already; nothing was done.")
    saved = score_files.load_scores(scored.directory)
    names = datasets.load("digits").class_names
    print("\n" + report.text_summary(saved, names, subset_ratio=_MAIN_RATIO))
    print(f"\nReport: {rendered.html_path.resolve()}")
    return 1 if any(part.failed or part.damaged for part in trained) else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run)


if __name__ == "__main__":
    main()

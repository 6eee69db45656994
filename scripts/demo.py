"""Trains a zoo on scikit-learn's digits, scores it, and writes the report: `make demo`.

    python -m scripts.demo

trains 400 small networks, each on a random 70 % of 1438 images, into demo/digits-mlp in the published layout, computes
memorization, influence and consistency, and ends with a summary and the path of the report. It takes a few minutes on
two cores. A kill at any moment loses little: the same command continues. A second run does nothing and says so.
"""

from collections.abc import Sequence

from absl import flags

from heldout import report, score_config, score_files, training_config, zoo_training
from heldout.datasets import registry as datasets
from scripts import cli, terminal
from zoo import layout

_FOLDER = flags.DEFINE_string("output", "demo", "Folder of the zoo that the demonstration trains.")
_NUM_RUNS = flags.DEFINE_integer("num_runs", 400, "Runs to train; fewer are quicker, and their scores less certain.")

_EXPERIMENT = "digits-mlp"
_SUBSET_RATIO = 0.7


def training(folder: str, num_runs: int) -> zoo_training.TrainRunsConfig:
    """What the demonstration trains."""
    return zoo_training.TrainRunsConfig(
        zoo=folder,
        experiment=_EXPERIMENT,
        dataset="digits",
        data_dir=None,
        architecture="mlp",
        architecture_options={"hidden_sizes": [256, 128]},
        subset_ratios=(_SUBSET_RATIO,),
        run_ids=tuple(range(num_runs)),
        training=training_config.TrainingConfig(num_epochs=20, batch_size=64),
    )


def run(argv: Sequence[str]) -> int:
    """Trains, scores, renders; each step does nothing where its work is done."""
    del argv
    folder = _FOLDER.value
    trained = terminal.train_runs(training(folder, _NUM_RUNS.value))
    scored = terminal.compute_scores(score_config.ScoreConfig(zoo=folder, experiment=_EXPERIMENT))
    output = layout.report_directory(folder, _EXPERIMENT)
    rendered = report.render(report.ReportConfig(scores=str(scored.directory), output=str(output), dataset="digits"))
    if not trained.trained and scored.up_to_date and rendered.up_to_date:
        print("The demonstration was complete already; nothing was done.")
    saved = score_files.load_scores(scored.directory)
    print("\n" + report.text_summary(saved, datasets.load("digits").class_names))
    print(f"\nReport: {rendered.html_path.resolve()}")
    return 1 if trained.failed or trained.problems else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run)


if __name__ == "__main__":
    main()

"""How well scores of training examples find those whose labels were changed: ROC, average precision, the highest.

    python -m scripts.detect_mislabeled --scores=/tmp/ui/unique_information.npz --experiment=/tmp/truth --outdir=/tmp/o

reads scores, one file or several: those of compute_unique_information, compute_scores (scores-<ratio>.npz,
consistency.npz, examples.parquet), compute_influence_functions (average_influence.npz), compute_jacobian_stats,
published memorization and consistency, or any npz, Parquet or CSV file with train_index and columns of numbers. Which
labels were changed says the folder of ground_truth_effects with --label_noise, or --labels: an npz file with
train_index and is_changed, or with train_label and clean_train_label, or the labels.npz of an experiment of a zoo. It
writes

    /tmp/o/mislabeled.json    per column: AUROC and average precision with intervals, which end says "changed", and
    /tmp/o/mislabeled.csv     how many of the highest are changed, and of the changed ones are among the highest
    /tmp/o/roc.png            ROC curves
    /tmp/o/scores.png         scores of changed and of clean labels

A high score is taken to say "changed". A column that says it by low scores has an AUROC below 0.5 and is named; none is
turned round. A healthy run prints lines such as

    a.npz: weights  AUROC 0.953 [0.901, 0.979]  average precision 0.812 (by chance 0.100)  changed: 9 of the top 5% (10)

Examples without a score are left out and counted. A folder with results of other flags is refused without --overwrite.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from scripts import choices, cli, common_flags
from scripts.unique_information import mislabeled, mislabeled_figure, result_tables, separation
from zoo import errors

_SHARED_FLAGS = ("device",)

_SCORES = flags.DEFINE_list("scores", None, "Files of scores: .npz, .parquet or .csv, with commas between them.")
_COLUMN = flags.DEFINE_list("column", ["all"], "Columns of the scores, with commas between them, or all.")
# The shared flag of this name says an experiment of a zoo.
_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "Folder of ground_truth_effects, whose labels are known.", allow_override=True
)
_LABELS = flags.DEFINE_string("labels", None, "Instead: an npz file that says which labels were changed.")
_TOP = flags.DEFINE_list("top", ["0.05", "0.1", "0.2"], "Shares of the examples whose highest are looked at.")
_METHOD = flags.DEFINE_enum("method", separation.METHODS[0], list(separation.METHODS), "How intervals are made.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", separation.DEFAULT_NUM_DRAWS, "Draws of the bootstrap.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random draws.", 0)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a comparison that was made with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> comparison -> files."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    columns = tuple(choices.required_list("column", _COLUMN.value))
    config = mislabeled.MislabeledConfig(
        scores=tuple(choices.required_path("scores", path) for path in choices.required_list("scores", _SCORES.value)),
        experiment=choices.path(_EXPERIMENT.value),
        labels=choices.path(_LABELS.value),
        outdir=choices.required_path("outdir", _OUTDIR.value),
        columns=() if columns == ("all",) else columns,
        top=_shares(_TOP.value),
        method=_METHOD.value,
        num_draws=_NUM_DRAWS.value,
        seed=_SEED.value,
    )
    folder, settings = pathlib.Path(config.outdir), result_tables.settings(config)
    result_tables.check(folder / mislabeled.RESULTS_NAME, settings, overwrite=_OVERWRITE.value)
    found = mislabeled.detect(config)
    rows = [one.row() for one in found]
    result_tables.clear_pictures(folder / mislabeled.RESULTS_NAME)
    result_tables.write_csv(folder / mislabeled.TABLE_NAME, rows)
    pictures = mislabeled_figure.write(folder, found)
    result_tables.write(folder / mislabeled.RESULTS_NAME, settings, {"rows": rows})
    result_tables.list_pictures(folder / mislabeled.RESULTS_NAME, pictures)
    for line in mislabeled.lines(found):
        print(line)
    for path in (folder / mislabeled.RESULTS_NAME, folder / mislabeled.TABLE_NAME, *pictures):
        print(f"written: {path}")
    return 0


def _shares(texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidValueError(
            f"--top={','.join(texts)}: expected shares above 0, at most 1, such as 0.05,0.1"
        ) from error


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

"""Holds scores of unique information against networks that were trained without each example.

    python -m scripts.aggregate_ground_truth --ground_truth=/tmp/truth --scores=/tmp/scores.npz --outdir=/tmp/agreement

reads the ground_truth.npz of ground_truth_effects and scores, one file or several: npz, Parquet or CSV with train_index
(positions in the training split) and columns of numbers beside it. Each column stands beside the squared change of
weights and that of validation predictions, and --quantities names others. It writes

    /tmp/agreement/agreement.json       Pearson of the squares as published, Spearman, Kendall, each with its interval,
    /tmp/agreement/agreement.csv        and the overlap of the examples with the highest values; a row a comparison
    /tmp/agreement/scatter_*.png        each comparison on linear and logarithmic axes

A healthy run prints lines such as

    squared_prediction_change:
      a.npz: predictions  Pearson 0.993 [0.984, 0.998]  Spearman 0.981 [0.968, 0.990]  top 10% 5 of 6  (60 examples)

Examples without a score are left out and counted. A folder with results of other flags is refused without --overwrite.
"""

from collections.abc import Sequence
import pathlib

from absl import flags
import numpy as np

from heldout.scoring import agreement
from scripts import choices, cli, common_flags
from scripts.unique_information import result_tables, truth_agreement, truth_figure
from zoo import errors

_SHARED_FLAGS = ("device",)

_GROUND_TRUTH = flags.DEFINE_string(
    "ground_truth", None, "Folder that ground_truth_effects has written, or its ground_truth.npz."
)
_SCORES = flags.DEFINE_list("scores", None, "Files of scores: .npz, .parquet or .csv, with commas between them.")
_COLUMNS = flags.DEFINE_list("columns", [], "Columns of the scores; without it all that hold numbers.")
_QUANTITIES = flags.DEFINE_list(
    "quantities",
    list(truth_agreement.QUANTITIES[:2]),
    f"What scores are held against: some of {', '.join(truth_agreement.QUANTITIES)}.",
)
_TOP = flags.DEFINE_list("top", ["0.1", "0.25"], "Shares of the examples whose highest are held against one another.")
_METHOD = flags.DEFINE_enum("method", agreement.METHODS[0], list(agreement.METHODS), "How intervals are made.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", agreement.DEFAULT_NUM_DRAWS, "Bootstrap draws behind the intervals.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random draws.", 0)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a comparison that was made with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> comparison -> files."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    config = truth_agreement.AgreementConfig(
        ground_truth=choices.required_path("ground_truth", _GROUND_TRUTH.value),
        scores=tuple(choices.required_path("scores", path) for path in choices.required_list("scores", _SCORES.value)),
        outdir=choices.required_path("outdir", _OUTDIR.value),
        columns=tuple(_COLUMNS.value),
        quantities=tuple(choices.required_list("quantities", _QUANTITIES.value)),
        top=_shares(_TOP.value),
        method=_METHOD.value,
        num_draws=_NUM_DRAWS.value,
        seed=_SEED.value,
    )
    truth_agreement.check_outdir(config, overwrite=_OVERWRITE.value)
    found = truth_agreement.compare(config)
    _check_defined(config, found)
    folder = pathlib.Path(config.outdir)
    result_tables.clear_pictures(folder / truth_agreement.RESULTS_NAME)
    written = truth_agreement.write(config, found)
    pictures = truth_figure.write(folder, found)
    result_tables.list_pictures(folder / truth_agreement.RESULTS_NAME, pictures)
    for line in truth_agreement.lines(found):
        print(line)
    for path in (*written, *pictures):
        print(f"written: {path}")
    return 0


def _check_defined(config: truth_agreement.AgreementConfig, found: Sequence[truth_agreement.Comparison]) -> None:
    """Refuses columns without a value, if they were asked for or there is none with one."""
    empty = [one for one in found if not one.found.num_examples]
    if empty and (config.columns or len(empty) == len(found)):
        one = empty[0]
        raise errors.InvalidValueError(
            f"{one.source}: column {one.column} has no number for any of the {len(one.truth)} examples of "
            f"{config.ground_truth} of which {one.quantity} is known ({np.sum(~np.isnan(one.truth))}); expected scores "
            "of some of them"
        )


def _shares(texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidValueError(
            f"--top={','.join(texts)}: expected shares above 0, at most 1, such as 0.1,0.25"
        ) from error


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

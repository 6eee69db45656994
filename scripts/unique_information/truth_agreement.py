"""How well scores of single examples agree with the truth of training without them; needs no TensorFlow.

Truth is what `ground_truth_effects` measured of each example i, by retraining:

    squared_weight_change             |w_-i - w|^2
    squared_prediction_change         mean over validation examples of |f_-i(x) - f(x)|^2
    squared_train_prediction_change   the same over training examples
    squared_self_effect               |f_-i(x_i) - f(x_i)|^2

Scores stand for the same squares, up to a factor. Pearson's correlation is of these squares, as Harutyunyan et al.
(2021), table 1, has it; Spearman's and Kendall's are of ranks. Examples are what is random in all intervals, see
`heldout.scoring.agreement`.
"""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import agreement
from heldout.training import leave_out_files
from scripts.unique_information import changed_labels, result_tables, score_columns
from zoo import errors

QUANTITIES = (
    "squared_weight_change",
    "squared_prediction_change",
    "squared_train_prediction_change",
    "squared_self_effect",
)
RESULTS_NAME, TABLE_NAME = "agreement.json", "agreement.csv"
_CORRELATIONS = ("pearson", "spearman", "kendall")


@dataclasses.dataclass(frozen=True)
class AgreementConfig:
    """What is compared.

    Attributes:
        ground_truth: folder of `ground_truth_effects`, or its ground_truth.npz.
        scores: files of scores.
        outdir: folder of the results.
        columns: of the scores; empty for all.
        quantities: some of `QUANTITIES`.
        top: shares of the examples whose highest are held against one another.
        method: of the intervals, one of `agreement.METHODS`.
        num_draws: of the bootstrap.
        seed: of all draws.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """

    ground_truth: str
    scores: tuple[str, ...]
    outdir: str
    columns: tuple[str, ...] = ()
    quantities: tuple[str, ...] = QUANTITIES[:2]
    top: tuple[float, ...] = (0.1, 0.25)
    method: str = agreement.METHODS[0]
    num_draws: int = agreement.DEFAULT_NUM_DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is read."""
        for name in self.quantities:
            if name not in QUANTITIES:
                raise errors.InvalidValueError(f"--quantities={name}: expected some of {', '.join(QUANTITIES)}")
        for share in self.top:
            if not 0 < share <= 1:
                raise errors.InvalidValueError(f"--top={share}: expected shares above 0, at most 1, such as 0.1,0.25")
        if len(set(self.scores)) < len(self.scores):
            raise errors.InvalidValueError(f"--scores={','.join(self.scores)}: names a file twice; name each once")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return result_tables.settings(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One column of scores beside one quantity.

    Attributes:
        source: file name of the scores.
        column: of the scores.
        quantity: of the truth.
        truth: float64 [g].
        score: float64 [g], NaN where an example has none.
        found: correlations.
        overlaps: of the examples with the highest values, by share.
    """

    source: str
    column: str
    quantity: str
    truth: np.ndarray
    score: np.ndarray
    found: agreement.Agreement
    overlaps: dict[float, agreement.Overlap]

    def row(self) -> dict[str, Any]:
        """For a table; None where a number is not defined."""
        row: dict[str, Any] = {
            "source": self.source,
            "column": self.column,
            "quantity": self.quantity,
            "num_examples": self.found.num_examples,
            "num_without_score": self.found.num_first_only,
        }
        for name in _CORRELATIONS:
            one = getattr(self.found, name)
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        for share, overlap in self.overlaps.items():
            label = f"top_{share:g}"
            row |= {
                f"{label}_number": overlap.num_first,
                f"{label}_overlap": overlap.num_both / overlap.num_first if overlap.num_first else math.nan,
                f"{label}_jaccard": overlap.jaccard.value,
                f"{label}_jaccard_low": overlap.jaccard.low,
                f"{label}_jaccard_high": overlap.jaccard.high,
                f"{label}_expected_jaccard": overlap.expected_jaccard,
            }
        return {name: None if isinstance(of, float) and not math.isfinite(of) else of for name, of in row.items()}


def truths(effects: leave_out_files.Effects, where: str) -> dict[str, np.ndarray]:
    """The quantities of single examples, float64 [g] by name.

    Args:
        effects: of groups of one example each.
        where: names the file, for messages.

    Raises:
        InvalidValueError: a group has more than one example.
    """
    if effects.train_index is None:
        raise errors.InvalidValueError(
            f"{where}: holds groups of several examples, which scores of single ones say nothing of; compare the truth "
            "of single examples, from an --outdir of their own"
        )
    own = np.sum(effects.self_effect.astype(np.float64) ** 2, axis=1)
    return {**{name: getattr(effects, name) for name in QUANTITIES[:3]}, "squared_self_effect": own}


def compare(config: AgreementConfig) -> list[Comparison]:
    """Each column of each file beside each quantity.

    Raises:
        MissingFileError, DamagedFileError: of a file.
        InvalidValueError: a file has none of the columns asked for, or no example that the truth is known of; the
            truth is of groups.
        MismatchError: the labels of a file show that its examples are others.
    """
    effects = leave_out_files.read_ground_truth(config.ground_truth)
    known = truths(effects, config.ground_truth)
    index = effects.train_index
    assert index is not None
    labels = _labels(config)
    found = []
    for path in config.scores:
        scores = score_columns.read(path)
        if labels is not None:
            changed_labels.check_order(labels, scores)
        columns = _columns(config, scores, index)
        found += [
            _compare(config, pathlib.Path(path).name, column, quantity, known[quantity], score)
            for column, score in columns.items()
            for quantity in config.quantities
        ]
    missing = set(config.columns) - {one.column for one in found}
    if missing:
        raise errors.InvalidValueError(
            f"--columns={','.join(config.columns)}: no file of --scores has {', '.join(sorted(missing))}; they have "
            f"{', '.join(dict.fromkeys(name for path in config.scores for name in score_columns.read(path).columns))}"
        )
    return found


def _labels(config: AgreementConfig) -> changed_labels.ChangedLabels | None:
    """Of the experiment; None where ground_truth.npz stands alone."""
    given = pathlib.Path(config.ground_truth)
    folder = given if given.is_dir() else given.parent
    return changed_labels.of_experiment(str(folder)) if (folder / leave_out_files.FULL_RUN_NAME).is_file() else None


def _columns(
    config: AgreementConfig, scores: score_columns.ScoreColumns, train_index: np.ndarray
) -> dict[str, np.ndarray]:
    if not np.isin(scores.train_index, train_index).any():
        raise errors.InvalidValueError(
            f"{scores.path}: has a score of none of the {len(train_index)} examples of {config.ground_truth}; score "
            "the examples that were drawn there (train_index of full_run.npz)"
        )
    at = scores.at(train_index)
    return {name: value for name, value in at.items() if not config.columns or name in config.columns}


def _compare(
    config: AgreementConfig, source: str, column: str, quantity: str, truth: np.ndarray, score: np.ndarray
) -> Comparison:
    found = agreement.agreement(truth, score, method=config.method, num_draws=config.num_draws, seed=config.seed)
    sizes = {share: max(1, round(share * found.num_examples)) for share in config.top}
    overlaps = {share: agreement.overlap_of_top(truth, score, size, seed=config.seed) for share, size in sizes.items()}
    return Comparison(source, column, quantity, truth, score, found, overlaps)


def check_outdir(config: AgreementConfig, *, overwrite: bool) -> None:
    """Refuses a folder with results of another comparison.

    Args:
        config: of this one.
        overwrite: whether it may be replaced.

    Raises:
        MismatchError: there is another, and it may not; names the differences.
    """
    result_tables.check(pathlib.Path(config.outdir) / RESULTS_NAME, config.to_json(), overwrite=overwrite)


def write(config: AgreementConfig, found: Sequence[Comparison]) -> list[pathlib.Path]:
    """Writes the table as JSON and CSV; returns their paths."""
    rows = [one.row() for one in found]
    folder = pathlib.Path(config.outdir)
    result_tables.write(folder / RESULTS_NAME, config.to_json(), {"rows": rows})
    result_tables.write_csv(folder / TABLE_NAME, rows)
    return [folder / RESULTS_NAME, folder / TABLE_NAME]


def lines(found: Sequence[Comparison]) -> list[str]:
    """The table for people."""
    width = max(len(f"{one.source}: {one.column}") for one in found)
    texts = []
    for quantity in dict.fromkeys(one.quantity for one in found):
        texts.append(f"{quantity}:")
        for one in (one for one in found if one.quantity == quantity):
            overlaps = ", ".join(
                f"top {share:.0%} {overlap.num_both} of {overlap.num_first}" for share, overlap in one.overlaps.items()
            )
            missing = f", {one.found.num_first_only} without a score" if one.found.num_first_only else ""
            texts.append(
                f"  {f'{one.source}: {one.column}':{width}}  Pearson {_text(one.found.pearson)}  "
                f"Spearman {_text(one.found.spearman)}  {overlaps}  ({one.found.num_examples} examples{missing})"
            )
    return texts


def _text(one: agreement.Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"

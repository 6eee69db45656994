"""Columns of the examples table that take long or need more than the run table, and so are computed where asked for.

--shrinkage   memorization_shrunk, memorization_shrunk_sd, memorization_false_sign_rate (shrinkage.py)
--margins     memorization_margin and its standard_error, heldout_margin (margin_scores.py), in nats of log odds
"""

from collections.abc import Sequence

import numpy as np

from heldout.evaluation import margins
from heldout.scoring import margin_scores, saved_scores, score_config, shrinkage, uncertainty
from zoo import run_table

_SHRUNK = {
    "memorization_shrunk": "posterior_mean",
    "memorization_shrunk_sd": "posterior_sd",
    "memorization_false_sign_rate": "local_false_sign_rate",
}


def columns(
    config: score_config.ScoreConfig, table: run_table.RunTable, ratios: Sequence[saved_scores.RatioScores]
) -> dict[str, np.ndarray]:
    """The columns that were asked for, by name: float64 with a row for each ratio and training example.

    Args:
        config: names the experiment and says which.
        table: of all its runs.
        ratios: whose rows the table has.

    Raises:
        InvalidValueError: margins are asked for, and the runs of a ratio have none (`optional_files.check` finds this
            before anything is computed).
    """
    found: dict[str, np.ndarray] = {}
    if config.shrinkage:
        shrunk = [_shrunk(ratio) for ratio in ratios]
        found |= {name: np.concatenate([one[name] for one in shrunk]) for name in _SHRUNK}
    if config.margins:
        found |= _margins(config, table, ratios)
    return found


def _shrunk(ratio: saved_scores.RatioScores) -> dict[str, np.ndarray]:
    if not ratio.sides.support.any():  # nothing to fit a prior to
        return {name: np.full(ratio.num_train, np.nan) for name in _SHRUNK}
    posterior = shrinkage.shrink(uncertainty.side_counts(ratio))
    return {name: getattr(posterior, attribute) for name, attribute in _SHRUNK.items()}


def _margins(
    config: score_config.ScoreConfig, table: run_table.RunTable, ratios: Sequence[saved_scores.RatioScores]
) -> dict[str, np.ndarray]:
    train_margin, _ = margins.collect(config.zoo, config.experiment)
    parts = []
    for ratio in ratios:
        memorized = margin_scores.memorization_margin(table, train_margin, ratio.subset_ratio)
        heldout = margin_scores.consistency_margin(table, train_margin, [ratio.subset_ratio])
        parts.append((memorized.values, memorized.standard_error, heldout.profile[0]))
    names = ("memorization_margin", "memorization_margin_standard_error", "heldout_margin")
    return {name: np.concatenate(part) for name, part in zip(names, zip(*parts, strict=True), strict=True)}

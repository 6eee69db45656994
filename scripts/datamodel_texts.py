"""What programs say of datamodels."""

from collections.abc import Sequence

import numpy as np

from heldout.scoring import datamodels


def description(models: Sequence[datamodels.Datamodel]) -> str:
    """How large datamodels are, and how well they predict runs that they were not fitted to.

    Args:
        models: of all targets, at least one with weights.

    Returns:
        Two lines, and a third where the runs are too few.
    """
    weighted = [model for model in models if len(model.weight)]
    scored = [model.linear_datamodeling_score for model in weighted if model.num_scored_folds]
    rank = f"{np.median(scored):.2f}" if scored else "nan"
    size = np.median([len(model.weight) for model in weighted])
    r2 = np.median([model.held_out_r2 for model in weighted])
    varying = [model.held_out_r2 for model in models if not np.isnan(model.held_out_r2)]
    num_better = sum(r2 > 0 for r2 in varying)
    lines = [
        f"median over those with weights: {size:.0f}, held-out R^2 {r2:.2f}, linear datamodeling score {rank}",
        f"predicted better than by the mean of other runs: {num_better} of {len(varying)} whose output varies",
    ]
    if 2 * num_better < len(varying):
        lines.append("note: for most targets these runs are too few to tell one subset from another; train more")
    return "\n".join(lines)

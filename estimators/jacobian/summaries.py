"""The empirical Lipschitz constant: statistics over examples of norms of their input Jacobians.

The largest operator norm over examples is a lower bound of the Lipschitz constant (2-norms) of the network on any
connected set that contains neighbourhoods of them.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """Over the N examples whose value is a number.

    Attributes:
        maximum, mean: of values.
        argmax: id of the example with the largest.
        mean_standard_error: standard deviation over root of N; NaN for one example.
        quantiles: [Q], linear between order statistics.
        levels: [Q], the shares that they belong to.
        quantile_ids: [Q] int64, ids of the examples at or next below the quantiles.
        num: N.
        num_undefined: examples whose value is NaN, which are left out.
    """

    maximum: float
    mean: float
    argmax: int
    mean_standard_error: float
    quantiles: np.ndarray
    levels: np.ndarray
    quantile_ids: np.ndarray
    num: int
    num_undefined: int


def summarise(
    values: np.ndarray, ids: np.ndarray, levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
) -> Summary:
    """Maximum, mean and quantiles with the examples that they are of.

    Args:
        values: [N]; NaN is undefined.
        ids: [N].
        levels: shares from 0 to 1.

    Raises:
        MismatchError: shapes differ.
        InvalidArgumentError: a level is no share, or no value is a number.
    """
    values, ids, shares = np.asarray(values, np.float64), np.asarray(ids), np.asarray(levels, np.float64)
    if values.ndim != 1 or values.shape != ids.shape:
        raise errors.MismatchError(f"values of shape {values.shape} beside ids {ids.shape}: expected [N] both")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise errors.InvalidArgumentError(f"levels {tuple(levels)}: must lie from 0 to 1")
    known = np.flatnonzero(~np.isnan(values))
    if not known.size:
        raise errors.InvalidArgumentError(f"none of {len(values)} values is a number: nothing to summarise")
    order = known[np.argsort(values[known], kind="stable")]
    ranked, num = values[order], len(order)
    at = np.floor(shares * (num - 1)).astype(np.int64)
    return Summary(
        maximum=float(ranked[-1]),
        mean=float(ranked.mean()),
        argmax=int(ids[order[-1]]),
        mean_standard_error=float(ranked.std(ddof=1) / np.sqrt(num)) if num > 1 else float("nan"),
        quantiles=np.quantile(ranked, shares),
        levels=shares,
        quantile_ids=ids[order[at]].astype(np.int64),
        num=num,
        num_undefined=len(values) - num,
    )

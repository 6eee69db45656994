"""Memorization drawn towards what the other examples have: empirical Bayes from binomial counts.

From few runs, single estimates of memorization are mostly noise, and the largest of them are the luckiest. All N
examples together tell how the two rates of an example, p1 (right when trained on) and p0 (right when held out), are
spread; with this distribution as a prior, every example has a posterior given its own counts. As in adaptive shrinkage
(Stephens 2017) the prior is a mixture with a part of exactly no effect, fitted by EM; unlike there it is one of both
rates, and the likelihood is binomial, so that no standard errors enter, which would be 0 where all runs agree.

The unit interval is cut into G cells, finer towards 0 and 1: edges sin^2(pi g / 2 G). The prior is a mixture of

    cell pairs (g, h)    p1 uniform in cell g and p0 uniform in cell h, independently, of weight w[g, h]
    cells g of no effect p1 = p0 uniform in cell g, of weight v[g]

With I the regularized incomplete beta function, the likelihood of k of n right under cell g is, but for a factor that
all cells share, (I(b; k + 1, n - k + 1) - I(a; k + 1, n - k + 1)) / (b - a): no point of a grid attracts an estimate,
and with more and more runs the posterior mean goes to the estimate itself. With one matrix of such likelihoods for
either rate, a step of EM is two products of matrices.
"""

import dataclasses

import numpy as np
from scipy import special

from heldout.scoring import scores
from zoo import errors

# Examples that the prior is fitted to at most, taken evenly; more would hardly change it.
_MAX_FITTED = 20_000
# Examples whose posteriors are computed together.
_BLOCK = 8192
# Points of the Gauss-Legendre rule for p1 < p0 within one cell.
_NUM_POINTS = 8
# Posterior probability of a cell that is passed over there.
_NEGLIGIBLE = 1e-7


@dataclasses.dataclass(frozen=True)
class Prior:
    """How the rates of examples are spread.

    Attributes:
        edges: float64 [G + 1], of the cells, from 0 to 1.
        weights: float64 [G, G], of the pairs of cells of p1 and p0.
        null_weights: float64 [G], of p1 = p0 in a cell. Together with `weights` they sum to 1.
        num_iterations: steps of EM.
        log_likelihood: mean log likelihood of an example, but for a constant, that the last step set out from; it rises
            with every step.
    """

    edges: np.ndarray
    weights: np.ndarray
    null_weights: np.ndarray
    num_iterations: int
    log_likelihood: float

    @property
    def null_share(self) -> float:
        """Share of examples with no effect at all. Small effects and none are hard to tell apart: a rough figure."""
        return float(np.sum(self.null_weights))


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """Posteriors of N examples; all float64 [N], NaN where a side has no run.

    Attributes:
        posterior_mean: of memorization p1 - p0, in [-1, 1].
        posterior_sd: its standard deviation, above 0.
        local_false_sign_rate: min(P(p1 - p0 <= 0), P(p1 - p0 >= 0)) given the counts, in [0, 1]: the risk of being
            wrong about the sign of memorization if one has to name it (Stephens 2017).
        null_probability: P(p1 = p0) given the counts, in [0, 1].
        spread_in: posterior mean of p1 (1 - p1), the variance of one run that trained on the example; never 0.
        spread_heldout: posterior mean of p0 (1 - p0), likewise.
        prior: what it was all based on.
    """

    posterior_mean: np.ndarray
    posterior_sd: np.ndarray
    local_false_sign_rate: np.ndarray
    null_probability: np.ndarray
    spread_in: np.ndarray
    spread_heldout: np.ndarray
    prior: Prior


_COLUMNS = (
    "posterior_mean",
    "posterior_sd",
    "local_false_sign_rate",
    "null_probability",
    "spread_in",
    "spread_heldout",
)


def shrink(counts: scores.SideCounts, *, num_cells: int = 16, num_iterations: int = 200) -> Shrunk:
    """Posteriors of the memorization of every example at one subset ratio, by a prior fitted to all of them.

    Args:
        counts: of N examples; some hundred are needed to say much about the prior.
        num_cells: G, cells that [0, 1] is cut into.
        num_iterations: steps of EM. The fit starts from even weights and is smoother the fewer there are.

    Returns:
        Shrunk.

    Raises:
        InvalidValueError: num_cells is below 2 or num_iterations below 1; no example has runs on both sides.

    Cost: 4 G^2 floating point operations an example and step, and some 12 G incomplete beta functions an example:
    about three seconds of one core for 50,000 examples of 2000 runs.
    """
    prior, there = _fitted(counts, num_cells, num_iterations)
    out = {name: np.full(len(counts.num_in), np.nan) for name in _COLUMNS}
    for part in _blocks(there):
        for name, values in zip(_COLUMNS, _posterior(_columns(counts, part), prior), strict=True):
            out[name][part] = values
    return Shrunk(**out, prior=prior)


def expected_spreads(
    counts: scores.SideCounts, *, num_cells: int = 16, num_iterations: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """`spread_in` and `spread_heldout` of `shrink` alone, in a fraction of the time: float64 [N] each."""
    prior, there = _fitted(counts, num_cells, num_iterations)
    out = np.full((2, len(counts.num_in)), np.nan)
    for part in _blocks(there):
        posterior = _Posterior(_columns(counts, part), prior)
        out[:, part] = posterior.spread_in, posterior.spread_heldout
    return out[0], out[1]


def _fitted(counts: scores.SideCounts, num_cells: int, num_iterations: int) -> tuple[Prior, np.ndarray]:
    """The prior, and which examples have runs on both sides."""
    _check_at_least("num_cells", num_cells, 2)
    _check_at_least("num_iterations", num_iterations, 1)
    there = np.flatnonzero((counts.num_in > 0) & (counts.num_heldout > 0))
    if not len(there):
        raise errors.InvalidValueError(
            "counts: no example has both runs that trained on it and runs that held it out; train more runs"
        )
    edges = np.sin(np.pi * np.arange(num_cells + 1) / (2 * num_cells)) ** 2
    chosen = there[:: -(-len(there) // _MAX_FITTED)]
    return _fit(_columns(counts, chosen), edges, num_iterations), there


def _blocks(there: np.ndarray) -> list[np.ndarray]:
    return [there[start : start + _BLOCK] for start in range(0, len(there), _BLOCK)]


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise errors.InvalidValueError(f"{name}: got {value}, expected at least {least}")


def _columns(counts: scores.SideCounts, rows: np.ndarray) -> list[np.ndarray]:
    """Right and all runs that trained on the examples, right and all that did not: [n, 1] each."""
    names = ("num_right_in", "num_in", "num_right_heldout", "num_heldout")
    return [getattr(counts, name)[rows, None].astype(np.float64) for name in names]


def _cell_integrals(k: np.ndarray, n: np.ndarray, edges: np.ndarray, power: int) -> np.ndarray:
    """Integral of p^power over each cell under the density Beta(k + 1, n - k + 1), over the cell's width: [n, G]."""
    factor = np.ones_like(k)
    for i in range(power):
        factor = factor * (k + 1 + i) / (n + 2 + i)
    return factor * np.diff(special.betainc(k + 1 + power, n - k + 1, edges), axis=1) / np.diff(edges)


def _null_integrals(columns: list[np.ndarray], edges: np.ndarray, power: int = 0) -> np.ndarray:
    """The same for p1 = p0 = p, in the scale of a product of two such integrals: [n, G]."""
    k1, n1, k0, n0 = columns
    k, n = k1 + k0, n1 + n0
    log_scale = special.betaln(k + 1, n - k + 1)
    log_scale = log_scale - special.betaln(k1 + 1, n1 - k1 + 1) - special.betaln(k0 + 1, n0 - k0 + 1)
    return np.exp(log_scale) * _cell_integrals(k, n, edges, power)


def _fit(columns: list[np.ndarray], edges: np.ndarray, num_iterations: int) -> Prior:
    """EM from even weights, half of them on no effect."""
    k1, n1, k0, n0 = columns
    num_cells = len(edges) - 1
    inside, outside = _cell_integrals(k1, n1, edges, 0), _cell_integrals(k0, n0, edges, 0)
    null = _null_integrals(columns, edges)
    weights = np.full((num_cells, num_cells), 0.5 / num_cells**2)
    null_weights = np.full(num_cells, 0.5 / num_cells)
    likelihood = np.empty(0)
    for _ in range(num_iterations):
        likelihood = np.sum(inside @ weights * outside, axis=1) + null @ null_weights
        share = 1 / (likelihood * len(likelihood))
        weights = weights * (inside.T @ (outside * share[:, None]))
        null_weights = null_weights * (share @ null)
    # One more example that may be anywhere: those that were not fitted may be unlike all that were.
    kept = len(likelihood) / (len(likelihood) + 1)
    weights = kept * weights + (1 - kept) / num_cells**2
    return Prior(edges, weights, kept * null_weights, num_iterations, float(np.mean(np.log(likelihood))))


class _Posterior:
    """Integrals for a block of n examples, from which all posterior quantities follow."""

    def __init__(self, columns: list[np.ndarray], prior: Prior) -> None:
        k1, n1, k0, n0 = columns
        self._prior = prior
        self.inside = [_cell_integrals(k1, n1, prior.edges, power) for power in range(3)]
        self.outside = [_cell_integrals(k0, n0, prior.edges, power) for power in range(3)]
        self._null = [_null_integrals(columns, prior.edges, power) @ prior.null_weights for power in range(3)]
        self.likelihood = self.sum_over_pairs(0, 0, prior.weights) + self._null[0]

    def sum_over_pairs(self, a: int, b: int, weights: np.ndarray) -> np.ndarray:
        """Integral of p1^a p0^b times the likelihood over pairs of cells of these weights, [n]."""
        return np.sum(self.inside[a] @ weights * self.outside[b], axis=1)

    def mean(self, a: int, b: int) -> np.ndarray:
        """Posterior mean of p1^a p0^b, a + b at most 2, [n]."""
        return (self.sum_over_pairs(a, b, self._prior.weights) + self._null[a + b]) / self.likelihood

    @property
    def no_effect(self) -> np.ndarray:
        return self._null[0] / self.likelihood

    @property
    def spread_in(self) -> np.ndarray:
        return self.mean(1, 0) - self.mean(2, 0)

    @property
    def spread_heldout(self) -> np.ndarray:
        return self.mean(0, 1) - self.mean(0, 2)


def _posterior(columns: list[np.ndarray], prior: Prior) -> tuple[np.ndarray, ...]:
    """`_COLUMNS` for a block of examples, [n] each."""
    posterior = _Posterior(columns, prior)
    mean = posterior.mean(1, 0) - posterior.mean(0, 1)
    square = posterior.mean(2, 0) - 2 * posterior.mean(1, 1) + posterior.mean(0, 2)
    # p1 < p0: pairs of cells with g < h, and parts of those with g = h.
    below = posterior.sum_over_pairs(0, 0, np.triu(prior.weights, 1)) / posterior.likelihood
    within = np.diag(prior.weights) * posterior.inside[0] * posterior.outside[0] / posterior.likelihood[:, None]
    below += _below_within_cells(columns, prior.edges, within)
    above = np.maximum(1 - below - posterior.no_effect, 0)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    false_sign = np.minimum(below, above) + posterior.no_effect
    return mean, sd, false_sign, posterior.no_effect, posterior.spread_in, posterior.spread_heldout


def _below_within_cells(columns: list[np.ndarray], edges: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Posterior probability [n] that p1 < p0 while both are in one cell, of `mass` [n, G] in total.

    In a cell a..b, with the distribution functions F1 and F0 of the two posteriors under a flat prior, it is the mean
    of (F0(b) - F0(p1)) / (F0(b) - F0(a)) over p1, taken over even shares of its distribution by a Gauss-Legendre rule.
    """
    rows, cells = np.nonzero(mass > _NEGLIGIBLE)
    k1, n1, k0, n0 = (column[rows] for column in columns)
    points, rule = np.polynomial.legendre.leggauss(_NUM_POINTS)
    ends = edges[np.stack([cells, cells + 1], axis=1)]
    inside = special.betainc(k1 + 1, n1 - k1 + 1, ends)
    outside = special.betainc(k0 + 1, n0 - k0 + 1, ends)
    shares = inside[:, :1] + np.diff(inside, axis=1) * (points + 1) / 2
    drawn = np.clip(special.betaincinv(k1 + 1, n1 - k1 + 1, shares), ends[:, :1], ends[:, 1:])
    higher = (outside[:, 1:] - special.betainc(k0 + 1, n0 - k0 + 1, drawn)) / np.diff(outside, axis=1)
    out = np.zeros(len(mass))
    np.add.at(out, rows, mass[rows, cells] * (higher @ rule / 2))
    return out

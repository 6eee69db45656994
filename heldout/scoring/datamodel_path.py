"""The lasso over a path of penalties where every feature is a bit: which runs were trained on an example.

For one target with outputs y [T] over the runs, and A [T, N] the subset masks as 0 and 1, the weights at penalty l are

    argmin over w, b of   1 / (2 n) sum over t in the fit of (y_t - b - sum_k A_tk w_k)^2  +  l sum_k |w_k|

where n counts the runs in the fit; the others are only predicted. Coordinate descent (Friedman, Hastie & Tibshirani
2010) with warm starts from penalty to penalty runs on a working set of examples: those that the strong rule of
Tibshirani et al. (2012, eq. 7) keeps, and then all that break the optimality conditions, until the duality gap over
all N examples is small.

The bits carry the arithmetic. Centring a column of zeros and ones needs only its count: the products of two centred
columns are count(k and l) - count(k) count(l) / n, whole numbers from AND and popcount, for pairs of the working set
alone; no matrix of N x N is ever made. The gradient A^T r is summed from tables of the 256 sums that eight runs can
contribute, T / 8 look-ups an example. Descent uses the products rounded to float32; residuals and gradients are
computed afresh in float64 from the bits and descent goes on from there, so the rounding does not reach the result.
"""

import dataclasses

import numpy as np

from heldout.scoring import datamodel_kernels, run_words

_WORD_BITS = 64
# Examples that are packed at a time, a multiple of 8.
_STEP = 4096
# Sweeps over the working set before residuals are computed afresh, and how often that is done for one penalty.
_MAX_SWEEPS, _MAX_ROUNDS = 1000, 60
# Share of the duality gap that descent on the working set may use up.
_INNER_SHARE = 0.9
# The working set is thinned where it is so many times as large as the support, and more by so many examples.
_THIN_FACTOR, _THIN_SLACK = 1.25, 64


@dataclasses.dataclass(frozen=True)
class Design:
    """The subset masks of T runs on N training examples, packed along the runs.

    Attributes:
        num_runs: T.
        words: uint64 [N, W], run t of an example is bit t % 64 of word t // 64; spare bits are 0.
        byte_rows: uint8 [8 W, N], the same bits: run t is bit t % 8 of row t // 8.
    """

    num_runs: int
    words: np.ndarray
    byte_rows: np.ndarray

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.words)


@dataclasses.dataclass(frozen=True)
class PathFit:
    """The solutions along a path of L penalties.

    Attributes:
        intercept: float64 [L], b.
        train_index: L arrays int64, ascending: the examples whose weight is not 0.
        weight: L arrays float64, their weights, in units of the output; positive: having been trained on the example
            goes with a higher output.
        prediction: float64 [L, T], b + A w for all runs, those outside of the fit too.
        relative_gap: float64 [L], the duality gap of n times the objective over the sum of the squares of the centred
            outputs; the objective is at most that far above its minimum. 0 where the outputs do not vary.
    """

    intercept: np.ndarray
    train_index: tuple[np.ndarray, ...]
    weight: tuple[np.ndarray, ...]
    prediction: np.ndarray
    relative_gap: np.ndarray


def design(subset_mask_bits: np.ndarray, num_train: int) -> Design:
    """Packs the masks of a run table along the runs.

    Args:
        subset_mask_bits: uint8 [T, ceil(N / 8)], as in `run_table.RunTable`.
        num_train: N.

    Returns:
        A Design. Memory: N T / 4 bytes, and for 4096 examples at a time T / 2 bytes an example in passing.
    """
    num_runs = len(subset_mask_bits)
    num_words = -(-num_runs // _WORD_BITS)
    words = np.empty((num_train, num_words), "<u8")
    byte_rows = np.empty((8 * num_words, num_train), np.uint8)
    for start in range(0, num_train, _STEP):
        rows = slice(start, min(start + _STEP, num_train))
        # Without the words that only round their number up.
        words[rows] = run_words.of_examples(subset_mask_bits, rows.start, rows.stop)[:, :num_words]
        byte_rows[:, rows] = words[rows].view(np.uint8).T
    return Design(num_runs, words, byte_rows)


def largest_penalty(masks: Design, output: np.ndarray) -> float:
    """The least penalty at which all weights are 0: max over k of |sum_t (A_tk - mean) (y_t - mean)| / T.

    Args:
        masks: T runs.
        output: float64 [T].
    """
    return _Descent(masks, output, np.ones(masks.num_runs, bool)).last_penalty


def fit_path(
    masks: Design, output: np.ndarray, penalties: np.ndarray, *, in_fit: np.ndarray | None = None, tolerance: float
) -> PathFit:
    """Solves the lasso at each of a falling sequence of penalties.

    Args:
        masks: T runs on N examples.
        output: float64 [T], finite.
        penalties: float64 [L], above 0, falling; l in the formula above.
        in_fit: bool [T], the runs to fit to, at least one; None for all.
        tolerance: bound on `relative_gap`, as `tol` of scikit-learn's Lasso.

    Returns:
        A PathFit. Where the bound cannot be reached, `relative_gap` says how near it came.

    Cost: for each penalty N T / 8 look-ups a round, of which one or two are usual, and S^2 multiplications a sweep over
    a working set of S examples; 4 S^2 bytes.
    """
    fit = _Descent(masks, output, np.ones(masks.num_runs, bool) if in_fit is None else in_fit)
    supports = []
    intercept, gap = np.zeros(len(penalties)), np.zeros(len(penalties))
    prediction = np.zeros((len(penalties), masks.num_runs))
    for i, penalty in enumerate(penalties):
        gap[i] = fit.solve(float(penalty), tolerance)
        intercept[i], prediction[i] = fit.intercept, fit.prediction
        supports.append(fit.support())
    indices, weights = zip(*supports, strict=True) if supports else ((), ())
    return PathFit(intercept, indices, weights, prediction, gap)


def working_set_limit(num_runs: int, num_train: int) -> int:
    """Most examples that a working set may hold; a solution has at most as many weights as there are runs."""
    return min(num_train, 2 * num_runs + _THIN_SLACK)


class _Descent:
    """The state of one path: weights, their working set, residual and gradient."""

    def __init__(self, masks: Design, output: np.ndarray, in_fit: np.ndarray) -> None:
        self._masks, self._in_fit = masks, in_fit
        fit_bytes = np.zeros(len(masks.byte_rows), np.uint8)
        packed = np.packbits(in_fit, bitorder="little")
        fit_bytes[: len(packed)] = packed
        self._fit_words = fit_bytes.view("<u8")
        self._num_fit = int(np.count_nonzero(in_fit))
        self._count = np.zeros(masks.num_train, np.int64)
        datamodel_kernels.count(masks.words, self._fit_words, self._count)
        # A column that is the same in all runs says nothing; its product with any centred residual is rounding.
        self._varies = (self._count > 0) & (self._count < self._num_fit)
        self._mean = float(np.mean(output[in_fit]))
        self._centred = np.where(in_fit, output - self._mean, 0.0)
        self._total = float(self._centred @ self._centred)
        self._output = output
        self._members = np.zeros(0, np.int64)
        self._weights, self._curvature = np.zeros(0), np.zeros(0)
        # Of the members, in the first rows and columns; there is room for more.
        self._products = np.zeros((0, 0), np.float32)
        self.intercept, self.prediction = self._mean, np.full(masks.num_runs, self._mean)
        self._residual = self._centred
        self._update_gradient()
        self._output_products = self._gradient
        self.last_penalty = float(np.max(np.abs(self._gradient), initial=0.0)) / self._num_fit

    def support(self) -> tuple[np.ndarray, np.ndarray]:
        """Examples with a weight, ascending, and their weights."""
        size = len(self._members)
        chosen = np.flatnonzero(self._weights[:size])
        order = chosen[np.argsort(self._members[chosen])]
        return self._members[order], self._weights[order].copy()

    def solve(self, penalty: float, tolerance: float) -> float:
        """Moves to the solution at a penalty; returns the relative duality gap."""
        scaled = penalty * self._num_fit
        bound = tolerance * self._total
        # The strong rule: what stays below this gradient is out, almost always.
        threshold = min(scaled, (2 * penalty - self.last_penalty) * self._num_fit)
        self._thin(threshold)
        gap = np.inf
        for _ in range(_MAX_ROUNDS):
            self._extend(threshold)
            threshold = scaled
            self._sweep(scaled, _INNER_SHARE * bound)
            self._predict()
            self._update_gradient()
            gap = self._gap(scaled)
            if gap <= bound:
                break
        self.last_penalty = penalty
        return gap / self._total if self._total else 0.0

    def _thin(self, threshold: float) -> None:
        """Leaves out members without a weight, of which a long path gathers many."""
        num_weights = np.count_nonzero(self._weights)
        if len(self._members) <= _THIN_FACTOR * num_weights + _THIN_SLACK:
            return
        self._keep((self._weights != 0) | (np.abs(self._gradient[self._members]) > threshold))

    def _keep(self, chosen: np.ndarray) -> None:
        """Reduces the working set to these members, bool over all of them."""
        kept = np.flatnonzero(chosen)
        self._members, self._weights = self._members[kept], self._weights[kept]
        self._curvature = self._curvature[kept]
        self._products[: len(kept), : len(kept)] = self._products[np.ix_(kept, kept)]

    def _extend(self, threshold: float) -> None:
        """Takes examples with a gradient above a threshold into the working set, the largest first if room is short."""
        outside = self._varies.copy()
        outside[self._members] = False
        new = np.flatnonzero(outside & (np.abs(self._gradient) > threshold))
        limit = working_set_limit(self._masks.num_runs, self._masks.num_train)
        if len(new) > limit - len(self._members):
            self._keep(self._weights != 0)
        room = limit - len(self._members)
        if len(new) > room:
            new = np.sort(new[np.argsort(-np.abs(self._gradient[new]), kind="stable")[: max(room, 0)]])
        if not len(new):
            return
        size = len(self._members)
        self._members = np.concatenate([self._members, new])
        self._weights = np.concatenate([self._weights, np.zeros(len(new))])
        if len(self._members) > len(self._products):
            capacity = min(limit, 3 * len(self._members) // 2)
            products = np.empty((capacity, capacity), np.float32)
            products[:size, :size] = self._products[:size, :size]
            self._products = products
        datamodel_kernels.multiply(
            self._masks.words, self._fit_words, self._members, self._count, size, self._num_fit, self._products
        )
        count = self._count[self._members]
        self._curvature = count - count * count / self._num_fit

    def _sweep(self, scaled: float, bound: float) -> None:
        gradient, products = self._gradient[self._members], self._output_products[self._members]
        datamodel_kernels.descend(
            self._products, self._curvature, products, self._total, self._weights, gradient, scaled, bound, _MAX_SWEEPS
        )

    def _predict(self) -> None:
        """Intercept, predictions and residual of the weights, from the bits."""
        train_index, weight = self.support()
        self.intercept = self._mean - float(weight @ self._count[train_index]) / self._num_fit
        prediction = np.full(len(self._fit_words) * _WORD_BITS, self.intercept)
        datamodel_kernels.add_columns(self._masks.words, train_index, weight, prediction)
        self.prediction = prediction[: self._masks.num_runs]
        self._residual = np.where(self._in_fit, self._output - self.prediction, 0.0)

    def _update_gradient(self) -> None:
        self._gradient = np.where(self._varies, _gradient(self._masks, self._residual), 0.0)

    def _gap(self, scaled: float) -> float:
        """The duality gap of n times the objective: primal minus dual at the residual, scaled until it is feasible."""
        largest = float(np.max(np.abs(self._gradient), initial=0.0))
        shrink = min(1.0, scaled / largest) if largest > 0 else 1.0
        square = float(self._residual @ self._residual)
        length = float(np.sum(np.abs(self._weights)))
        return 0.5 * square * (1 + shrink**2) + scaled * length - shrink * float(self._residual @ self._centred)


def _gradient(masks: Design, residual: np.ndarray) -> np.ndarray:
    """A^T r, float64 [N], for a residual [T] that sums to 0, so that columns need no centring."""
    padded = np.zeros(8 * len(masks.byte_rows))
    padded[: len(residual)] = residual
    gradient = np.zeros(masks.num_train)
    datamodel_kernels.sum_bits(masks.byte_rows, padded, gradient)
    return gradient


def penalties(largest: float, num_penalties: int, ratio: float) -> np.ndarray:
    """A falling geometric sequence of penalties, float64 [L], from the largest to `ratio` times the largest."""
    return np.geomspace(largest, ratio * largest, num_penalties)

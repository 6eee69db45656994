"""LiSSA (Agarwal et al., 2017; Koh & Liang, 2017): the Neumann series of an inverse, with batches drawn at random.

    h_0 = v,   h_{k+1} = v + h_k - (C_batch + damping I) h_k / scale,   x = mean over repeats of h_depth / scale

which tends to (C + damping I)^-1 v if scale exceeds the largest eigenvalue of C_batch + damping I. The recursion that
was published first, h <- v + (1 - damp) h - C h / scale, leaves the damping unscaled: its limit, divided by scale, is
(C + damp scale I)^-1 v. `Compat.PUBLISHED` computes it, and `effective_damping` says what it amounts to.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions

# A recursion whose result has grown to this many times v diverges: the damped inverse would need a damping below it.
_MAX_GROWTH = 1e12
_MOST_DOUBLINGS = 10
# Steps, and examples, of one call; its batches are read before.
_MAX_STEPS, _MAX_EXAMPLES = 50, 1024


@dataclasses.dataclass(frozen=True)
class LissaConfig:
    """Settings by the names under which they are known.

    Attributes:
        recursion_depth: steps of the recursion; with `r`, r recursion_depth batches should cover the training set.
        r: repeats with other batches, averaged.
        damp: damping; see `published`.
        scale: divisor of the curvature; None for 1.1 + 10 / sqrt(step_batch_size) times the largest eigenvalue that
            power iteration finds of the curvature of three batches, plus the damping, and twice that as often as a
            recursion diverges, ten times at most.
        step_batch_size: training examples in the batch of one step.
        seed: of the batches.
        published: the recursion as first published, whose damping is damp times scale.
        tolerance: stop a repeat early where the mean of the last tenth of the steps moves by less than this share of
            itself, and take no further repeats once one moves their mean by less; 0 for never.
    """

    recursion_depth: int = 5000
    r: int = 1
    damp: float = 0.01
    scale: float | None = 25.0
    step_batch_size: int = 1
    seed: int = 42
    published: bool = False
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        solutions.check_damping(self.damp)
        if min(self.recursion_depth, self.r, self.step_batch_size) < 1:
            raise errors.InvalidArgumentError(
                f"recursion_depth {self.recursion_depth}, r {self.r}, step_batch_size {self.step_batch_size}: "
                "must be at least 1"
            )
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise errors.InvalidArgumentError(f"scale {self.scale}: must be a number above 0, or None to choose it")
        if not 0 <= self.tolerance < 1:
            raise errors.InvalidArgumentError(f"tolerance {self.tolerance}: must be from 0 to below 1")


class LissaSolver:
    """(C + damping I)^-1 by random batches; exact only on average and in the limit.

    Attributes:
        config: the settings.
        scale: the scale that is used, or was for the last system.
        damping: what is added to the eigenvalues of C: `config.damp`, or that times the scale as first published.
    """

    def __init__(self, curvature: operators.Curvature, config: LissaConfig | None = None) -> None:
        """Chooses the scale if it is not given: some 30 products with batches.

        Args:
            curvature: C, of training examples.
            config: settings; the defaults are those of the published code.
        """
        self.config = config or LissaConfig()
        self._curvature = curvature
        self._first_scale = self.config.scale or self._find_scale()
        self._set_scale(self._first_scale)
        self._recursion = curvature.make_recursion(min(self.config.step_batch_size, curvature.num_train))

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`; the residual takes one further pass over the training examples.

        Raises:
            SolverError: the recursion diverges because the scale is too small, or the damped curvature is not positive.
        """
        vectors = solutions.check_vectors(vectors, self._curvature.size)
        before = self._curvature.num_products
        values, rounds = self._mean_of_repeats(vectors)
        residuals = solutions.relative_residuals(self._curvature.products(values), values, vectors, self.damping)
        # A stochastic mean is as good as it is; that it is a solution to a per cent is all that is asked here.
        converged = residuals < max(self.config.tolerance, 1e-2)
        return solutions.Solution(values, residuals, converged, rounds, self._curvature.num_products - before)

    def _mean_of_repeats(self, vectors: tf.Tensor) -> tuple[tf.Tensor, int]:
        """(mean over repeats, steps of all together).

        Where one diverges by a scale that was chosen and not given, all begin again with twice the scale; the next
        system begins with the first one, so that no result depends on what was solved before.
        """
        rounds = 0
        for doubling in range(_MOST_DOUBLINGS + 1):
            self._set_scale(2.0**doubling * self._first_scale)
            try:
                mean, num_steps = self._mean_by_scale(vectors)
                return mean, rounds + num_steps
            except errors.SolverError:
                if self.config.scale is not None or doubling == _MOST_DOUBLINGS:
                    raise
        raise AssertionError("unreachable")

    def _mean_by_scale(self, vectors: tf.Tensor) -> tuple[tf.Tensor, int]:
        """The same with one scale; fewer repeats than `r` where the mean has settled."""
        rounds, mean = 0, tf.zeros_like(vectors)
        for repeat in range(self.config.r):
            part, num_steps = self._repeat(vectors, np.random.default_rng([self.config.seed, repeat]))
            rounds += num_steps
            earlier, mean = mean, mean + (part - mean) / (repeat + 1)
            if repeat and self._has_settled(mean, earlier):
                break
        return mean, rounds

    def _set_scale(self, scale: float) -> None:
        self.scale = scale
        self.damping = self.config.damp * (scale if self.config.published else 1.0)

    def _repeat(self, vectors: tf.Tensor, random: np.random.Generator) -> tuple[tf.Tensor, int]:
        """One recursion: (h / scale, steps)."""
        estimate, norms = vectors, tf.norm(vectors, axis=1)
        window = max(self.config.recursion_depth // 10, 1)
        most = max(1, min(_MAX_STEPS, _MAX_EXAMPLES // self.config.step_batch_size))
        recent, earlier, step = tf.zeros_like(vectors), None, 0
        while step < self.config.recursion_depth:
            # As many as fit before the next check: each call of a compiled function takes longer than a small step.
            num = min(most, window - step % window, self.config.recursion_depth - step)
            positions = np.stack([self._batch(random) for _ in range(num)])
            estimate, total = self._recursion(vectors, estimate, positions, 1.0 - self.damping / self.scale, self.scale)
            step += num
            recent += total / window
            if step % window and step != self.config.recursion_depth:
                continue
            self._check_growth(estimate, norms, step)
            if earlier is not None and self._has_settled(recent, earlier):
                return recent / self.scale, step
            recent, earlier = tf.zeros_like(vectors), recent
        return estimate / self.scale, self.config.recursion_depth

    def _batch(self, random: np.random.Generator) -> np.ndarray:
        size = min(self.config.step_batch_size, self._curvature.num_train)
        return np.sort(random.choice(self._curvature.num_train, size, replace=False))

    def _has_settled(self, recent: tf.Tensor, earlier: tf.Tensor) -> bool:
        moved = tf.norm(recent - earlier, axis=1) <= self.config.tolerance * tf.norm(recent, axis=1)
        return bool(self.config.tolerance and tf.reduce_all(moved))

    def _check_growth(self, estimate: tf.Tensor, norms: tf.Tensor, step: int) -> None:
        growth = float(tf.reduce_max(tf.norm(estimate, axis=1) / tf.maximum(norms, np.finfo(np.float32).tiny)))
        # A contraction grows by one norm of v a step at most.
        if not growth <= min(2.0 * step + 2.0, _MAX_GROWTH):
            raise errors.SolverError(
                f"LiSSA diverges: after {step} steps the estimate is {growth:.3g} times the vector; the scale "
                f"{self.scale:.4g} is below the largest eigenvalue of the curvature of a batch, or the damped "
                "curvature is not positive; use a larger scale, step_batch_size or damping, or have the scale chosen "
                "(None, or auto in programs)"
            )

    def _find_scale(self) -> float:
        """Above the largest eigenvalue of the damped curvature of batches."""
        random = np.random.default_rng([self.config.seed, 2**31])
        largest = 0.0
        for _ in range(3):
            batch = self._batch(random)
            vector = tf.constant(random.normal(size=(1, self._curvature.size)), self._curvature.dtype)
            for _ in range(10):
                vector = self._curvature.batch_products(vector / tf.norm(vector), batch)
                if float(tf.norm(vector)) == 0:
                    break
            largest = max(largest, float(tf.norm(vector)))
        if largest == 0:
            raise errors.SolverError("the curvature of the batches is zero, so that no scale fits; give a scale")
        # Other batches may be steeper than the three that were seen: single examples by an order of magnitude.
        margin = 1.1 + 10.0 / math.sqrt(self.config.step_batch_size)
        return margin * largest + (0.0 if self.config.published else self.config.damp)

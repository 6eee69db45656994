"""The extreme eigenpair of a symmetric matrix for every example of a data set, by its products, with a certificate.

Of each example a Krylov space is built from a start vector of its own, with full reorthogonalisation; beside the basis
V the products A V are kept, so that the eigenvalue and its residual are those of the matrix itself and not of a
recursion: x = V y is a vector of length 1, value = x . A x, and

    |A x - value x| = residual    =>    an eigenvalue of A lies within `residual` of `value`     (for any symmetric A)

whatever the spectrum looks like, tiny, clustered or degenerate. Where no eigenvalue lies between this one and the next
that the iteration has found, Temple's inequality (see Parlett, The symmetric eigenvalue problem, 1998) says far more:

    gap = |value - next value| - next residual > 0    =>    the extreme eigenvalue lies within residual^2 / gap

which Lanczos software uses as "refined bound" (Larsen, PROPACK, 1998). It is fooled by a pair of eigenvalues so close
that the iteration still takes them for one, and by a start that has little of the extreme one; so it is used by name
only, and never below a sixteenth of the residual. For positive semidefinite A the value never exceeds the largest
eigenvalue, and after k products with a random start in n dimensions (Kuczynski & Wozniakowski, 1992)

    P(value < (1 - e) largest) <= 1.648 sqrt(n) exp(-sqrt(e) (2k - 1)),

again for any spectrum. Examples stop one by one; those that have are replaced by the next, so that batches stay full. A
replacement takes a forward pass of the whole batch, and waits until those that have stopped idle for as long.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, sharding
from estimators.jacobian import batching, keys

WHICH = ("largest", "smallest", "modulus")
STOPS = ("residual", "gap")
# A forward pass takes as long as so many products with J J^T.
_FORWARD = 0.65
# How many times smaller than the residual a bound by the gap may be: with more, unlucky starts fool it oftener.
_MOST_REFINED = 16.0
# Products between two replacements at most, where each is looked at.
_MOST_BETWEEN = 64
# Within a traced function: inputs, labels -> (vectors [B, n] -> A v [B, n]).
Products = Callable[[tf.Tensor, tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Config:
    """When to stop.

    Attributes:
        tolerance: relative: bound <= tolerance times |value|, never an absolute number. A singular value lies within
            about half of it: by default within 1e-4, rounding in float32 included.
        stop: which bound: "residual", which holds for any spectrum, or "gap", residual^2 / gap where that is smaller:
            about three quarters of the products, and three in a thousand random matrices are off by a thousandth to a
            twentieth.
        max_steps: products at most; also how many vectors are kept, twice.
        check_every: products from one look at the residual to the next; where they are dear beside a look, see
            `functions.Function.is_dear`, each of the first 31 is looked at, every second then, and so on.
        batch_size: examples at a time.
        seed: of the start vectors, with the example's id.
    """

    tolerance: float = 1.9e-4
    stop: str = "residual"
    max_steps: int = 128
    check_every: int = 4
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise errors.InvalidArgumentError(f"tolerance {self.tolerance}: must lie between 0 and 1; it is relative")
        if self.stop not in STOPS:
            raise errors.InvalidArgumentError(f"stop={self.stop!r}: expected one of {', '.join(STOPS)}")
        if min(self.max_steps, self.check_every, self.batch_size) < 1:
            raise errors.InvalidArgumentError(
                f"max_steps {self.max_steps}, check_every {self.check_every}, batch_size {self.batch_size}: must be at "
                "least 1"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Extremes:
    """One eigenvalue of each example.

    Attributes:
        values: [N] float64.
        residuals: [N] float64, |A x - value x|.
        bounds: [N] float64, what `Config.stop` names: the residuals, or their squares by the gap where smaller.
        num_steps: [N] int64, products that were taken.
        converged: [N] bool, whether the bound is within the tolerance.
        exhausted: [N] bool, whether the Krylov space can grow no more, so that the eigenvalue is the extreme one but
            for rounding and start vectors of probability 0.
        size: n.
    """

    values: np.ndarray
    residuals: np.ndarray
    bounds: np.ndarray
    num_steps: np.ndarray
    converged: np.ndarray
    exhausted: np.ndarray
    size: int

    def missed(self, confidence: float) -> np.ndarray:
        """[N], the e of the theorem above that holds with this confidence; 0 where exhausted, 1 where it says nothing.

        Raises:
            InvalidArgumentError: the confidence is not below 1.
        """
        if not 0 < confidence < 1:
            raise errors.InvalidArgumentError(f"confidence {confidence}: must lie between 0 and 1")
        root = math.log(1.648 * math.sqrt(self.size) / (1 - confidence)) / (2 * self.num_steps - 1)
        return np.where(self.exhausted, 0.0, np.minimum(np.square(root), 1.0))


class Solver:
    """Compiled steps; the same solver serves any number of data sets of one shape."""

    def __init__(
        self,
        products: Products,
        size: int,
        dtype: tf.DType,
        which: str,
        config: Config,
        *,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
        looks_at_all: bool = True,
    ) -> None:
        """Compiles nothing yet.

        Args:
            products: the matrix of each example by its products.
            size: n.
            dtype: of vectors.
            which: the "largest" eigenvalue, the "smallest", or the one of largest "modulus".
            config: when to stop.
            compiled: compiles a function of batches, see `functions.Function.compiled`; by default for one device.
            looks_at_all: look at the residual after every product, within what is compiled.

        Raises:
            InvalidArgumentError: `which` is none of these.
        """
        if which not in WHICH:
            raise errors.InvalidArgumentError(f"which={which!r}: expected one of {', '.join(WHICH)}")
        self._size, self._dtype, self._which, self.config = size, dtype, which, config
        self._capacity = min(config.max_steps, size)
        self.looks_at_all = looks_at_all
        self._num_between = min(_MOST_BETWEEN if looks_at_all else config.check_every, self._capacity)
        compiled = compiled or (lambda compute: sharding.rows(None, compute))
        self._advance = compiled(self._steps(products))
        self._sizes = batching.Sizes(config.batch_size)

    def run(self, inputs: Any, labels: np.ndarray, ids: np.ndarray) -> Extremes:
        """The eigenvalue of every example.

        Args:
            inputs: [N, ...].
            labels: [N], handed to the products.
            ids: [N] or [N, m] integers, what start vectors belong to.

        Returns:
            The eigenvalues. A forward pass for every look, or where each product is looked at whenever as much time was
            spent on examples that are done; 2 max_steps n numbers for each example of a batch.
        """
        num = len(labels)
        dtypes = (np.float64, np.float64, np.float64, np.int64, bool, bool)
        found = [np.zeros(num, dtype) for dtype in dtypes]
        slots = _Slots(self, inputs, labels, ids, self._sizes.choose(num))
        while slots.any_active():
            slots.advance()
            slots.harvest(found)
        values, residuals, bounds, num_steps, converged, exhausted = found
        return Extremes(values, residuals, bounds, num_steps, converged, exhausted, self._size)

    def starts(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """[N, n], random directions."""
        return keys.normals(self.config.seed, "lanczos", np.asarray(ids), self._size)

    def _steps(self, products: Products) -> Callable[..., Any]:
        """((inputs, is_active, *state), labels, number) -> the state, at most `number` products later."""
        capacity = self._capacity
        small = 10 * np.finfo(self._dtype.as_numpy_dtype).eps

        def advance(rows: tuple[tf.Tensor, ...], labels: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            inputs, is_active, *start = rows
            apply = products(inputs, labels)
            patience = _FORWARD * tf.cast(tf.shape(is_active)[0], tf.float32) if self.looks_at_all else np.inf

            def goes_on(k: tf.Tensor, idled: tf.Tensor, stopped: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
                return (k < number) & (idled < patience) & tf.reduce_any(is_active & ~stopped)

            def step(
                k: tf.Tensor, idled: tf.Tensor, stopped: tf.Tensor, projected: tf.Tensor, *state: tf.Tensor
            ) -> tuple[tf.Tensor, ...]:
                candidates, basis, images, counts, scales, is_whole, is_within = state
                grows = ~stopped & ~is_whole & (counts < capacity)
                vectors = tf.where(grows[:, None], _over(candidates, _lengths(candidates)), 0.0)
                image = tf.where(grows[:, None], apply(vectors), 0.0)
                place = tf.one_hot(counts, capacity, dtype=basis.dtype)
                basis += place[:, :, None] * vectors[:, None]
                images += place[:, :, None] * image[:, None]
                counts += tf.cast(grows, tf.int32)
                following = image
                for _ in range(2):  # twice is enough (Kahan), once is not
                    following -= _combine(_inner(basis, following), basis)
                scales, left = tf.maximum(scales, _lengths(image)), _lengths(following)
                is_number = tf.reduce_all(tf.math.is_finite(image), axis=1)
                is_whole |= grows & ~(is_number & (left > small * scales))
                if self.looks_at_all:
                    projected = _with_row(projected, place, _inner(basis, image))
                    is_within |= grows & self._is_within(projected, left, counts)
                stopped |= is_whole | is_within | (counts == capacity)
                idled += tf.reduce_sum(tf.cast(is_active & stopped, tf.float32))
                candidates = tf.where(grows[:, None], following, candidates)
                return k + 1, idled, stopped, projected, candidates, basis, images, counts, scales, is_whole, is_within

            basis, images = start[1:3]
            projected = tf.matmul(basis, images, transpose_b=True) if self.looks_at_all else tf.zeros([0])
            nothing = tf.zeros_like(is_active)
            first = (0, 0.0, nothing, projected, *start[:-1], nothing)
            return tf.while_loop(goes_on, step, first, parallel_iterations=1)[4:]

        return advance

    def _is_within(self, projected: tf.Tensor, left: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """[B], whether residuals are within the tolerance, as far as the dtype tells, where they are asked for.

        Args:
            projected: [B, k, k], V^T A V.
            left: [B], length of what is left of the last product beside the basis: the residual of x = V y is that
                times the last element of y.
            counts: [B].
        """
        is_asked = _is_asked(counts) & (counts > 0)

        def look() -> tf.Tensor:
            filled = tf.reduce_max(counts)
            some = projected[:, :filled, :filled]
            # As in `extremes`; by their bounds, since large numbers would overflow.
            bounds = tf.reduce_max(tf.reduce_sum(tf.abs(some), axis=2), axis=1)
            is_number = tf.math.is_finite(bounds) & (bounds > 0)
            bounds = tf.where(is_number, bounds, 1.0)
            is_empty = tf.cast(tf.range(filled) >= counts[:, None], some.dtype)
            scaled = some / bounds[:, None, None] - tf.linalg.diag(4.0 * is_empty)
            values, vectors = tf.linalg.eigh(tf.where(is_number[:, None, None], scaled, 0.0))
            first, last = filled - tf.maximum(counts, 1), tf.fill(tf.shape(counts), filled - 1)
            lowest = tf.gather(values, first, axis=1, batch_dims=1)
            place = self._place(first, last, lowest, values[:, -1], tf.where)
            lasts = tf.gather(vectors, tf.maximum(counts, 1) - 1, axis=1, batch_dims=1)
            residuals = (left / bounds)[:, None] * tf.abs(lasts)
            value = tf.gather(values, place, axis=1, batch_dims=1)
            bound = tf.gather(residuals, place, axis=1, batch_dims=1)
            if self.config.stop == "gap":
                beside = _beside(place, first, last, tf.where)
                other, off = (tf.gather(array, beside, axis=1, batch_dims=1) for array in (values, residuals))
                gap = tf.cast(beside != place, value.dtype) * (tf.abs(value - other) - off)
                share = tf.clip_by_value(tf.math.divide_no_nan(bound, gap), 1 / _MOST_REFINED, 1.0)
                bound *= tf.where(gap > 0, share, 1.0)
            return is_number & (bound <= self.config.tolerance * tf.abs(value))

        return is_asked & tf.cond(tf.reduce_any(is_asked), look, lambda: tf.zeros_like(is_asked))

    def empty(self, num: int) -> list[np.ndarray]:
        """Next vectors, V, A V, counts, scales, whether it can grow no more and was within; `num` empty spaces."""
        dtype = self._dtype.as_numpy_dtype
        shapes = [(num, self._size), *[(num, self._capacity, self._size)] * 2]
        rest = (np.int32, dtype, bool, bool)
        return [*(np.zeros(shape, dtype) for shape in shapes), *(np.zeros(num, one) for one in rest)]

    @property
    def size(self) -> int:
        """Length n of vectors."""
        return self._size

    @property
    def capacity(self) -> int:
        """Vectors of a space at most."""
        return self._capacity

    def advance(
        self, inputs: np.ndarray, labels: np.ndarray, is_active: np.ndarray, state: list[np.ndarray]
    ) -> list[np.ndarray]:
        """The state some products later, until it is time to look at it; those that are not active do not count."""
        rows = tuple(tf.constant(array) for array in (inputs, is_active, *state))
        return [t.numpy() for t in self._advance(rows, tf.constant(labels), tf.constant(self._num_between))]

    def extremes(self, state: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values, residuals, bounds) [B] of a state, in float64 on the host, which every machine has."""
        counts = state[3]
        filled = max(int(counts.max()), 1)
        basis, images = (array[:, :filled].astype(np.float64) for array in state[1:3])
        projected = basis @ images.transpose(0, 2, 1)
        projected = (projected + projected.transpose(0, 2, 1)) / 2
        is_finite = np.isfinite(projected).all(axis=(1, 2))
        projected[~is_finite] = 0.0
        # Rows that are not filled yet get eigenvalues below all others, so that theirs come first.
        bounds = np.abs(projected).sum(axis=2).max(axis=1)
        empty = np.arange(filled) >= counts[:, None]
        projected[:, range(filled), range(filled)] -= 4.0 * empty * np.where(bounds > 0, bounds, 1.0)[:, None]
        values, vectors = np.linalg.eigh(projected)
        rows = np.arange(len(counts))
        first, last = filled - np.maximum(counts, 1), np.full(len(counts), filled - 1)
        place = self._place(first, last, values[rows, first], values[:, -1], np.where)
        value, residual = _rayleigh(basis, images, vectors[rows, :, place])
        value = np.where(is_finite, value, np.nan)
        if self.config.stop == "residual":
            return value, residual, residual
        beside = _beside(place, first, last, np.where)
        other, off = _rayleigh(basis, images, vectors[rows, :, beside])
        gap = np.where(beside == place, 0.0, np.abs(value - other) - off)
        share = np.divide(residual, gap, out=np.ones_like(gap), where=gap > residual)
        return value, residual, residual * np.maximum(share, 1 / _MOST_REFINED)

    def _place(self, first: Any, last: Any, lowest: Any, highest: Any, where: Callable[..., Any]) -> Any:
        """[B], which of ascending eigenvalues is wanted: the first that is no empty row's, or the last."""
        if self._which == "modulus":
            return where(-lowest > highest, first, last)
        return last if self._which == "largest" else first


class _Slots:
    """The examples that are worked on at the moment; a slot whose example is done takes the next one."""

    def __init__(self, solver: Solver, inputs: Any, labels: np.ndarray, ids: np.ndarray, size: int) -> None:
        self._solver, self._source = solver, (inputs, np.asarray(labels), np.asarray(ids))
        self._next = min(size, len(labels))
        # Slots beyond the last example work on it too, for nobody.
        filled = np.minimum(np.arange(size), len(labels) - 1)
        self._owner = np.where(np.arange(size) < len(labels), np.arange(size), -1)
        self._inputs, self._labels = np.array(inputs[filled]), np.array(labels[filled])
        self._state = solver.empty(size)
        self._start(np.arange(self._next))

    def any_active(self) -> bool:
        """Whether an example is not done."""
        return bool((self._owner >= 0).any())

    def advance(self) -> None:
        """Some products for every slot."""
        self._state = self._solver.advance(self._inputs, self._labels, self._owner >= 0, self._state)

    def harvest(self, found: list[np.ndarray]) -> None:
        """Notes the examples that are done and fills their slots."""
        values, residuals, bounds = self._solver.extremes(self._state)
        counts, config = self._state[3], self._solver.config
        exhausted = self._state[5] | (counts == self._solver.size)
        converged = bounds <= config.tolerance * np.abs(values)
        # Not at counts at which it would not be looked at alone: values do not depend on the others of the batch.
        is_looked_at = self._state[6] if self._solver.looks_at_all else True
        done = (self._owner >= 0) & ((converged & is_looked_at) | exhausted | (counts == self._solver.capacity))
        rows = np.flatnonzero(done)
        for array, part in zip(found, (values, residuals, bounds, counts, converged, exhausted), strict=True):
            array[self._owner[rows]] = part[rows]
        fresh = np.arange(self._next, min(self._next + len(rows), len(self._source[1])))
        self._next += len(fresh)
        self._owner[rows] = -1
        filled = rows[: len(fresh)]
        if len(filled):
            self._owner[filled] = fresh
            self._inputs[filled], self._labels[filled] = self._source[0][fresh], self._source[1][fresh]
            self._start(filled)

    def _start(self, slots: np.ndarray) -> None:
        for array in self._state:
            array[slots] = 0
        self._state[0][slots] = self._solver.starts(self._source[2][self._owner[slots]])


def _is_asked(counts: Any) -> Any:
    """[B], whether to look at residuals after so many products: large spaces are seldom looked at."""
    return counts % (1 + counts // 32) == 0


def _beside(place: Any, first: Any, last: Any, where: Callable[..., Any]) -> Any:
    """[B], the eigenvalue next to that at `place`, which is the first or the last; itself where there is one."""
    return where(first == last, place, where(place == last, last - 1, first + 1))


def _rayleigh(basis: np.ndarray, images: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x . A x / x . x, |A x - that x| / |x|) [B] of x = V y, from V and A V [B, k, n] and y [B, k]."""
    x, image = (np.einsum("bk,bkn->bn", weights, array) for array in (basis, images))
    squared = np.square(x).sum(axis=1)
    squared = np.where(squared > 0, squared, 1.0)
    value = (x * image).sum(axis=1) / squared
    return value, np.linalg.norm(image - value[:, None] * x, axis=1) / np.sqrt(squared)


def _inner(basis: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(basis, vectors)


def _combine(weights: tf.Tensor, basis: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(basis, weights, transpose_a=True)


def _with_row(projected: tf.Tensor, place: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Symmetric [B, k, k] with a further row and column [B, k] where `place` [B, k] is 1."""
    corner = tf.reduce_sum(place * row, axis=1)[:, None, None]
    here, there = place[:, :, None], place[:, None, :]
    return projected + here * row[:, None, :] + there * row[:, :, None] - here * there * corner


def _lengths(vectors: tf.Tensor) -> tf.Tensor:
    """[B], by the largest element, so that squares of tiny numbers are not lost."""
    largest = tf.reduce_max(tf.abs(vectors), axis=1)
    scaled = tf.math.divide_no_nan(vectors, largest[:, None])
    return largest * tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=1))


def _over(vectors: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(vectors, lengths[:, None])

"""What every estimator of attribution returns: scores [num_train, num_test] with their labels, sign and unit.

There is one sign. A score is the predicted measured output of test example t with training example i among the
training examples, minus without it:

    score[i, t] ~ m_t(trained on all) - m_t(trained on all but i)

A measured output of which more is better (margin, logit, probability) has helpful examples positive; a loss has them
negative. `helpfulness` turns either so that positive helps: for influence functions on the loss it is the effect of
removal R(t, i) = +(1/n) g_i^T H^-1 g_t, the rise of the loss of t when i is left out. Sums of scores over a subset
predict the output of a model trained on it up to a constant, whichever was measured.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from estimators import errors

# Rows that are looked at together while a matrix is streamed: 64 MB of float32 for 4000 test examples.
_ROWS = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Training examples of extreme scores for every test example.

    Attributes:
        positions: [k, num_test] int64, rows of the matrix, the most extreme first; equal scores by position.
        ids: [k, num_test] int64, what these training examples are called.
        values: [k, num_test], their scores.
    """

    positions: np.ndarray
    ids: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of training examples for test examples.

    Attributes:
        values: [num_train, num_test] floats, an array or a memory map; NaN where a score is not defined.
        train_ids: [num_train] int64.
        test_ids: [num_test] int64.
        method: name of the estimator.
        quantity: what a positive number means, in words.
        unit: of what the scores are.
        lower_is_better: whether the measured output is a loss, so that examples with negative scores help.
        config: what the scores depend on, as JSON could hold it.
        residuals: [num_test] float64, |(C + damping I) x - v| / |v| of the linear system behind each column; NaN where
            it was not checked. None for estimators that solve none.
        converged: [num_test] bool, whether it was solved as asked. None likewise.

    Raises:
        MismatchError: the shapes do not belong together.
        InvalidArgumentError: values are no floats.
    """

    values: np.ndarray
    train_ids: np.ndarray
    test_ids: np.ndarray
    method: str
    quantity: str
    unit: str
    lower_is_better: bool
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    residuals: np.ndarray | None = None
    converged: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not np.issubdtype(self.values.dtype, np.floating):
            raise errors.InvalidArgumentError(
                f"scores of dtype {self.values.dtype} and shape {self.values.shape}: expected floats "
                "[num_train, num_test]"
            )
        num_train, num_test = self.values.shape
        for name, size in (("train_ids", num_train), ("test_ids", num_test)):
            ids = np.asarray(getattr(self, name))
            if ids.shape != (size,) or not np.issubdtype(ids.dtype, np.integer):
                raise errors.MismatchError(
                    f"{name} of dtype {ids.dtype} and shape {ids.shape} beside scores {self.values.shape}; expected "
                    f"{size} integers"
                )
            object.__setattr__(self, name, ids.astype(np.int64))
        for name in ("residuals", "converged"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != (num_test,):
                raise errors.MismatchError(
                    f"{name} of shape {np.shape(array)} beside {num_test} test examples; expected one for each"
                )

    @property
    def num_train(self) -> int:
        """Training examples that have scores."""
        return int(self.values.shape[0])

    @property
    def num_test(self) -> int:
        """Test examples."""
        return int(self.values.shape[1])

    @property
    def num_undefined(self) -> int:
        """How many scores are NaN."""
        return sum(int(np.isnan(self.values[k : k + _ROWS]).sum()) for k in range(0, self.num_train, _ROWS))

    def test_column(self, test_id: int) -> int:
        """Column of a test example.

        Raises:
            InvalidArgumentError: no test example is called so.
        """
        return _position(self.test_ids, test_id, "test_id")

    def train_row(self, train_id: int) -> int:
        """Row of a training example.

        Raises:
            InvalidArgumentError: no training example is called so.
        """
        return _position(self.train_ids, train_id, "train_id")

    def helpfulness(self, column: int) -> np.ndarray:
        """[num_train], the scores of one column turned so that positive helps.

        For a loss this is its rise when the training example is removed; for another output its fall.
        """
        return -np.asarray(self.values[:, column]) if self.lower_is_better else np.array(self.values[:, column])

    def helpful(self, column: int) -> np.ndarray:
        """[num_train] positions of all training examples, the most helpful for a test example first, NaN last."""
        return np.argsort(-self.helpfulness(column), kind="stable")

    def harmful(self, column: int) -> np.ndarray:
        """[num_train] positions of all training examples, the most harmful for a test example first, NaN last."""
        return np.argsort(self.helpfulness(column), kind="stable")

    def top_k(self, k: int, *, largest: bool = True, rows: int = _ROWS) -> Ranking:
        """The k largest or smallest scores of every test example, the matrix being read once in blocks of rows.

        Args:
            k: how many; at most num_train.
            largest: or smallest.
            rows: of a block; bounds the memory, some 24 (rows + k) num_test bytes, and changes nothing else.

        Returns:
            The ranking. Scores that are NaN come last and have position and id -1 where there are not k others.

        Raises:
            InvalidArgumentError: k or rows is not from 1 up to what there is.
        """
        if not 1 <= k <= self.num_train or rows < 1:
            raise errors.InvalidArgumentError(
                f"k {k}, rows {rows}: expected k from 1 to the {self.num_train} training examples, and at least one row"
            )
        sign = -1.0 if largest else 1.0
        best = np.full((k, self.num_test), np.nan, self.values.dtype)
        where = np.full((k, self.num_test), -1, np.int64)
        for start in range(0, self.num_train, rows):
            block = np.asarray(self.values[start : start + rows])
            numbers = np.broadcast_to(np.arange(start, start + len(block))[:, None], block.shape)
            values = np.concatenate([best, block])
            positions = np.where(np.isnan(values), -1, np.concatenate([where, numbers]))
            # Earlier rows come first and the sort is stable; NaN sorts to the end.
            order = np.argsort(sign * values, axis=0, kind="stable")[:k]
            best, where = (np.take_along_axis(array, order, axis=0) for array in (values, positions))
        return Ranking(where, np.where(where < 0, -1, self.train_ids[where]), best)


def _position(ids: np.ndarray, wanted: int, name: str) -> int:
    found = np.flatnonzero(ids == wanted)
    if found.size == 0:
        raise errors.InvalidArgumentError(
            f"{name} {wanted}: the scores are of {len(ids)} examples with ids from {ids.min()} to {ids.max()}, and it "
            "is not among them"
        )
    return int(found[0])


def output_array(out: np.ndarray | None, num_train: int, num_test: int, dtype: Any) -> np.ndarray:
    """An array that scores are written into: `out`, or a new one.

    Raises:
        MismatchError: `out` has another shape, or cannot be written or hold floats.
    """
    if out is None:
        return np.empty((num_train, num_test), dtype)
    if out.shape != (num_train, num_test) or not np.issubdtype(out.dtype, np.floating) or not out.flags.writeable:
        raise errors.MismatchError(
            f"out of dtype {out.dtype} and shape {out.shape} (writeable: {out.flags.writeable}): expected a writeable "
            f"array of floats {(num_train, num_test)}"
        )
    return out

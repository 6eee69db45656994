"""In which order training examples are dropped: by a score, by one that is made again on the way, or by chance.

top                 the highest scores first; of equal scores the example at the lower position
bottom              the other way round
random              by the seed of each training
iterative_top       the highest first; after each part of all examples those that are left are scored again, as if
                    the others had never been there
iterative_bottom    the lowest first, likewise

However many examples are dropped, they are the first ones of the order.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from heldout import subsets
from heldout.experiments import subset_rankings
from zoo import errors

TOP, BOTTOM, RANDOM, ITERATIVE_TOP, ITERATIVE_BOTTOM = WAYS = (
    *("top", "bottom", "random"),
    *("iterative_top", "iterative_bottom"),
)
ITERATIVE = (ITERATIVE_TOP, ITERATIVE_BOTTOM)
_KINDS = {
    **dict.fromkeys((TOP, ITERATIVE_TOP), subset_rankings.HIGHEST),
    **dict.fromkeys((BOTTOM, ITERATIVE_BOTTOM), subset_rankings.LOWEST),
}
# Given places of the examples that are left, ascending, their scores.
Score = Callable[[np.ndarray], np.ndarray]


def by_score(train_index: np.ndarray, score: np.ndarray, way: str) -> np.ndarray:
    """All examples, the first to be dropped first: int64 [n] positions in the training split.

    Args:
        train_index: int64 [n], ascending positions.
        score: float64 [n], finite.
        way: one of `WAYS`, but not "random".

    Raises:
        InvalidValueError: an example has no score.
    """
    if not np.isfinite(score).all():
        raise errors.InvalidValueError(
            f"{np.sum(~np.isfinite(score))} of the {len(score)} training examples have no score; score all that are "
            "drawn (train_index of full_run.npz)"
        )
    return subset_rankings.SubsetRanking(train_index, score.astype(np.float64)).order(_KINDS[way])


def by_chance(train_index: np.ndarray, seed: int) -> np.ndarray:
    """The same in an order that a seed gives."""
    return train_index[subsets.permutation(subsets.seed(("summarize_dataset", 0.5, seed), "random"), len(train_index))]


def rescored(
    train_index: np.ndarray, score: Score, way: str, share: float, done: Sequence[int] = ()
) -> Iterator[np.ndarray]:
    """The parts of an order in which the examples that are left are scored again before each part.

    Args:
        train_index: int64 [n], ascending positions.
        score: scores those that are left.
        way: one of `ITERATIVE`.
        share: of all n examples in a part, at least one example; the last part has what is left when that is less
            than two parts.
        done: positions of the parts that are known, in order: the iteration goes on behind them.

    Yields:
        Positions of each part, the first to be dropped first.

    Raises:
        InvalidValueError: a score is not finite.
    """
    size = part_size(len(train_index), share)
    left = ~np.isin(train_index, done)
    while left.any():
        places = np.flatnonzero(left)
        # An example that is left alone cannot be scored by leaving it out, and has its place without.
        order = by_score(train_index[places], score(places), way) if len(places) > 1 else train_index[places]
        part = order if len(order) < 2 * size else order[:size]
        left &= ~np.isin(train_index, part)
        yield part


def part_size(num_train: int, share: float) -> int:
    """How many examples are dropped between two scorings."""
    return max(1, round(share * num_train))


def fitting(ratios: Sequence[float], num_train: int) -> list[float]:
    """Those of some ratios that `counts` takes together: the first that drops each number of examples."""
    found = {round(ratio * num_train): ratio for ratio in reversed(ratios) if round(ratio * num_train) < num_train}
    return [found[count] for count in sorted(found)]


def counts(ratios: Sequence[float], num_train: int, asked: str | None = None) -> tuple[int, ...]:
    """How many examples each ratio drops.

    Args:
        ratios: shares.
        num_train: examples that there are.
        asked: flag and value, for messages; None for --ratios with these.

    Raises:
        InvalidValueError: a ratio lies outside [0, 1), leaves no example, or drops as many as another.
    """
    found = [round(ratio * num_train) for ratio in ratios]
    wrong = [ratio for ratio, count in zip(ratios, found, strict=True) if not 0 <= ratio < 1 or count >= num_train]
    if wrong or not found or len(set(found)) < len(found):
        flag = asked or f"--ratios={','.join(f'{ratio:g}' for ratio in ratios)}"
        raise errors.InvalidValueError(
            f"{flag}: expected shares of the {num_train} examples from 0 to below 1, which leave at least one "
            "example and each drop another number of them"
        )
    return tuple(sorted(found))

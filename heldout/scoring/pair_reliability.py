"""Whether subset influence that some runs show is found again by others: of pairs at random, and of the strongest.

Almost all pairs have next to no influence, so the correlation over random pairs (`influence_of_pairs` as the score of
`reliability.split_half`) is small even where the strong ones are certain. Of the strongest pairs a correlation would
say little, as they all lie at one end, and what was chosen for its value is too large on average: its noise was
chosen with it. So the pairs are chosen by one half of the runs, and measured by the other, whose noise is independent:

    found again = mean influence in the other half / mean influence in the half that chose

which is 1 where values are exact, and 0 where the strongest are noise.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from heldout.scoring import joint_counts, reliability, run_words, scores
from zoo import run_table

# Pairs whose words are joined at a time.
_BLOCK = 1 << 14


@dataclasses.dataclass(frozen=True)
class Strongest:
    """The strongest pairs of one set of runs, measured by another.

    Attributes:
        num_runs: int64 [S], runs in each of the two sets, ascending.
        chosen: float64 [S, D], mean subset influence of the pairs in the half that chose them, in each of D draws; NaN
            where it found no pair.
        again: float64 [S, D], mean of the same pairs in the other half.
        num_pairs: int64 [S, D], how many pairs.
    """

    num_runs: np.ndarray
    chosen: np.ndarray
    again: np.ndarray
    num_pairs: np.ndarray

    @property
    def found_again(self) -> np.ndarray:
        """float64 [S, D], `again` / `chosen`: at most about 1, and negative only by chance; NaN without a pair."""
        return self.again / self.chosen


def influence_of_pairs(runs: run_table.RunTable, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
    """Subset influence of chosen pairs, without the rest of the matrix.

    Args:
        runs: T runs of one ratio on N training and M test examples.
        train_index: integers [P].
        test_index: integers [P].

    Returns:
        float64 [P] in [-1, 1], positive helps; NaN where a side has no run. Cost: (N + M + P) T / 64 words.
    """
    train_words = run_words.of_examples(runs.subset_mask_bits, 0, runs.num_train)
    test_words = run_words.of_examples(runs.test_correctness_bits, 0, runs.num_test)
    common = np.empty(len(train_index), np.int64)
    for start in range(0, len(common), _BLOCK):
        chosen = slice(start, start + _BLOCK)
        joined = train_words[train_index[chosen]] & test_words[test_index[chosen]]
        common[chosen] = np.bitwise_count(joined).sum(axis=1, dtype=np.int64)
    num_in, num_right = (np.bitwise_count(words).sum(axis=1, dtype=np.int64) for words in (train_words, test_words))
    return _values(common, num_in[train_index], num_right[test_index], runs.num_runs)


def strongest_found_again(
    table: run_table.RunTable,
    num_runs: Sequence[int] | None = None,
    num_draws: int = 5,
    seed: int = 0,
    *,
    num_pairs: int = 200,
    num_candidates: int = 256,
    max_tests: int = 4096,
) -> Strongest:
    """Chooses the strongest helpful pairs by one half of the runs, and measures them by the other.

    They are looked for among the training examples that the choosing half has memorized most: what helps a single test
    example is memorized itself (Feldman & Zhang 2020, section 2).

    Args:
        table: runs of one ratio.
        num_runs: runs in a half; None for 1, 2, 4, ... and the most there can be.
        num_draws: D, random ways to halve the runs.
        seed: of the draws.
        num_pairs: at most so many pairs; fewer where fewer have a positive influence.
        num_candidates: at most so many training examples.
        max_tests: only the first so many test examples.

    Raises:
        InvalidValueError: there are too few runs for two such halves.

    Cost: num_candidates max_tests T / 64 population counts and 16 num_candidates max_tests bytes.
    """
    sizes = reliability.half_sizes(table, num_runs)
    found = [
        [_chosen_and_again(*pair, num_pairs, num_candidates, max_tests) for pair in draw]
        for draw in reliability.halves(table, sizes, num_draws, seed)
    ]
    values = np.array(found).transpose(2, 1, 0)
    return Strongest(np.array(sizes, np.int64), values[0], values[1], values[2].astype(np.int64))


def _chosen_and_again(
    first: run_table.RunTable, second: run_table.RunTable, num_pairs: int, num_candidates: int, max_tests: int
) -> tuple[float, float, int]:
    train_index, test_index, chosen = _strongest(first, num_pairs, num_candidates, max_tests)
    again = influence_of_pairs(second, train_index, test_index)
    both = np.isfinite(again)
    if not both.any():
        return float("nan"), float("nan"), 0
    return float(chosen[both].mean()), float(again[both].mean()), int(both.sum())


def _strongest(
    runs: run_table.RunTable, num_pairs: int, num_candidates: int, max_tests: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train index, test index and influence of the pairs with the largest influence above 0."""
    counts = scores.count_sides_of(runs)
    memorized = np.nan_to_num(counts.accuracy_in - counts.accuracy_heldout, nan=-2.0)
    candidates = np.argsort(-memorized, kind="stable")[:num_candidates]
    words = run_words.of_examples(runs.subset_mask_bits, 0, runs.num_train)[candidates]
    num_test = min(runs.num_test, max_tests)
    test_words = run_words.of_examples(runs.test_correctness_bits, 0, num_test)
    common = np.empty((len(candidates), num_test), np.float32)
    joint_counts.WordCounter(runs.subset_mask_bits, test_words).count_rows(words, common)
    num_right = np.bitwise_count(test_words).sum(axis=1, dtype=np.int64)
    values = _values(common, counts.num_in[candidates, None], num_right, runs.num_runs).ravel()
    # NaN comes last.
    best = np.argpartition(-values, min(num_pairs, values.size - 1))[:num_pairs]
    best = best[values[best] > 0]
    return candidates[best // num_test], best % num_test, values[best]


def _values(common: np.ndarray, num_in: np.ndarray, num_right: np.ndarray, num_runs: int) -> np.ndarray:
    """Subset influence from runs that trained and are right, that trained, that are right, and all."""
    return scores.rate(common, num_in) - scores.rate(num_right - common, num_runs - num_in)

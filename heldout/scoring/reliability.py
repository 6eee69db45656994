"""How well scores from so many runs would be found again from as many others: split-half reliability.

Two disjoint random halves of the runs, of n runs a ratio each, give two scores of every example; their correlation over
examples is the reliability of a score from n runs. That of other numbers of runs follows from it by the formula of
Spearman (1910) and Brown (1910), r_m = k r_n / (1 + (k - 1) r_n) with k = m / n, if runs are interchangeable and scores
are means over them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from zoo import errors, files, run_table

# With fewer runs behind a score, one odd run decides what is predicted from it.
_LEAST_RUNS = 4
# Runs whose bits are counted at a time.
_ROWS = 64
# Scores of every example, float64 [N], NaN where there is none, from a table of runs.
Score = Callable[[run_table.RunTable], np.ndarray]
Halves = tuple[run_table.RunTable, run_table.RunTable]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Agreement of scores from disjoint sets of runs.

    Attributes:
        num_runs: int64 [S], runs of each ratio behind each of the two scores, ascending.
        pearson: float64 [S, D], linear correlation over examples in each of D draws.
        spearman: float64 [S, D], correlation of ranks; ties have their mean rank.
        num_examples: int64 [S, D], how many examples had both scores.
        num_ratios: subset ratios of which each score has that many runs.
    """

    num_runs: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray
    num_examples: np.ndarray
    num_ratios: int

    def spread(self, row: int) -> float:
        """Standard error of the linear correlation of one draw: over draws, and over examples around no correlation."""
        return float(np.sqrt(self.pearson[row].var() + 1 / max(1.0, self.num_examples[row].mean())))

    def is_telling(self, row: int) -> bool:
        """Whether what is predicted from this number of runs means anything: enough of them, and a mean above noise."""
        enough = self.num_runs[row] * self.num_ratios >= _LEAST_RUNS
        return bool(enough and self.pearson[row].mean() > 2 * self.spread(row))  # NaN is not


def too_few_runs(subset_ratios: np.ndarray, num_runs: np.ndarray) -> str:
    """Which ratios have too few runs for two halves, as a sentence; "" where all have two.

    Args:
        subset_ratios: [K].
        num_runs: of each, [K].
    """
    pairs = zip(subset_ratios, num_runs, strict=True)
    lacking = [f"ratio {ratio:g} has {files.count_text(int(runs), 'run')}" for ratio, runs in pairs if runs < 2]
    return f"{', '.join(lacking)}; the reliability of scores takes two of each ratio" if lacking else ""


def split_half(
    table: run_table.RunTable,
    score: Score,
    num_runs: Sequence[int] | None = None,
    num_draws: int = 5,
    seed: int = 0,
    *,
    ranks: bool = True,
) -> Reliability:
    """Reliability of a score for growing numbers of runs.

    Args:
        table: runs of one ratio or several.
        score: computed from each half.
        num_runs: runs of each ratio in a half; None for 1, 2, 4, ... and the most there can be.
        num_draws: D, random ways to halve the runs.
        seed: of the draws.
        ranks: whether `spearman` is computed, which sorts all scores; without it, it is NaN.

    Raises:
        InvalidValueError: a ratio has too few runs for two such halves.
    """
    sizes = half_sizes(table, num_runs)
    found = [
        [_agreement(*(score(half) for half in pair), ranks=ranks) for pair in draw]
        for draw in halves(table, sizes, num_draws, seed)
    ]
    values = np.array(found).transpose(2, 1, 0)
    num_examples = values[2].astype(np.int64)
    return Reliability(np.array(sizes, np.int64), values[0], values[1], num_examples, len(table.subset_ratios))


def half_sizes(table: run_table.RunTable, num_runs: Sequence[int] | None = None) -> list[int]:
    """Runs of each ratio in a half, ascending: those asked for, or 1, 2, 4, ... and the most there can be.

    Raises:
        InvalidValueError: a ratio has too few runs for two such halves.
    """
    counts = [len(rows) for rows in _rows_by_ratio(table)]
    if lacking := too_few_runs(np.array(table.subset_ratios), np.array(counts)):
        raise errors.InvalidValueError(f"{lacking}; train more runs")
    most = min(counts) // 2
    sizes = _doubling(most) if num_runs is None else sorted(num_runs)
    if not sizes or sizes[0] < 1 or sizes[-1] > most:
        raise errors.InvalidValueError(
            f"num_runs: got {sizes}, expected numbers from 1 to {most}, which is half of the runs of the ratio that "
            "has the fewest; train more runs"
        )
    return sizes


def halves(table: run_table.RunTable, sizes: Sequence[int], num_draws: int, seed: int) -> Iterator[Iterator[Halves]]:
    """Disjoint random sets of runs: for every draw, and in it for every size, two tables.

    Args:
        table: runs of one ratio or several.
        sizes: runs of each ratio in a table; see `half_sizes`.
        num_draws: random ways to halve the runs.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    for _ in range(num_draws):
        shuffled = [generator.permutation(rows) for rows in _rows_by_ratio(table)]
        yield (_two(table, shuffled, size) for size in sizes)


def _rows_by_ratio(table: run_table.RunTable) -> list[np.ndarray]:
    return [np.flatnonzero(table.subset_ratio == ratio) for ratio in table.subset_ratios]


def _two(table: run_table.RunTable, shuffled: Sequence[np.ndarray], size: int) -> Halves:
    first, second = (
        table.take(np.sort(np.concatenate([rows[half * size : (half + 1) * size] for rows in shuffled])))
        for half in range(2)
    )
    return first, second


def _doubling(most: int) -> list[int]:
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*sizes, most]


def _agreement(first: np.ndarray, second: np.ndarray, *, ranks: bool) -> tuple[float, float, int]:
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan"), len(first)
    ranked = np.corrcoef(_mean_ranks(first), _mean_ranks(second))[0, 1] if ranks else np.nan
    return float(np.corrcoef(first, second)[0, 1]), float(ranked), len(first)


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, ascending; equal values have the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def predicted(reliability: float, num_runs: int, other_num_runs: np.ndarray) -> np.ndarray:
    """Reliability of scores from other numbers of runs, by Spearman and Brown.

    Args:
        reliability: of scores from `num_runs` runs, in (0, 1).
        num_runs: n.
        other_num_runs: m, any shape.
    """
    factor = np.asarray(other_num_runs, np.float64) / num_runs
    return factor * reliability / (1 + (factor - 1) * reliability)


def runs_needed(reliability: float, num_runs: int, wanted: float) -> float:
    """Runs at which scores reach a reliability: `predicted` solved for m. Infinite where nothing is reliable.

    Args:
        reliability: of scores from `num_runs` runs, below 1.
        num_runs: n.
        wanted: in (0, 1).
    """
    if not reliability > 0:
        return float("inf")
    return num_runs * wanted * (1 - reliability) / (reliability * (1 - wanted))


def heldout_accuracy(runs: run_table.RunTable) -> np.ndarray:
    """Share of what each run held out that it is right on, float64 [T]."""
    out = np.empty(runs.num_runs)
    for start in range(0, runs.num_runs, _ROWS):
        rows = slice(start, start + _ROWS)
        mask, right = runs.subset_mask_bits[rows], runs.train_correctness_bits[rows]
        # Bits of padding are 0, in either matrix.
        num_in, num_right_heldout = (
            np.bitwise_count(bits).sum(axis=1, dtype=np.int64) for bits in (mask, right & ~mask)
        )
        out[rows] = num_right_heldout / (runs.num_train - num_in)
    return out


def standard_error_of_mean(values: np.ndarray) -> float:
    """Of the mean of some values, from their spread; NaN where there is only one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def to_json(found: Reliability) -> dict[str, Any]:
    """As JSON values, null for NaN: `runs_of_each_ratio`, `pearson`, `spearman`, `num_examples`."""
    return {
        "runs_of_each_ratio": found.num_runs.tolist(),
        "spearman": with_null(found.spearman),
        "pearson": with_null(found.pearson),
        "num_examples": found.num_examples.tolist(),
    }


def from_json(value: Mapping[str, Any], num_ratios: int) -> Reliability:
    """What `to_json` was given.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    num_runs = np.array(value["runs_of_each_ratio"], np.int64)
    matrices = [np.array(value[name], np.float64) for name in ("pearson", "spearman", "num_examples")]
    if num_runs.ndim != 1 or any(one.ndim != 2 or one.shape != (len(num_runs), one.shape[1]) for one in matrices):
        raise ValueError(f"reliability of {num_runs.shape} numbers of runs, {[one.shape for one in matrices]} values")
    return Reliability(num_runs, matrices[0], matrices[1], matrices[2].astype(np.int64), num_ratios)


def with_null(values: np.ndarray) -> Any:
    """As nested lists, null for NaN, which JSON has not."""
    known = values.astype(object)
    known[np.isnan(values)] = None
    return known.tolist()

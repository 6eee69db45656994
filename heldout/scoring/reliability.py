"""How well scores from so many runs would be found again from as many others: split-half reliability.

Two disjoint random halves of the runs, of n runs a ratio each, give two scores of every example; their correlation over
examples is the reliability of a score from n runs. That of other numbers of runs follows from it by the formula of
Spearman (1910) and Brown (1910), r_m = k r_n / (1 + (k - 1) r_n) with k = m / n, if runs are interchangeable and scores
are means over them.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from zoo import errors, files, run_table

# With fewer runs behind a score, one odd run decides what is predicted from it.
_LEAST_RUNS = 4
# Scores of every example, float64 [N], NaN where there is none, from a table of runs.
Score = Callable[[run_table.RunTable], np.ndarray]


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
) -> Reliability:
    """Reliability of a score for growing numbers of runs.

    Args:
        table: runs of one ratio or several.
        score: computed from each half.
        num_runs: runs of each ratio in a half; None for 1, 2, 4, ... and the most there can be.
        num_draws: D, random ways to halve the runs.
        seed: of the draws.

    Raises:
        InvalidValueError: a ratio has too few runs for two such halves.
    """
    rows_by_ratio = [np.flatnonzero(table.subset_ratio == ratio) for ratio in table.subset_ratios]
    if lacking := too_few_runs(np.array(table.subset_ratios), np.array([len(rows) for rows in rows_by_ratio])):
        raise errors.InvalidValueError(f"{lacking}; train more runs")
    most = min(len(rows) for rows in rows_by_ratio) // 2
    sizes = _doubling(most) if num_runs is None else sorted(num_runs)
    if not sizes or sizes[0] < 1 or sizes[-1] > most:
        raise errors.InvalidValueError(
            f"num_runs: got {sizes}, expected numbers from 1 to {most}, which is half of the runs of the ratio that "
            "has the fewest; train more runs"
        )
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(num_draws):
        shuffled = [generator.permutation(rows) for rows in rows_by_ratio]
        found.append([_agreement(table, score, shuffled, size) for size in sizes])
    values = np.array(found).transpose(2, 1, 0)
    return Reliability(np.array(sizes, np.int64), values[0], values[1], values[2].astype(np.int64), len(rows_by_ratio))


def _doubling(most: int) -> list[int]:
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*sizes, most]


def _agreement(
    table: run_table.RunTable, score: Score, shuffled: Sequence[np.ndarray], size: int
) -> tuple[float, float, int]:
    from scipy import stats  # half a second, which every program with a report would wait for

    halves = []
    for half in range(2):
        rows = np.concatenate([rows[half * size : (half + 1) * size] for rows in shuffled])
        halves.append(score(table.take(np.sort(rows))))
    both = np.isfinite(halves[0]) & np.isfinite(halves[1])
    first, second = halves[0][both], halves[1][both]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan"), len(first)
    ranked = np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1]
    return float(np.corrcoef(first, second)[0, 1]), float(ranked), len(first)


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

"""What programs say of trainings, alike while they go on and afterwards."""

import math

from heldout.training import failures, run_results
from heldout.watching import training_rate
from zoo import layout


def duration(seconds: float) -> str:
    """A time for people: "98 s", "12 min", "5.0 h", "3.1 days"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def rate(runs_per_hour: float) -> str:
    """A rate for people: "4100 runs/h", "0.52 runs/h"."""
    return f"{runs_per_hour:.0f} runs/h" if runs_per_hour >= 99.5 else f"{runs_per_hour:.2g} runs/h"


def failure(failed: failures.Failure) -> str:
    """A failed run, with the command that trains it again on a line of its own."""
    epoch = "" if failed.epoch is None else f" after epoch {failed.epoch}"
    where = f"{layout.ratio_name(failed.subset_ratio)}/{failed.run_id}"
    return f"failed{epoch}: {where}: {failed.reason}\n    again: {failed.retry}"


class Tally:
    """Counts what a training has done, and says it in a line.

    Args:
        num_runs: to train.
        num_epochs: of each.
    """

    def __init__(self, num_runs: int, num_epochs: int) -> None:
        self._num_runs = num_runs
        self._rate = training_rate.Rate(num_epochs)
        self._num_done = 0
        self._num_failed = 0
        self._ratio: float | None = None
        self._sums: dict[float, tuple[int, float, float]] = {}

    def run_epochs(self, count: int, moment: float | None = None) -> None:
        """`count` runs have finished one more epoch each."""
        self._rate.run_epochs(count, moment)

    def appeared(self) -> None:
        """A run has been completed by another program."""
        self._num_done += 1

    def result(self, result: run_results.RunResult) -> None:
        """A run has ended."""
        self._num_done += 1
        if result.failure is not None:
            self._num_failed += 1
            return
        self._ratio = result.run.subset_ratio
        count, accuracy_in, accuracy_heldout = self._sums.get(self._ratio, (0, 0.0, 0.0))
        sums = (count + 1, accuracy_in + result.accuracy_in, accuracy_heldout + result.accuracy_heldout)
        self._sums[self._ratio] = sums

    def text(self) -> str:
        """How far it is; accuracies are means over the runs of the ratio that ended last, so that none are pooled."""
        # Runs that fail end before their last epoch.
        done = min(float(self._num_runs), max(self._rate.runs, float(self._num_done)))
        parts = [f"runs {self._num_done}/{self._num_runs} ({100 * done / self._num_runs:.0f} % of epochs)"]
        runs_per_hour = self._rate.runs_per_hour()
        if runs_per_hour:
            parts.append(rate(runs_per_hour))
            if self._num_done < self._num_runs:
                parts.append(f"{duration((self._num_runs - done) / runs_per_hour * 3600)} left")
        if self._ratio is not None:
            count, accuracy_in, accuracy_heldout = self._sums[self._ratio]
            # A run on all examples holds none out.
            held_out = "none held out" if math.isnan(accuracy_heldout) else f"{accuracy_heldout / count:.3f} held out"
            means = f"{accuracy_in / count:.3f} in, {held_out}"
            parts.append(f"accuracy {means} at {layout.ratio_name(self._ratio)}")
        if self._num_failed:
            parts.append(f"{self._num_failed} failed")
        return ", ".join(parts)

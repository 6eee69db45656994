"""How fast a training goes: runs per hour over the last minutes."""

import collections
import time

_WINDOW_SECONDS = 600.0
# No more is remembered than the window needs.
_SECONDS_BETWEEN_POINTS = 5.0


class Rate:
    """Counts epochs of runs, which come more often than ends of runs.

    Args:
        num_epochs: of each run.
    """

    def __init__(self, num_epochs: int) -> None:
        self._num_epochs = num_epochs
        self._epochs = 0
        # When so many epochs were done; what was done before the first is start-up.
        self._points: collections.deque[tuple[float, int]] = collections.deque()

    @property
    def runs(self) -> float:
        """What has been trained so far, in whole runs and parts of them."""
        return self._epochs / self._num_epochs

    def run_epochs(self, count: int, moment: float | None = None) -> None:
        """Takes note of progress.

        Args:
            count: runs that have finished one more epoch each; below 0 for epochs that were lost.
            moment: when, in seconds of any clock that does not go back; None for now.
        """
        moment = time.monotonic() if moment is None else moment
        self._epochs += count
        if len(self._points) < 2 or moment - self._points[-2][0] >= _SECONDS_BETWEEN_POINTS:
            self._points.append((moment, self._epochs))
        self._points[-1] = (moment, self._epochs)
        while len(self._points) > 2 and self._points[0][0] < moment - _WINDOW_SECONDS:
            self._points.popleft()

    def runs_per_hour(self) -> float | None:
        """Over the last minutes; None before anything can be said."""
        if len(self._points) < 2 or self._points[-1][0] <= self._points[0][0]:
            return None
        (first, before), (last, after) = self._points[0], self._points[-1]
        return max(0.0, after - before) / self._num_epochs / (last - first) * 3600

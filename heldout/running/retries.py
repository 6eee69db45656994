"""Tasks whose worker was lost are handed out again, unless they lose one worker after the other."""

import collections
from typing import Any

from heldout.running import dispatch

# A kill may be an accident, and two; three of one task are not.
MOST_LOSSES = 3


class Retries:
    """What becomes of lost tasks; a `dispatch.Recover`. Its messages have a "note" for the user.

    Args:
        key: member of a task that tells it from others.
        what: such a task in words, before the value of its key, as "the tile of row".
    """

    def __init__(self, key: str, what: str) -> None:
        self._key, self._what = key, what
        self._losses: collections.Counter[Any] = collections.Counter()

    def __call__(self, loss: dispatch.Loss) -> dispatch.Recovery:
        """The task again.

        Raises:
            WorkerError: it has lost `MOST_LOSSES` workers.
        """
        value = loss.task[self._key]
        self._losses[value] += 1
        if self._losses[value] == MOST_LOSSES:
            raise dispatch.WorkerError(
                f"{self._what} {value} lost its worker {MOST_LOSSES} times: {loss.end.obituary()}"
            )
        return dispatch.Recovery([loss.task], {"note": f"{loss.end.cause}; {self._what} {value} will be done again"})

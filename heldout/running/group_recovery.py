"""What becomes of a group of runs whose worker was lost: nothing that is finished is trained again, no loss is final
before it has happened again.

Where memory may have been short, the rest of the group is handed out again in halves, down to single runs; otherwise,
as when a machine of a cluster goes away, as it is. Groups of a size that memory has not sufficed for twice are not
formed again. A run, or a group, that loses one worker after the other ends the training by name.
"""

import collections
from collections.abc import Iterable, Iterator
import math

from heldout.running import dispatch
from zoo import files, layout

# A single run that lost so many workers is at fault itself.
_MOST_LOSSES_ALONE = 2
# A kill may be an accident; two of groups of one size are not.
_MOST_LOSSES_OF_A_SIZE = 2
# Machines may go away for reasons of their own, but hardly so often in one place.
_MOST_LOSSES_OF_A_GROUP = 4


class GroupRecovery:
    """Recovers groups, tasks of {"subset_ratio", "run_ids"} that are answered with a "result" for each run.

    Its messages have a "note" for the user, and "run_epochs", negative: what was heard of epochs that are lost.
    """

    def __init__(self) -> None:
        self._losses: collections.Counter[tuple[float, tuple[int, ...]]] = collections.Counter()
        self._too_large: collections.Counter[int] = collections.Counter()

    def limit(self, size: int) -> int:
        """The size of the next group, where one of `size` runs would be handed out."""
        while size > 1 and self._too_large[size] >= _MOST_LOSSES_OF_A_SIZE:
            size = math.ceil(size / 2)
        return size

    def limited(self, tasks: Iterable[dispatch.Message]) -> Iterator[dispatch.Message]:
        """The tasks as they are handed out: in parts where groups of their size are too large by then."""
        for task in tasks:
            left = task["run_ids"]
            while left:
                size = self.limit(len(left))
                yield task | {"run_ids": left[:size]}
                left = left[size:]

    def __call__(self, loss: dispatch.Loss) -> dispatch.Recovery:
        """The tasks in place of a lost one.

        Raises:
            WorkerError: the same runs have lost as many workers as they may.
        """
        run_ids = unanswered(loss)
        if not run_ids:
            return dispatch.Recovery([], {"note": f"{loss.end.cause}; its runs were all done"})
        ratio = loss.task["subset_ratio"]
        key = (ratio, tuple(run_ids))
        self._losses[key] += 1
        self._too_large[len(run_ids)] += loss.end.memory
        alone = len(run_ids) == 1
        if self._losses[key] == (_MOST_LOSSES_ALONE if alone and loss.end.memory else _MOST_LOSSES_OF_A_GROUP):
            raise dispatch.WorkerError(_final(loss, key, self._losses[key]))
        size = math.ceil(len(run_ids) / 2) if loss.end.memory else len(run_ids)
        groups = [run_ids[first : first + size] for first in range(0, len(run_ids), size)]
        again = f"{files.count_text(len(run_ids), 'run')} at ratio {layout.ratio_name(ratio)}"
        again += " will be done again" + (f" in groups of {size}" if len(groups) > 1 else "")
        note = {"note": f"{loss.end.cause}; {again}", "run_epochs": -_lost_epochs(loss)}
        return dispatch.Recovery([loss.task | {"run_ids": group} for group in groups], note)


def unanswered(loss: dispatch.Loss) -> list[int]:
    """The runs of a group that came to no result before the loss, in their order."""
    answered = {message["result"]["run"][1] for message in loss.answers if "result" in message}
    answered.update(message["appeared"] for message in loss.answers if "appeared" in message)
    return [run_id for run_id in loss.task["run_ids"] if run_id not in answered]


def _lost_epochs(loss: dispatch.Loss) -> int:
    """Epochs of runs that were heard of since the last result."""
    lost = 0
    for message in loss.answers:
        lost = 0 if "result" in message else lost + message.get("run_epochs", 0)
    return lost


def _final(loss: dispatch.Loss, key: tuple[float, tuple[int, ...]], count: int) -> str:
    ratio, run_ids = key
    names = ", ".join(f"{layout.ratio_name(ratio)}/{run_id}" for run_id in run_ids)
    noun = "the run" if len(run_ids) == 1 else "the group of runs"
    return f"{noun} {names} lost its worker {count} times: {loss.end.obituary()}"

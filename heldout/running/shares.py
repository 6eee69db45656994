"""The part of a list of runs that one of several machines takes, when each is started with the same command.

Runs are independent, so machines that share a zoo need not talk: each takes every n-th run of those asked for, and
what is complete is skipped. Which part is a machine's own is said by a flag, or by the variable TF_CONFIG that
schedulers of TensorFlow jobs set on each machine:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 1}}
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import re
from typing import Any, TypeVar

from zoo import errors

VARIABLE = "TF_CONFIG"
# In the order in which TensorFlow numbers the tasks of a cluster; others train nothing.
_TASKS = ("chief", "worker")
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 1}}'
_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Share:
    """One of several equal parts.

    Attributes:
        index: which, from 0.
        count: of how many.
    """

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[_Item]) -> list[_Item]:
        """Every `count`-th item, beginning with the `index`-th: parts differ by one item at most."""
        return list(items[self.index :: self.count])


def parse(text: str) -> Share:
    """The share "1/4", the first of four.

    Raises:
        InvalidValueError: not of this form, or there is no such part.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise errors.InvalidValueError(f"--share={text}: expected 1/4, the first of four parts, to 4/4, the last")
    return Share(int(match[1]) - 1, int(match[2]))


def from_environment(environment: Mapping[str, str]) -> Share:
    """The share of this machine, as TF_CONFIG says.

    Raises:
        InvalidValueError: the variable is not set, cannot be read, or names a task that trains nothing.
    """
    if not environment.get(VARIABLE):
        raise errors.InvalidValueError(
            f"--strategy=multi_worker: {VARIABLE} is not set; a scheduler sets it on each machine, or set it to text "
            f"like {_EXAMPLE}, or use --share"
        )
    try:
        value = json.loads(environment[VARIABLE])
        machines = {kind: len(value["cluster"].get(kind, [])) for kind in _TASKS}
        kind, index = value["task"]["type"], value["task"]["index"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _wrong(environment, f"cannot be read ({type(error).__name__}: {error})") from error
    if kind not in _TASKS:
        raise _wrong(environment, f"task {kind!r} trains nothing; start the program on {' and '.join(_TASKS)} only")
    if not _is_index(index) or not 0 <= index < machines[kind]:
        raise _wrong(environment, f"there is no task {kind} {index!r} in the cluster")
    before = machines["chief"] if kind == "worker" else 0
    return Share(before + index, sum(machines.values()))


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(environment: Mapping[str, str], what: str) -> errors.InvalidValueError:
    return errors.InvalidValueError(f"{VARIABLE}={environment[VARIABLE][:300]}: {what}; expected text like {_EXAMPLE}")

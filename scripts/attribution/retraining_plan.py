"""Which trainings `train_on_most_influential` compares: what is selected, how much of it, and under which seeds.

Of a pool of n ranked examples, k are selected: the k of the highest values ("top"), of the lowest ("bottom"), of the
largest absolute values ("extreme"), or any k ("random"). They are dropped, or they alone are kept; "none" is the
reference that is trained on the whole pool. Every selection is a kind of run of `subset_rankings`.
"""

from collections.abc import Sequence
import dataclasses
import re

from heldout.experiments import subset_rankings
from zoo import errors

TOP, BOTTOM, EXTREME = WHICH = ("top", "bottom", "extreme")
RANDOM, NONE = "random", "none"
DROP, KEEP = ACTIONS = ("drop", "keep")
# What is trained on, by what is done to which examples.
_KINDS = {
    (DROP, TOP): subset_rankings.LOWEST,
    (DROP, BOTTOM): subset_rankings.HIGHEST,
    (DROP, EXTREME): subset_rankings.SMALLEST,
    (KEEP, TOP): subset_rankings.HIGHEST,
    (KEEP, BOTTOM): subset_rankings.LOWEST,
    (KEEP, EXTREME): subset_rankings.LARGEST,
    (DROP, RANDOM): subset_rankings.RANDOM,
    (KEEP, RANDOM): subset_rankings.RANDOM,
}
_COUNT = re.compile(r"[0-9]{1,15}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        action: "drop" or "keep".
        which: of `WHICH`, each at most once; random selections are always made beside them.
        counts: numbers k of selected examples, ascending.
        num_seeds: trainings of each selection, with seeds 0, 1, ...
        pool_size: n.
        num_train: the number N of all training examples.
    """

    action: str
    which: tuple[str, ...]
    counts: tuple[int, ...]
    num_seeds: int
    pool_size: int
    num_train: int

    @property
    def ratios(self) -> tuple[float, ...]:
        """Subset ratios of the selections, without that of the reference."""
        return tuple(self.ratio(count) for count in self.counts)

    @property
    def reference_ratio(self) -> float:
        """Subset ratio of the whole pool."""
        return subset_rankings.ratio_of(self.pool_size, self.num_train)

    def ratio(self, count: int) -> float:
        """Subset ratio of the runs with so many selected examples."""
        size = count if self.action == KEEP else self.pool_size - count
        return subset_rankings.ratio_of(size, self.num_train)

    @property
    def run_ids(self) -> tuple[int, ...]:
        """Ids of the runs at each of `ratios`."""
        kinds = [_KINDS[self.action, which] for which in (*self.which, RANDOM)]
        return tuple(sorted(subset_rankings.run_id(kind, i) for kind in kinds for i in range(self.num_seeds)))

    @property
    def reference_run_ids(self) -> tuple[int, ...]:
        """Ids of the runs on the whole pool: of a random choice of all of it."""
        return tuple(subset_rankings.run_id(subset_rankings.RANDOM, i) for i in range(self.num_seeds))

    @property
    def num_runs(self) -> int:
        """All of them."""
        return len(self.run_ids) * len(self.counts) + self.num_seeds


def selection(action: str, pool_size: int, run_id: int, num_kept: int) -> tuple[str, int] | None:
    """What a run of an experiment is to the comparison.

    Args:
        action: "drop" or "keep".
        pool_size: n.
        run_id: of the run.
        num_kept: m, the examples that it was trained on.

    Returns:
        One of `WHICH`, "random" or "none", and the number k of selected examples: 0 for "none", whatever the action.
        None for a run of another comparison.
    """
    kind = subset_rankings.kind_of(run_id)
    if num_kept == pool_size:
        return (NONE, 0) if kind == subset_rankings.RANDOM else None
    for which in (*WHICH, RANDOM):
        if _KINDS[action, which] == kind:
            return which, num_kept if action == KEEP else pool_size - num_kept
    return None


def counts(texts: Sequence[str], pool_size: int) -> tuple[int, ...]:
    """Numbers of selected examples, ascending, from shares such as "0.05" and counts such as "20".

    Raises:
        InvalidValueError: one is neither, leaves no example on one side, or comes twice.
    """
    found: dict[int, str] = {}
    for text in texts:
        count = _count(text.strip(), pool_size)
        if count is None or not 0 < count < pool_size:
            raise errors.InvalidValueError(
                f"--fractions={','.join(texts)}: {text!r}, expected shares between 0 and 1 such as 0.05, or "
                f"counts such as 20, that select 1 to {pool_size - 1} of the {pool_size} ranked examples"
            )
        if count in found:
            raise errors.InvalidValueError(
                f"--fractions={','.join(texts)}: {found[count]} and {text} both select {count} of {pool_size} "
                "examples; name each selection once"
            )
        found[count] = text
    if not found:
        raise errors.InvalidValueError("--fractions: names no selection; give shares such as 0.05,0.1")
    return tuple(sorted(found))


def _count(text: str, pool_size: int) -> int | None:
    if _COUNT.fullmatch(text):
        return int(text)
    try:
        share = float(text)
    except ValueError:
        return None
    return round(share * pool_size) if 0 < share < 1 else None

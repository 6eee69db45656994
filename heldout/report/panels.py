"""Panels of single examples, which link a report's galleries: whom an example influences, and who influences it.

A training example has the test examples that it helps and harms most, a test example the training examples that help
and harm it most; each leads on to its own panel. They come from the lists that were kept with the scores, so that a
matrix that was never kept is not missed. A page cannot hold a panel for every example of a large data set: those that
the page shows come first, then those that are one step away, then two, until the budget is spent.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from heldout.scoring import influence_extremes, saved_scores
from heldout.scoring import scores as scores_lib

# An example: "train" or "test", and its original index.
Key = tuple[str, int]
# More than are shown, so that nothing is rounded twice to another digit.
_DIGITS = 7


def name(key: Key) -> str:
    """The name of an example in addresses and in the page's data, such as "train-7"."""
    return f"{key[0]}-{key[1]}"


def chosen(scores: saved_scores.RatioScores, roots: Sequence[Key], budget: int, per_side: int) -> list[Key]:
    """The examples that have panels, breadth first from those that the page shows.

    Args:
        scores: scores at one ratio.
        roots: examples that the page shows, the most important first.
        budget: at most so many.
        per_side: others that a panel lists on either side.
    """
    found = dict.fromkeys(roots[:budget])
    queue = list(found)
    for key in queue:  # grows
        for other in _others(scores, key, per_side):
            if len(found) >= budget:
                return queue
            if other not in found:
                found[other] = None
                queue.append(other)
    return queue


def _others(scores: saved_scores.RatioScores, key: Key, per_side: int) -> Iterator[Key]:
    """What the panel of an example lists, the strongest of both sides first."""
    lists, split = _lists(scores, key[0])
    sides = (lists.helpful_index[key[1], :per_side], lists.harmful_index[key[1], :per_side])
    for pair in zip(*(side.tolist() for side in sides), strict=True):
        yield from ((split, index) for index in pair if index >= 0)


def _lists(scores: saved_scores.RatioScores, split: str) -> tuple[influence_extremes.Strongest, str]:
    """The strongest others of the examples of a split, and the split that these are of."""
    return (scores.influence.by_train, "test") if split == "train" else (scores.influence.by_test, "train")


def payload(
    scores: saved_scores.RatioScores,
    consistency: scores_lib.Consistency,
    keys: Sequence[Key],
    labels: tuple[np.ndarray | None, np.ndarray | None],
    per_side: int,
) -> dict[str, dict[str, Any]]:
    """What the page's script makes panels of, by name, ready for JSON; null where there is no value.

    Each has `label`, `helps` and `harms`, lists of (index, label, subset influence, standard error), the strongest
    first: of test examples for a training example, of training examples for a test example. A training example has
    `memorization`, `standard_error`, `num_in`, `num_heldout` and `consistency` as well, a test example `accuracy`.

    Args:
        scores: scores at one ratio.
        consistency: of the same training examples.
        keys: which examples.
        labels: of the training and of the test examples, each int64 or None.
        per_side: others on either side.
    """
    found: dict[str, dict[str, Any]] = {}
    for split, own in zip(("train", "test"), labels, strict=True):
        index = np.array([key[1] for key in keys if key[0] == split], np.int64)
        facts = _train_facts(scores, consistency, index) if split == "train" else _test_facts(scores, index)
        other_labels = labels[1] if split == "train" else labels[0]
        sides = [_effects(scores, split, index, side, other_labels, per_side) for side in ("helpful", "harmful")]
        for row, example in enumerate(index.tolist()):
            panel = {"label": _label(own, example), **{fact: values[row] for fact, values in facts.items()}}
            found[name((split, example))] = panel | {"helps": sides[0][row], "harms": sides[1][row]}
    return found


def _train_facts(
    scores: saved_scores.RatioScores, consistency: scores_lib.Consistency, index: np.ndarray
) -> dict[str, list[Any]]:
    support = scores.memorization
    return {
        "memorization": _numbers(support.values[index]),
        "standard_error": _numbers(support.standard_error[index]),
        "num_in": support.num_in[index].tolist(),
        "num_heldout": support.num_heldout[index].tolist(),
        "consistency": _numbers(consistency.score[index]),
    }


def _test_facts(scores: saved_scores.RatioScores, index: np.ndarray) -> dict[str, list[Any]]:
    return {"accuracy": _numbers(scores.test_accuracy[index])}


def _effects(
    scores: saved_scores.RatioScores,
    split: str,
    index: np.ndarray,
    side: str,
    labels: np.ndarray | None,
    per_side: int,
) -> list[list[list[Any]]]:
    """For every example (index, label, value, standard error) of others on one side."""
    lists, _ = _lists(scores, split)
    others = getattr(lists, f"{side}_index")[index, :per_side].astype(np.int64)
    values = getattr(lists, side)[index, :per_side]
    known = np.maximum(others, 0)  # where there is no other, any will do: it is left out below
    own = np.broadcast_to(index[:, np.newaxis], others.shape)
    train, test = (own, known) if split == "train" else (known, own)
    spread = scores.influence_standard_error(train, test, values)
    rows = zip(others.tolist(), _rounded(values), _rounded(spread), strict=True)
    return [
        [[other, _label(labels, other), value, error] for other, value, error in zip(*row, strict=True) if other >= 0]
        for row in rows
    ]


def _label(labels: np.ndarray | None, index: int) -> int | None:
    return None if labels is None else int(labels[index])


def _rounded(values: np.ndarray) -> list[Any]:
    return list(np.round(values.astype(np.float64), _DIGITS).tolist())


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in _rounded(values)]

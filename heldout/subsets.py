"""Stateless random draws: every draw of a run follows from the names of the run alone.

The seed of one purpose of one run is the first 128 bits of

    SHA-256("heldout-1/<experiment>/<subset_ratio>/<run_id>/<purpose>")

and keys a Philox counter-based generator (Salmon et al. 2011). Only its raw 64-bit words are used, because NumPy keeps
those the same for ever and its distributions not. A permutation of n positions is the stable order of n raw words;
the training subset is the first m positions of such a permutation, sorted. So the subset of run 1234 can be
recomputed without the run:

    subset_indices("mnist-mlp", 0.7, 1234, num_train=60000)

A subset that is balanced over classes takes from the same permutation, of each class, as many of its first positions
as the class is to have.
"""

import fractions
import hashlib

import numpy as np

from zoo import errors, layout

# Part of every seed: another scheme must not give the same name to other draws.
SEED_SCHEME = "heldout-1"
UNIFORM, CLASS_BALANCED = SAMPLINGS = ("uniform", "class_balanced")
# Not drawn: subsets follow a ranking of the examples, see heldout/experiments/subset_rankings.py.
RANKED = "ranked"


def seed(run: tuple[str, float, int], purpose: str) -> int:
    """The 128-bit seed of one purpose ("subset", "initialisation", "order/3", ...) of one run.

    Args:
        run: (experiment, subset_ratio, run_id).
        purpose: what the draw is for; another purpose is an independent draw.
    """
    experiment, subset_ratio, run_id = run
    name = f"{SEED_SCHEME}/{experiment}/{layout.ratio_name(subset_ratio)}/{run_id}/{purpose}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")


def random_words(key: int, count: int) -> np.ndarray:
    """`count` independent uniform 64-bit words, uint64 [count]."""
    return np.random.Philox(key=key).random_raw(count)


def random_integers(key: int, shape: tuple[int, ...], bound: int) -> np.ndarray:
    """Uniform integers in [0, bound), int32 of the given shape; their bias is below bound / 2^64."""
    return (random_words(key, int(np.prod(shape))) % np.uint64(bound)).astype(np.int32).reshape(shape)


def permutation(key: int, count: int) -> np.ndarray:
    """A uniform permutation of 0..count-1, int64 [count]."""
    return np.argsort(random_words(key, count), kind="stable")


def subset_size(subset_ratio: float, num_train: int) -> int:
    """M = round(subset_ratio * num_train), at least one example inside and one outside.

    Raises:
        InvalidValueError: the ratio leaves one side empty.
    """
    layout.ratio_name(subset_ratio)
    size = round(subset_ratio * num_train)
    if not 0 < size < num_train:
        raise errors.InvalidValueError(
            f"subset ratio {subset_ratio} of {num_train} training examples is {size}: "
            "at least one example must be inside the subset and one outside; choose another --subset_ratio"
        )
    return size


def subset_indices(experiment: str, subset_ratio: float, run_id: int, num_train: int) -> np.ndarray:
    """The original positions that a run is trained on: int64 [m], ascending."""
    size = subset_size(subset_ratio, num_train)
    key = seed((experiment, subset_ratio, run_id), "subset")
    return np.sort(permutation(key, num_train)[:size])


def class_sizes(subset_ratio: float, label: np.ndarray) -> np.ndarray:
    """How many examples of each class a balanced subset has: int64 [K], K the largest label + 1.

    Of each class its share, subset_ratio * n_class, rounded down; what is then missing to `subset_size` goes, one
    each, to the classes with the largest remainders, of equals to the lower class. So the total is `subset_size`, and
    every class has round(subset_ratio * n_class) up to one example.

    Raises:
        InvalidValueError: the ratio leaves one side empty.
    """
    size, counts = subset_size(subset_ratio, len(label)), np.bincount(label)
    ratio = fractions.Fraction(layout.ratio_name(subset_ratio))  # exact: 0.7 of 10 is 7, not 7.000000000000001
    shares = [ratio * int(count) for count in counts]
    sizes = np.array([int(share) for share in shares])
    by_remainder = sorted(range(len(shares)), key=lambda number: (int(shares[number]) - shares[number], number))
    sizes[by_remainder[: size - int(sizes.sum())]] += 1
    return sizes


def balanced_indices(experiment: str, subset_ratio: float, run_id: int, label: np.ndarray) -> np.ndarray:
    """The original positions that a run is trained on where subsets are balanced over classes: int64 [m], ascending.

    Args:
        experiment: name.
        subset_ratio: in (0, 1).
        run_id: number of the run.
        label: the labels that the experiment trains with, int64 [N].
    """
    order = permutation(seed((experiment, subset_ratio, run_id), "subset"), len(label))
    by_class = order[np.argsort(label[order], kind="stable")]  # one class after the other, each in the drawn order
    counts = np.bincount(label)
    place_in_class = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[place_in_class < np.repeat(class_sizes(subset_ratio, label), counts)])


def draw(sampling: str, run: tuple[str, float, int], label: np.ndarray) -> np.ndarray:
    """The original positions that a run is trained on: int64 [m], ascending.

    Args:
        sampling: "uniform" or "class_balanced".
        run: (experiment, subset_ratio, run_id).
        label: the labels that the experiment trains with, int64 [N].
    """
    if sampling == CLASS_BALANCED:
        return balanced_indices(*run, label)
    return subset_indices(*run, len(label))

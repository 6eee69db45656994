"""Balanced subsets class by class, as their definition says; slow where there are many classes."""

import numpy as np

from heldout import subsets


def balanced_indices(experiment: str, subset_ratio: float, run_id: int, label: np.ndarray) -> np.ndarray:
    """Of the permutation of a run, as many of the first positions of each class as the class is to have."""
    order = subsets.permutation(subsets.seed((experiment, subset_ratio, run_id), "subset"), len(label))
    chosen = []
    for number, count in enumerate(subsets.class_sizes(subset_ratio, label)):
        chosen += [position for position in order if label[position] == number][:count]
    return np.array(sorted(chosen), np.int64)

"""Memorization, subset influence, consistency and counts by plain loops over runs, in float64. Slow and obvious.

Also a learner small enough that every subset of its training set can be tried: one nearest neighbour on a line. The
expectation over all subsets of one size is then exact, and what runs on sampled subsets estimate.
"""

import itertools
import math

import numpy as np


def mean_or_nan(values):
    return sum(values) / len(values) if values else math.nan


def variance_of_mean(values):
    if not values:
        return math.nan
    p = sum(values) / len(values)
    return p * (1 - p) / len(values)


def split(mask_column, correctness_column):
    """Correctness (0.0 or 1.0) of the runs that trained on an example, and of those that held it out."""
    inside = [float(c) for m, c in zip(mask_column, correctness_column, strict=True) if m]
    outside = [float(c) for m, c in zip(mask_column, correctness_column, strict=True) if not m]
    return inside, outside


def difference(mask_column, correctness_column):
    """(value, standard error, number inside, number outside)."""
    inside, outside = split(mask_column, correctness_column)
    error = math.sqrt(variance_of_mean(inside) + variance_of_mean(outside))
    return mean_or_nan(inside) - mean_or_nan(outside), error, len(inside), len(outside)


def memorization(mask, correctness):
    """Four arrays [N]: values, standard errors, num_in, num_heldout."""
    columns = [difference(mask[:, i], correctness[:, i]) for i in range(mask.shape[1])]
    return tuple(np.array(column) for column in zip(*columns, strict=True))


def subset_influence(mask, test_correctness):
    """Values and standard errors [N, M]."""
    pairs = [
        [difference(mask[:, i], test_correctness[:, j])[:2] for j in range(test_correctness.shape[1])]
        for i in range(mask.shape[1])
    ]
    both = np.array(pairs)
    return both[..., 0], both[..., 1]


def consistency(masks, correctnesses):
    """Profile [K, N], its standard errors, the score [N] and its standard error, from one pair of matrices a ratio."""
    outside = [
        [split(mask[:, i], correctness[:, i])[1] for i in range(mask.shape[1])]
        for mask, correctness in zip(masks, correctnesses, strict=True)
    ]
    profile = np.array([[mean_or_nan(values) for values in row] for row in outside])
    variance = np.array([[variance_of_mean(values) for values in row] for row in outside])
    score, error = [], []
    for i in range(profile.shape[1]):
        there = [k for k in range(len(profile)) if not math.isnan(profile[k, i])]
        score.append(mean_or_nan([profile[k, i] for k in there]))
        error.append(math.sqrt(sum(variance[k, i] for k in there)) / len(there) if there else math.nan)
    return profile, np.sqrt(variance), np.array(score), np.array(error)


def redrawn_counts(mask, correctness, threshold, weights):
    """Examples with memorization >= threshold when run t is there weights[d][t] times; one count per draw d."""
    counts = []
    for draw in weights:
        runs = [t for t, times in enumerate(draw) for _ in range(int(times))]
        values = memorization(mask[runs], correctness[runs])[0]
        counts.append(sum(value >= threshold for value in values))
    return counts


def nearest_neighbour(subset, train_x, train_label, x):
    """Label of the closest training point of the subset; ties go to the smaller index."""
    return train_label[min(subset, key=lambda i: (abs(train_x[i] - x), i))]


def run_nearest_neighbour(subset, train_x, train_label, test_x, test_label):
    """What a learner trained on the subset gets right: (train [N], test [M]) bool."""
    train = [nearest_neighbour(subset, train_x, train_label, x) == y for x, y in zip(train_x, train_label, strict=True)]
    test = [nearest_neighbour(subset, train_x, train_label, x) == y for x, y in zip(test_x, test_label, strict=True)]
    return train, test


def all_runs(size, train_x, train_label, test_x, test_label):
    """(mask, train correctness, test correctness) of the learner on every subset of this size, one row a subset."""
    subsets = list(itertools.combinations(range(len(train_x)), size))
    mask = np.array([[i in subset for i in range(len(train_x))] for subset in subsets])
    results = [run_nearest_neighbour(subset, train_x, train_label, test_x, test_label) for subset in subsets]
    return mask, np.array([train for train, _ in results]), np.array([test for _, test in results])

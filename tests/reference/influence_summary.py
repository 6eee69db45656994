"""What is kept of a matrix of subset influence, by full sorts of a matrix in memory: truth, and for made-up values."""

import numpy as np

from heldout.scoring import influence_extremes, influence_summary


def summarise(values, memorization, support, top_k, least_influence, least_memorization):
    """The summary of a matrix [N, M] whose rows are NaN altogether or not at all; there are no candidates."""
    defined = ~np.isnan(values).any(axis=1)
    bins = np.rint(values[defined] * influence_extremes.HALF_BINS).astype(int) + influence_extremes.HALF_BINS
    largest = np.full(values.shape[1], np.nan, np.float32)
    if defined.any():
        largest[:] = np.abs(values[defined]).max(axis=0)
    strong = (np.abs(values) >= least_influence) & (memorization >= least_memorization)[:, None]
    return influence_summary.InfluenceSummary(
        np.bincount(bins.ravel(), minlength=influence_extremes.NUM_BINS),
        largest,
        strongest(values, np.zeros(values.shape[1]), top_k),
        strongest(values.T, support, top_k),
        _pairs(values, strong),
        _pairs(values, np.zeros_like(strong)),
        least_influence,
        least_memorization,
        np.inf,
    )


def strongest(lines, ranks, top_k):
    """For each line the k largest above 0 and the k smallest below 0: by value, larger rank, lower index."""
    shape = (len(lines), top_k)
    sides = []
    for sign in (1, -1):
        value, index = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int32)
        for one, line in enumerate(lines):
            order = [i for i in np.lexsort((np.arange(len(line)), -ranks, -sign * line)) if sign * line[i] > 0][:top_k]
            index[one, : len(order)], value[one, : len(order)] = order, line[order]
        sides += [value, index]
    return influence_extremes.Strongest(*sides)


def _pairs(values, chosen):
    train, test = np.nonzero(chosen)
    return influence_summary.PairList(train.astype(np.int32), test.astype(np.int32), values[chosen].astype(np.float32))

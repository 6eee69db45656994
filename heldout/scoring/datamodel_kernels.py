"""The loops behind `heldout.scoring.datamodel_path`: sums over bits, and coordinate descent on a working set.

Column k of the masks is bits that tell which runs were trained on example k. `words` [N, W] uint64 and `byte_rows`
[8 W, N] uint8 hold the same bits, as `datamodel_path.Design` says; `fit_words` [W] marks the runs of the fit.
"""

import numpy as np

from heldout import compiling
from heldout.scoring import run_words

# Sweeps from which one extrapolation is made.
_NUM_PAST = 6
# Compiled functions find others by a name of their own module.
ones = run_words.ones


@compiling.later
def sum_bits(byte_rows, residual, out):  # type: ignore[no-untyped-def]
    """Adds to out[k] the residuals of the runs whose bit is set in column k; eight rows of bytes at a time."""
    sums = np.zeros((8, 256))
    for first in range(0, len(byte_rows), 8):
        for row in range(8):
            for bit in range(8):
                # Entries 0 .. 2^bit - 1 are done; the next as many have this bit besides.
                value = residual[8 * (first + row) + bit]
                for entry in range(1 << bit):
                    sums[row, entry + (1 << bit)] = sums[row, entry] + value
        for k in range(len(out)):
            low = sums[0, byte_rows[first, k]] + sums[1, byte_rows[first + 1, k]]
            low += sums[2, byte_rows[first + 2, k]] + sums[3, byte_rows[first + 3, k]]
            high = sums[4, byte_rows[first + 4, k]] + sums[5, byte_rows[first + 5, k]]
            high += sums[6, byte_rows[first + 6, k]] + sums[7, byte_rows[first + 7, k]]
            out[k] += low + high


@compiling.later
def count(words, fit_words, count):  # type: ignore[no-untyped-def]
    """Runs of the fit that were trained on each example."""
    for k in range(len(count)):
        total = np.uint64(0)
        for word in range(len(fit_words)):
            total += ones(words[k, word] & fit_words[word])
        count[k] = total


@compiling.later
def multiply(words, fit_words, members, count, start, num_fit, products):  # type: ignore[no-untyped-def]
    """Fills rows and columns from `start` on of the products of the members' centred columns."""
    for i in range(start, len(members)):
        for j in range(i + 1):
            both = np.uint64(0)
            for word in range(len(fit_words)):
                both += ones(words[members[i], word] & words[members[j], word] & fit_words[word])
            value = np.float64(both) - np.float64(count[members[i]]) * np.float64(count[members[j]]) / num_fit
            products[i, j] = value
            products[j, i] = value


@compiling.later
def add_columns(words, train_index, weight, out):  # type: ignore[no-untyped-def]
    """Adds to out[t] the weights of the examples that run t was trained on."""
    for k in range(len(weight)):
        for word in range(words.shape[1]):
            bits = words[train_index[k], word]
            for bit in range(64):
                out[64 * word + bit] += weight[k] * np.float64((bits >> np.uint64(bit)) & np.uint64(1))


@compiling.later
def descend(products, curvature, output_products, total, weights, gradient, scaled, bound, max_sweeps):  # type: ignore[no-untyped-def]
    """Coordinate descent on the working set, until its duality gap is within the bound; changes weights and gradient.

    `gradient` holds the products of the columns with the residual, `output_products` those with the output, `total` is
    the output's square. After every few sweeps the weights are extrapolated from the last ones.
    """
    size = len(weights)
    past_weights, past_gradients = np.empty((_NUM_PAST, size)), np.empty((_NUM_PAST, size))
    num_past = 0
    for _ in range(max_sweeps):
        square, largest, length, explained = total, 0.0, 0.0, 0.0
        for k in range(size):
            square -= weights[k] * (output_products[k] + gradient[k])
            largest = max(largest, abs(gradient[k]))
            length += abs(weights[k])
            explained += weights[k] * gradient[k]
        shrink = scaled / largest if largest > scaled else 1.0
        # The product of residual and output is the residual's square and what the weights have of the gradient.
        if 0.5 * square * (1 + shrink * shrink) + scaled * length - shrink * (square + explained) <= bound:
            return
        if num_past == _NUM_PAST:
            _extrapolate(past_weights, past_gradients, output_products, weights, gradient, scaled)
            num_past = 0
        _sweep_once(products, curvature, weights, gradient, scaled)
        past_weights[num_past], past_gradients[num_past] = weights, gradient
        num_past += 1


@compiling.later
def _sweep_once(products, curvature, weights, gradient, scaled):  # type: ignore[no-untyped-def]
    """Minimises over one weight after the other."""
    for k in range(len(weights)):
        pull = gradient[k] + curvature[k] * weights[k]
        new = np.sign(pull) * max(abs(pull) - scaled, 0.0) / curvature[k]
        step = new - weights[k]
        if step != 0.0:
            weights[k] = new
            for other in range(len(weights)):
                gradient[other] -= step * products[k, other]


@compiling.later
def _extrapolate(past_weights, past_gradients, output_products, weights, gradient, scaled):  # type: ignore[no-untyped-def]
    """Anderson's extrapolation of coordinate descent (Bertrand & Massias 2021), kept where the objective falls.

    The combination of the last weights whose changes cancel best; the gradient is affine in the weights, so that of the
    combination is the same combination of gradients.
    """
    num_past, size = past_weights.shape
    system = np.zeros((num_past - 1, num_past - 1))
    for i in range(num_past - 1):
        for j in range(i + 1):
            for k in range(size):
                change = past_weights[i + 1, k] - past_weights[i, k]
                system[i, j] += change * (past_weights[j + 1, k] - past_weights[j, k])
            system[j, i] = system[i, j]
    mixture = _mixture(system)
    new_weights, new_gradient = np.zeros(size), np.zeros(size)
    for i in range(num_past - 1):
        for k in range(size):
            new_weights[k] += mixture[i] * past_weights[i + 1, k]
            new_gradient[k] += mixture[i] * past_gradients[i + 1, k]
    # Twice the objective, less the output's square.
    now, then = 0.0, 0.0
    for k in range(size):
        now += 2 * scaled * abs(weights[k]) - weights[k] * (output_products[k] + gradient[k])
        then += 2 * scaled * abs(new_weights[k]) - new_weights[k] * (output_products[k] + new_gradient[k])
    if then < now:
        weights[:] = new_weights
        gradient[:] = new_gradient


@compiling.later
def _mixture(system):  # type: ignore[no-untyped-def]
    """The x with sum 1 for which x^T S x is least, S positive semidefinite and a little more: S^-1 1, normalised."""
    size, trace = len(system), 0.0
    for i in range(size):
        trace += system[i, i]
    left, right = system.copy(), np.ones(size)
    for i in range(size):
        left[i, i] += 1e-12 * trace + 1e-300
    for i in range(size):
        for j in range(i + 1, size):
            factor = left[j, i] / left[i, i]
            for k in range(i, size):
                left[j, k] -= factor * left[i, k]
            right[j] -= factor * right[i]
    total = 0.0
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            right[i] -= left[i, k] * right[k]
        right[i] /= left[i, i]
        total += right[i]
    return right / total

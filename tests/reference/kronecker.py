"""K-FAC and EK-FAC written out as whole matrices, from factors of single examples under every label, in float64."""

import numpy as np


def layer(rows, cotangents, probabilities):
    """(K-FAC, EK-FAC) [I O, I O] of one layer, whose gradients G [I, O] are flattened row by row.

    Args:
        rows: [N, T, I] inputs of the layer, with a last one of ones for a bias.
        cotangents: [C, N, T, O] gradients of the loss by its outputs, for each label.
        probabilities: [C, N] of the labels.
    """
    num, places, size = rows.shape
    first, second = np.zeros((size, size)), 0.0
    for i in range(num):
        for t in range(places):
            first += np.outer(rows[i, t], rows[i, t]) / (num * places)
            for c, weights in enumerate(probabilities):
                second = second + weights[i] * np.outer(cotangents[c, i, t], cotangents[c, i, t]) / num
    basis = np.kron(np.linalg.eigh(first)[1], np.linalg.eigh(second)[1])
    fisher = 0.0
    for c, weights in enumerate(probabilities):
        for i in range(num):
            gradient = (rows[i].T @ cotangents[c, i]).ravel()
            fisher = fisher + weights[i] * np.outer(gradient, gradient) / num
    corrected = basis @ np.diag(np.diag(basis.T @ fisher @ basis)) @ basis.T
    return np.kron(first, second), corrected


def joined(matrices, positions, size):
    """[P, P] with the matrix of each layer at the positions of its gradient's elements, zero elsewhere."""
    whole = np.zeros((size, size))
    for matrix, where in zip(matrices, positions, strict=True):
        whole[np.ix_(where, where)] = matrix
    return whole

"""Solutions without groups of rows, in a basis where the full problem is diagonal.

Let B [q, D] be the rows of a group in that basis, D_z = diag(1 / (z - lambda')), lambda' = lambda + lam'. Everything
that a deletion needs of a resolvent are the small matrices B D_z B^T and its product with one vector, so that all
deletions together cost Q n q (q + 1) D operations, less than the decomposition.

    dual     B = rows of the eigenvectors U of K, h = U^T r0:     a_{-i} = U x,
             x = (1/pi) Im sum_j c_j D_j (h - B^T s_j),  s_j = (B D_j B^T)^-1 B D_j h
    primal   B = rows of Phi V, Phi^T Phi = V Lambda V^T, h = V^T Phi^T r0:   w_{-i} - w0 = V x, the same with
             s_j = r_i + (I + B D_j B^T)^-1 B D_j (h - B^T r_i)

At infinite time the one node z = 0 serves, with the sign turned.
"""

import dataclasses

import numpy as np
import scipy.sparse.linalg

from estimators.linearized import descents, spectral

_CHUNK_BYTES = 64e6
# From this many rows a group, products of pairs of rows take more memory than they save time.
_PAIRS_UP_TO = 24
# Matrices up to this size are decomposed for their largest eigenvalue.
_DENSE_UP_TO = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Diagonal:
    """The full problem in the basis of its eigenvectors.

    Attributes:
        rows: [N, D], U or Phi: see `vectors`.
        vectors: [D, D], V, which rows are multiplied by; None where they are in the basis already (dual).
        eigenvalues: [D] float64, of K or of Phi^T Phi, >= 0, without lam.
        tolerance: eigenvalues up to it count as 0 where a rank matters.
        source: [D] float64, h.
        residuals: [N] float64, r0.
    """

    rows: np.ndarray
    vectors: np.ndarray | None
    eigenvalues: np.ndarray
    tolerance: float
    source: np.ndarray
    residuals: np.ndarray

    @property
    def is_dual(self) -> bool:
        """Whether solutions are coefficients of kernel rows; otherwise they are weights of features."""
        return self.vectors is None

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        """B of groups with rows [G, q]: [G, q, D] float64."""
        taken = np.asarray(self.rows[rows.ravel()], np.float64)
        return (taken if self.vectors is None else taken @ self.vectors).reshape(*rows.shape, -1)

    def groups_at_a_time(self, num_rows: int) -> int:
        """How many groups of q rows keep what is computed at a time small."""
        copies = num_rows * (num_rows + 1) // 2 if num_rows <= _PAIRS_UP_TO else 2 * num_rows
        return max(1, int(_CHUNK_BYTES / (8 * len(self.eigenvalues) * (copies + 2 * num_rows))))


def by_contour(problem: Diagonal, rows: np.ndarray, lam: float, contour: spectral.Contour) -> np.ndarray:
    """Solutions x at a finite time.

    Args:
        problem: the full problem.
        rows: [G, q], rows of each group.
        lam: lam'.
        contour: for p_t with eta'.

    Returns:
        [G, D] float64.
    """
    blocks = problem.blocks(rows)
    resolvents = 1 / (contour.nodes[:, None] - problem.eigenvalues - lam)
    # The sum over nodes, so many at a time that their matrices [G, Q, q, q] stay small.
    at_a_time = max(1, int(_CHUNK_BYTES / (48 * len(rows) * rows.shape[1] ** 2)))
    parts = [slice(start, start + at_a_time) for start in range(0, len(resolvents), at_a_time)]
    known = problem.residuals[rows][:, None]
    total = np.zeros((len(rows), len(problem.eigenvalues)))
    for part in parts:
        total += _contour_part(problem, blocks, known, resolvents[part], contour.weights[part])
    return total / np.pi


def _contour_part(
    problem: Diagonal, blocks: np.ndarray, known: np.ndarray, resolvents: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Im of the sum over some nodes, [G, D]; `known` are the residuals of the groups, [G, 1, q]."""
    grams = _grams(blocks, resolvents)
    ahead = _products(blocks, resolvents * problem.source)
    if problem.is_dual:
        sources = _solve(grams, ahead)
    else:
        sources = known + _solve(grams + np.eye(blocks.shape[1]), ahead - (grams @ known[..., None])[..., 0])
    weighted = weights[None, :, None] * sources
    base = np.imag(weights @ (resolvents * problem.source))
    parts = np.concatenate([weighted.real, weighted.imag], axis=1).transpose(0, 2, 1)
    removed = parts.reshape(-1, parts.shape[-1]) @ np.concatenate([resolvents.imag, resolvents.real])
    return base - np.sum(blocks * removed.reshape(blocks.shape), axis=1)


def at_optimum(problem: Diagonal, rows: np.ndarray, lam: float) -> np.ndarray:
    """Solutions x at infinite time, lambda' > 0 throughout.

    In dual form a_{-i} = a' - P[:, i] P_ii^-1 a'_i with P = (K + lam')^-1 and a' = -P r0.

    Args:
        problem: the full problem.
        rows: [G, q].
        lam: lam'.

    Returns:
        [G, D] float64.
    """
    blocks, residuals = problem.blocks(rows), problem.residuals[rows]
    inverse = 1 / (problem.eigenvalues + lam)
    grams = _real_grams(blocks, inverse[None])[:, 0]
    ahead = blocks @ (inverse * problem.source)
    if problem.is_dual:
        sources = _solve(grams, ahead)
    else:
        leftover = np.eye(rows.shape[1]) - grams
        sources = residuals - _solve(leftover, ahead - (grams @ residuals[..., None])[..., 0])
    return -inverse * (problem.source - (sources[:, None] @ blocks)[:, 0])


def at_interpolation(problem: Diagonal, rows: np.ndarray, lam: float = 0.0) -> np.ndarray:
    """Solutions x at infinite time without l2, or with little: of least norm, whatever the rank.

    Rows of leverage below 1 are deleted by the formula of least squares; what rows of leverage 1 alone determine, falls
    back to 0, where training began. All is done on the range of the features, so that a small lam divides no round-off.

    Args:
        problem: the full problem.
        rows: [G, q].
        lam: lam'.

    Returns:
        [G, D] float64; in dual form one of the coefficient vectors that give the weights, which are unique.
    """
    known = problem.eigenvalues > problem.tolerance
    eigenvalues, scale = problem.eigenvalues[known], np.sqrt(problem.eigenvalues[known])
    source = problem.source[known] * (scale if problem.is_dual else 1.0)
    solutions = np.zeros((len(rows), len(known)))
    for place, block in enumerate(problem.blocks(rows)):
        features = block[:, known] * (scale if problem.is_dual else 1.0)
        weights = _without(features, eigenvalues + lam, -source, problem.residuals[rows[place]])
        if problem.is_dual:
            # y with Phi_{-i}^T Phi_{-i} y = w: coefficients are Phi_{-i} y.
            weights = _without(features, eigenvalues, weights, np.zeros(rows.shape[1])) * scale
        solutions[place, known] = weights
    return solutions


def _without(features: np.ndarray, eigenvalues: np.ndarray, source: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """(diag(eigenvalues) - B^T B)^+ (source + B^T residuals) for features B [q, D] of a group; [D]."""
    pulled = features.T / eigenvalues[:, None]
    leverages, directions = np.linalg.eigh(features @ pulled)
    alone = leverages > 1 - 1e-8
    shared, gap = directions[:, ~alone], 1 - leverages[~alone]
    full = source / eigenvalues
    found = full + pulled @ (shared @ ((shared.T @ (features @ full + residuals)) / gap))
    basis = np.linalg.qr(pulled @ directions[:, alone])[0]
    return found - basis @ (basis.T @ found)


def largest_eigenvalue(problem: Diagonal, rows: np.ndarray) -> float:
    """That of the kernel, or of Phi^T Phi, without the rows [q] of a group: to 1e-8, and not below it.

    In the basis, B^T B is in dual form a projection that takes rows and columns out, in primal form what is subtracted.
    """
    block, size = problem.blocks(rows[None])[0], len(problem.eigenvalues)

    def product(vectors: np.ndarray) -> np.ndarray:
        if not problem.is_dual:
            return problem.eigenvalues[:, None] * vectors - block.T @ (block @ vectors)
        left = vectors - block.T @ (block @ vectors)
        moved = problem.eigenvalues[:, None] * left
        return moved - block.T @ (block @ moved)

    if size <= _DENSE_UP_TO:
        found = np.linalg.eigvalsh(product(np.eye(size)))[-1]
    else:
        operator = scipy.sparse.linalg.LinearOperator(
            (size, size), matvec=lambda vector: product(vector.reshape(-1, 1)).ravel(), dtype=np.float64
        )
        start = np.random.default_rng(0).normal(size=size)
        found = scipy.sparse.linalg.eigsh(operator, 1, which="LA", v0=start, tol=1e-10, return_eigenvectors=False)[0]
    return float(found) * (1 + 1e-8)


def by_recursion(problem: Diagonal, rows: np.ndarray, rates: descents.Rates, num_steps: int) -> np.ndarray:
    """Solutions x after a few steps, step by step: exact, t n q D operations.

    In the basis, a step a <- a - eta' (A' a + r0) * mask takes the rows of the group out by x - B^T B x.

    Args:
        problem: the full problem.
        rows: [G, q].
        rates: eta' and lam'.
        num_steps: t.

    Returns:
        [G, D] float64.
    """
    blocks, residuals = problem.blocks(rows), problem.residuals[rows]
    turned = np.ascontiguousarray(blocks.transpose(0, 2, 1))
    shifted = problem.eigenvalues + rates.lam
    solutions = np.zeros((len(rows), len(shifted)))
    for _ in range(num_steps):
        steps = shifted * solutions + problem.source
        kept_out = steps if problem.is_dual else solutions
        inside = blocks @ kept_out[..., None] + (0.0 if problem.is_dual else residuals[..., None])
        solutions -= rates.eta * (steps - (turned @ inside)[..., 0])
    return solutions


def _grams(blocks: np.ndarray, resolvents: np.ndarray) -> np.ndarray:
    """B D_j B^T, [G, Q, q, q] complex."""
    num = len(resolvents)
    parts = _real_grams(blocks, np.concatenate([resolvents.real, resolvents.imag]))
    return parts[:, :num] + 1j * parts[:, num:]


def _real_grams(blocks: np.ndarray, diagonals: np.ndarray) -> np.ndarray:
    """B diag B^T for diagonals [R, D]: [G, R, q, q]."""
    size = blocks.shape[1]
    if size > _PAIRS_UP_TO:
        turned = blocks.transpose(0, 2, 1)
        return np.stack([(blocks * diagonal) @ turned for diagonal in diagonals], axis=1)
    first, second = np.triu_indices(size)
    pairs = blocks[:, first] * blocks[:, second]
    products = (pairs.reshape(-1, pairs.shape[-1]) @ diagonals.T).reshape(len(blocks), len(first), -1)
    grams = np.empty((len(blocks), len(diagonals), size, size))
    grams[:, :, first, second] = grams[:, :, second, first] = products.transpose(0, 2, 1)
    return grams


def _products(blocks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """B v_j for complex vectors [Q, D]: [G, Q, q]."""
    flat = blocks.reshape(-1, blocks.shape[-1]) @ np.concatenate([vectors.real, vectors.imag]).T
    split = flat.reshape(*blocks.shape[:2], 2, len(vectors))
    return (split[:, :, 0] + 1j * split[:, :, 1]).transpose(0, 2, 1)


def _solve(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """matrices^-1 vectors over the leading axes."""
    return np.linalg.solve(matrices, vectors[..., None])[..., 0]

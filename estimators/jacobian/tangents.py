"""How much a function and its input gradient change over slight changes of colour.

    tangent_jacobian(x) = sqrt(mean_j |g(x) - g(x_j)|^2) / 0.1
    tangent_hessian(x)  = sqrt(mean_j |dg/dx(x) - dg/dx(x_j)|_F^2) / 0.1

over four copies x_j with brightness, contrast and saturation each changed by a factor from 0.99 to 1.01 (Gamba et al.,
2023, arXiv:2209.10080; 0.1 is their constant, whatever the distance). Beside them the same with each difference divided
by the true distance |x - x_j| instead: estimates of the slope along changes of colour.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, gradient_products
from estimators.jacobian import functions, gram, keys, normalisations, operator_norms

PUBLISHED_DISTANCE = 0.1
_GREY = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Random changes of colour.

    Attributes:
        num_copies: copies of each example.
        strength: factors are uniform from 1 - strength to 1 + strength.
        seed: of the factors, with the example's id.
        mean, standard_deviation: of the standardisation (pixel - mean) / standard_deviation that inputs went through,
            for each channel or all; colours change in pixels.
        pixel_range: pixels are clipped to it; None for not at all.
    """

    num_copies: int = 4
    strength: float = 0.01
    seed: int = 0
    mean: tuple[float, ...] = (0.0,)
    standard_deviation: tuple[float, ...] = (1.0,)
    pixel_range: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_copies < 1 or not 0 < self.strength < 1 or min(self.standard_deviation) <= 0:
            raise errors.InvalidArgumentError(
                f"num_copies {self.num_copies}, strength {self.strength}, standard_deviation "
                f"{self.standard_deviation}: expected at least 1, a number between 0 and 1, and numbers above 0"
            )

    def copies(self, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """[B, num_copies, H, W, C]: brightness, then contrast, then saturation, which grey images do not have.

        Raises:
            InvalidArgumentError: images are not [B, H, W, 1] or [B, H, W, 3].
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[3] not in (1, 3):
            raise errors.InvalidArgumentError(
                f"inputs of shape {images.shape}: colours are those of images [B, H, W, 1] or [B, H, W, 3]"
            )
        low, high = 1 - self.strength, 1 + self.strength
        rows = [keys.generator(self.seed, "jitter", k).uniform(low, high, (self.num_copies, 3)) for k in ids]
        factors = np.stack(rows)[:, :, :, None, None, None]
        mean, deviation = np.array(self.mean), np.array(self.standard_deviation)
        pixels = (images * deviation + mean)[:, None]
        found = self._clipped(pixels * factors[:, :, 0])
        middle = _grey(found).mean(axis=(2, 3, 4), keepdims=True)
        found = self._clipped(middle + (found - middle) * factors[:, :, 1])
        grey = _grey(found)
        found = self._clipped(grey + (found - grey) * factors[:, :, 2])
        return ((found - mean) / deviation).astype(images.dtype)

    def _clipped(self, pixels: np.ndarray) -> np.ndarray:
        return pixels if self.pixel_range is None else np.clip(pixels, *self.pixel_range)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[-1] == 1 else (pixels @ _GREY)[..., None]


@dataclasses.dataclass(frozen=True, eq=False)
class Tangents:
    """Changes of g and of its input gradient over copies.

    Attributes:
        jacobian, hessian: [N] float64, by the constant 0.1; `hessian` is None if it was not asked for.
        jacobian_by_distance, hessian_by_distance: [N] float64, by the true distances; NaN where a copy is the example.
        distances: [N, num_copies] float64, |x - x_j| in the units of the input.
        ids: [N] int64.
    """

    jacobian: np.ndarray
    hessian: np.ndarray | None
    jacobian_by_distance: np.ndarray
    hessian_by_distance: np.ndarray | None
    distances: np.ndarray
    ids: np.ndarray


def measure(
    function: functions.Function,
    data: Any,
    normalisation: str = "none",
    *,
    target_logit_only: bool = False,
    jitter: Jitter | None = None,
    with_hessian: bool = True,
    batch_size: int = 16,
) -> Tangents:
    """Tangent metrics of every example.

    Args:
        function: g is this under the normalisation.
        data: `examples.Examples` or (images, labels).
        normalisation: name in `normalisations.NAMES`.
        target_logit_only: of the label's entry.
        jitter: the copies.
        with_hessian: whether gradients are compared too: K backward passes for each copy and the example.
        batch_size: examples at a time; (num_copies + 1) K D numbers each.

    Raises:
        InvalidArgumentError: a name or label cannot be, or inputs are no images.
        NotFiniteError: a value is NaN or infinite.
    """
    data, jitter = functions.checked(function, data), jitter or Jitter()
    num = jitter.num_copies + 1
    slopes = tf.function(_normalised(function, normalisation, target_logit_only, with_hessian), autograph=False)
    parts = []
    for batch, count in gradient_products.even_batches(data, batch_size):
        images = np.concatenate([batch.inputs[:, None], jitter.copies(batch.inputs, batch.ids)], axis=1)
        flat = images.reshape([-1, *images.shape[2:]])
        found = slopes(tf.constant(flat), tf.constant(np.repeat(batch.labels, num)))
        moved = [_moved(array.numpy(), num)[:count] for array in (tf.reshape(flat, [len(flat), -1]), *found)]
        parts.append(moved)
    distances, *changes = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    for change in changes:
        operator_norms.check_finite(change.sum(axis=1), data.ids, "a change over copies")
    of_distance = np.where(distances > 0, distances, np.nan)
    published = [_root_mean_square(change) / PUBLISHED_DISTANCE for change in changes]
    true = [_root_mean_square(change / of_distance) for change in changes]
    hessian = (published[1], true[1]) if with_hessian else (None, None)
    return Tangents(published[0], hessian[0], true[0], hessian[1], distances, data.ids)


def _normalised(function: functions.Function, normalisation: str, target_logit_only: bool, with_hessian: bool) -> Any:
    """(inputs [n, ...], labels [n]) -> [g [n, Q], dg/dx [n, Q, D]], the second if asked for."""
    normalisations.check(normalisation)

    def compute(inputs: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        if not with_hessian:
            logits = function.predict(inputs)
            return [normalisations.apply(normalisation, logits, labels, target_logit_only)]
        logits, rows = gram.jacobians(function, inputs)
        if normalisation == "none" and not target_logit_only:
            return [logits, rows]
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = normalisations.apply(normalisation, logits, labels, target_logit_only)
        return [values, tf.matmul(tape.batch_jacobian(values, logits, experimental_use_pfor=False), rows)]

    return compute


def _moved(values: np.ndarray, num: int) -> np.ndarray:
    """[B, num - 1] float64: Euclidean distances of the copies' values from the example's."""
    groups = values.astype(np.float64).reshape([-1, num, values[0].size])
    return np.linalg.norm(groups[:, 1:] - groups[:, :1], axis=2)


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(values).mean(axis=1))

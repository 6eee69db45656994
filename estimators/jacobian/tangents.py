"""How much a function and its input gradient change over slight changes of colour.

    tangent_jacobian(x) = sqrt(mean_j |g(x) - g(x_j)|^2) / 0.1
    tangent_hessian(x)  = sqrt(mean_j |dg/dx(x) - dg/dx(x_j)|_F^2) / 0.1

over four copies x_j with brightness, contrast and saturation each changed by a factor from 0.99 to 1.01 (Gamba et al.,
2023, arXiv:2209.10080; 0.1 is their constant, whatever the distance). Beside them the same with each difference divided
by the true distance |x - x_j| instead: estimates of the slope along changes of colour.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from estimators import errors
from estimators.jacobian import batching, functions, gram, keys, normalisations, operator_norms

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


class Estimator:
    """Tangent metrics of a function under any number of normalisations, compiled once."""

    def __init__(
        self,
        function: functions.Function,
        names: Sequence[str],
        *,
        target_logit_only: bool = False,
        jitter: Jitter | None = None,
        with_hessian: bool = True,
        batch_size: int = 80,
        memory_limit_mb: float = 1024.0,
    ) -> None:
        """Compiles at the first use.

        Args:
            function: g is this under a normalisation.
            names: of normalisations.
            target_logit_only: of the label's entry.
            jitter: the copies.
            with_hessian: whether gradients are compared too: K backward passes for each copy and the example.
            batch_size: points at a time, of which each example has num_copies + 1; at least one example.
            memory_limit_mb: of the gradients that are held at a time.

        Raises:
            InvalidArgumentError: a name is unknown, there are no points in a batch, or the gradients of one example
                take more than the limit.
        """
        self._names = [normalisations.check(name) for name in names]
        self._function, self._only, self._jitter = function, target_logit_only, jitter or Jitter()
        self._with_hessian, num_points = with_hessian, self._jitter.num_copies + 1
        most = max(1, batch_size // num_points) if batch_size > 0 else batch_size
        if with_hessian:
            most = min(most, batching.most(gram.bytes_per_example(function) * num_points, memory_limit_mb))
        self._sizes = batching.Sizes(most)
        self._outputs = function.compiled(lambda inputs, _: function.predict(inputs))
        self._jacobians = gram.make_jacobians(function)

    def run(self, data: Any) -> dict[str, Tangents]:
        """The metrics of every example by normalisation.

        Args:
            data: `examples.Examples` or (images, labels).

        Raises:
            InvalidArgumentError: a label cannot be, or inputs are no images.
            NotFiniteError: a value is NaN or infinite.
        """
        data = functions.checked(self._function, data)
        distances: list[np.ndarray] = []
        changes: dict[str, list[list[np.ndarray]]] = {name: [] for name in self._names}
        for batch, count in self._sizes.batches(data):
            images = np.concatenate([batch.inputs[:, None], self._jitter.copies(batch.inputs, batch.ids)], axis=1)
            distances.append(_moved(images)[:count])
            for name, found in self._changes(images, batch.labels).items():
                changes[name].append([array[:count] for array in found])
        away = np.concatenate(distances)
        return {
            name: _summary([np.concatenate(a) for a in zip(*changes[name], strict=True)], away, data.ids)
            for name in self._names
        }

    def _changes(self, images: np.ndarray, labels: np.ndarray) -> dict[str, list[np.ndarray]]:
        """[B, num_copies] by normalisation, of g and, if asked for, of dg/dx, from images [B, 1 + num_copies, ...]."""
        shape = images.shape[:2]
        flat, owners = images.reshape([-1, *images.shape[2:]]), np.repeat(labels, shape[1])
        logits, *rows = (
            [tensor.numpy() for tensor in self._jacobians(flat)]
            if self._with_hessian
            else [self._outputs(flat, owners).numpy()]
        )
        changes = {}
        for name in self._names:
            arrays = [normalisations.values(name, logits, owners, self._only)]
            if rows:
                arrays.append(normalisations.matrices(name, logits, owners, self._only) @ rows[0])
            changes[name] = [_moved(array.reshape([*shape, *array.shape[1:]])) for array in arrays]
        return changes


def measure(function: functions.Function, data: Any, normalisation: str = "none", **options: Any) -> Tangents:
    """Tangent metrics of every example under one normalisation.

    Args:
        function: g is this under the normalisation.
        data: `examples.Examples` or (images, labels).
        normalisation: name in `normalisations.NAMES`.
        **options: of `Estimator`.

    Raises:
        InvalidArgumentError: a name or label cannot be, or inputs are no images.
        NotFiniteError: a value is NaN or infinite.
    """
    return Estimator(function, [normalisation], **options).run(data)[normalisation]


def _summary(changes: Sequence[np.ndarray], distances: np.ndarray, ids: np.ndarray) -> Tangents:
    for change in changes:
        operator_norms.check_finite(change.sum(axis=1), ids, "a change over copies")
    of_distance = np.where(distances > 0, distances, np.nan)
    published = [_root_mean_square(change) / PUBLISHED_DISTANCE for change in changes]
    true = [_root_mean_square(change / of_distance) for change in changes]
    hessian = (published[1], true[1]) if len(changes) > 1 else (None, None)
    return Tangents(published[0], hessian[0], true[0], hessian[1], distances, ids)


def _moved(values: np.ndarray) -> np.ndarray:
    """[B, num_copies] float64: distances from the first of [B, 1 + num_copies, ...], the example, to the others."""
    flat = values.astype(np.float64).reshape([*values.shape[:2], -1])
    return np.linalg.norm(flat[:, 1:] - flat[:, :1], axis=2)


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(values).mean(axis=1))

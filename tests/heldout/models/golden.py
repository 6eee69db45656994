"""Known weights, known inputs and known logits of the published architectures (tests/golden/*.json).

Every listing holds the keys below model/ with their shapes, and the logits that the published code gives for weights
that are a function of the key alone. So a network is the published one if the keys agree both ways and so do the
logits.
"""

import json
import pathlib
from typing import Any
import zlib

import numpy as np
import tensorflow as tf

from zoo import checkpoints

_DIRECTORY = pathlib.Path(__file__).parents[2] / "golden"


def read(name: str) -> dict[str, Any]:
    return json.loads((_DIRECTORY / f"{name}.json").read_text())


def known_value(key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    words = key.split("/")
    if np.issubdtype(dtype, np.integer):
        return np.ones(shape, dtype)
    is_variance = "moving_variance" in words and words[-1] in ("average", "_hidden")
    if words[-1] in ("scale", "gamma") or is_variance:
        return generator.uniform(0.5, 1.5, shape).astype(dtype)
    factor = np.sqrt(2 / np.prod(shape[:-1])) if words[-1] == "w" else 0.1
    return (generator.standard_normal(shape) * factor).astype(dtype)


def shapes(model: tf.Module) -> dict[str, list[int]]:
    return {key: variable.shape.as_list() for key, variable in checkpoints.model_variables(model).items()}


def relative_logit_error(model: tf.Module, listing: dict[str, Any]) -> float:
    """Largest absolute difference from the listed logits, relative to the largest of them."""
    for key, variable in checkpoints.model_variables(model).items():
        variable.assign(known_value(key, tuple(variable.shape), variable.dtype.as_numpy_dtype))
    images = np.random.default_rng(7).uniform(0, 1, listing["input_shape"]).astype(np.float32)
    expected = np.array(listing["logits"])
    return float(np.abs(model(images, is_training=False).numpy() - expected).max() / np.abs(expected).max())

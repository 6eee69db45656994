"""A network of keras.applications behind a linear head of our own: "keras:ResNet50" as an architecture.

Images [B, H, W, C] of values in [0, 1] -> times 255 and whatever else the network was trained with -> its body -> mean
(or maximum) over the image -> linear logits [B, K]. One grey channel becomes three equal ones. Weights of the body:

    weights=None                 drawn; batch normalisation then has no averages of a trained network
    weights="imagenet"           those of keras.applications, which Keras downloads once
    weights="PATH.weights.h5"    a file of the body (include_top=False) as `save_weights` writes it, or one of the
                                 .h5 files of keras.applications

Variables are named variables/<place>_<layer>_<variable>, without the numbers that Keras counts layers with, so that the
same network has the same names whatever was built before it. Float32 only.
"""

from collections.abc import Callable, Sequence
import hashlib
import os
import random
import re
import sys
from typing import Any
import warnings

import sonnet as snt
import tensorflow as tf

from zoo import errors

PREFIX = "keras:"
POOLINGS = ("avg", "max")
_RGB = 3
_WHITE = 255.0
_NO_FILES = (None, "imagenet")
Preprocess = Callable[[tf.Tensor], tf.Tensor]


class KerasApplication(snt.Module):
    """A body of keras.applications with a linear head; `build` makes it.

    Args:
        body: Keras model, images -> features.
        preprocess: what it expects to be done to pixels from 0 to 255.
        num_classes: number of logits K.
        is_pretrained: whether the weights of the body are given.

    Attributes:
        variables_by_name: all variables of the body, trained or not, in its own order.
        head: the linear layer.
        is_pretrained: see above.
        has_batch_norm: whether the body has batch normalisation.
    """

    def __init__(
        self, body: Any, preprocess: Preprocess, num_classes: int, is_pretrained: bool, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        # Behind functions, where neither TensorFlow nor Sonnet looks for variables: their names are given below.
        self._call_body: Callable[..., tf.Tensor] = lambda images, training: body(images, training=training)
        self._output_shape: Callable[..., Any] = lambda shape: body.compute_output_shape(shape)
        self._checked_size: tuple[int, ...] = ()
        self._preprocess = preprocess
        self.variables_by_name = _named_variables(body.layers)
        self.head = snt.Linear(num_classes)
        self.is_pretrained = is_pretrained
        self.has_batch_norm = any("BatchNormalization" in type(layer).__name__ for layer in body.layers)

    def __call__(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits of images.

        Args:
            images: [B, H, W, C] float32 in [0, 1]; C is 1 or 3.
            is_training: True for dropout, and the statistics of the batch in batch normalisation.

        Raises:
            InvalidValueError: the images have another number of channels, or another type, or are too small.
        """
        if images.shape[-1] not in (1, _RGB) or images.dtype != tf.float32:
            raise errors.InvalidValueError(
                f"images of {images.shape[-1]} channels in {images.dtype.name}: networks of keras.applications take 1 "
                "or 3 channels in float32; choose another architecture or --dtype"
            )
        self._check_size(images)
        colours = tf.repeat(images, _RGB, axis=-1) if images.shape[-1] == 1 else images
        return self.head(self._call_body(self._preprocess(colours * _WHITE), is_training))

    def _check_size(self, images: tf.Tensor) -> None:
        """Refuses images that are too small; TensorFlow itself would do so in a compiled function only.

        Raises:
            InvalidValueError: they are.
        """
        size = tuple(images.shape[1:3])
        if size == self._checked_size:
            return
        try:
            self._output_shape((None, *size, _RGB))
        except ValueError as error:
            raise errors.InvalidValueError(
                f"images of {size[0]} x {size[1]} pixels: too small for this network of keras.applications "
                f"({str(error).strip().partition(chr(10))[0]}); use larger images or another one"
            ) from error
        self._checked_size = size


def build(
    application: str,
    num_classes: int,
    weights: str | None = None,
    weights_sha256: str | None = None,
    pooling: str = "avg",
) -> KerasApplication:
    """A network of keras.applications with a head of its own.

    Args:
        application: its name, such as "ResNet50".
        num_classes: number of logits K.
        weights: see the module.
        weights_sha256: digest that the file of the weights must have; None for any.
        pooling: "avg" or "max": how maps become features.

    Raises:
        InvalidValueError: an argument lies outside these, or the weights are not of this network.
        MissingFileError: there is no such file of weights.
        MismatchError: it has another digest.
    """
    constructor = _constructor(application)
    if pooling not in POOLINGS:
        raise errors.InvalidValueError(f"pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
    _check_weights(weights, weights_sha256)
    body = _body(application, constructor, weights, pooling)
    # It stands beside the constructor, under this name for every network.
    preprocess: Preprocess = sys.modules[constructor.__module__].preprocess_input
    return KerasApplication(body, preprocess, num_classes, weights is not None)


def _constructor(application: str) -> Callable[..., Any]:
    import keras  # a second, which architectures of other kinds do not need

    found = getattr(keras.applications, application, None)
    if not callable(found) or application.startswith("_"):
        known = sorted(name for name in dir(keras.applications) if callable(getattr(keras.applications, name)))
        raise errors.InvalidValueError(
            f"architecture {PREFIX}{application}: keras.applications has no such network; it has {', '.join(known)}"
        )
    return found


def _check_weights(weights: str | None, sha256: str | None) -> None:
    if weights in _NO_FILES:
        if sha256 is not None:
            raise errors.InvalidValueError(
                f"weights_sha256 {sha256!r} with weights {weights!r}: is the digest of a file, which weights must name"
            )
        return
    assert weights is not None
    path = os.path.expanduser(weights)
    if not os.path.isfile(path):
        raise errors.MissingFileError(f"weights {weights!r}: no such file; expected a path, or imagenet")
    if not path.endswith(".h5"):
        raise errors.InvalidValueError(
            f"weights {weights!r}: expected a file that ends in .weights.h5, as save_weights writes it, or in .h5"
        )
    if sha256 is None:
        return
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise errors.MismatchError(
            f"weights {weights!r}: the file has the digest {found}, expected {sha256}; name the file that it is of"
        )


def _body(application: str, constructor: Callable[..., Any], weights: str | None, pooling: str) -> Any:
    path = weights if weights in _NO_FILES else os.path.expanduser(str(weights))
    # Keras draws the seeds of initial values from Python's generator; here they follow TensorFlow's seed, as others do.
    state = random.getstate()
    random.seed(int(tf.random.uniform([], maxval=1 << 31, dtype=tf.int64)))
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # Keras would leave what a file lacks at its initial values, with a warning.
            warnings.filterwarnings("error", message="Skipping")
            return constructor(include_top=False, weights=path, input_shape=(None, None, _RGB), pooling=pooling)
    except Exception as error:  # damaged files, those of other networks and failed downloads surface as many
        reason = str(error).strip().partition("\n")[0]
        raise errors.InvalidValueError(
            f"architecture {PREFIX}{application} with weights {weights!r}: cannot be loaded ({reason}); expected "
            "weights of this network without its head (include_top=False), and for imagenet a network connection"
        ) from error
    finally:
        random.setstate(state)


def _named_variables(layers: Sequence[Any]) -> dict[str, tf.Variable]:
    return {
        f"{place:03d}_{re.sub(r'_[0-9]+$', '', layer.name)}_{variable.name}": variable.value
        for place, layer in enumerate(layers)
        for variable in layer.variables
    }

"""Architectures by name: the value of every `--arch` flag.

The width of an architecture that has one can be said in the name: "resnet18_64" is "resnet18" with the option
{"width": 64}.

Any callable that returns a tf.Module can be used in place of a known name, as "package.module:callable". It is called
with num_classes and the options; the module is called as module(images, is_training) and returns logits [B, K].

"keras:ResNet50" is a network of keras.applications, with ImageNet weights if asked for; see keras_application.py.
"""

from collections.abc import Callable, Mapping
import functools
import inspect
import re
from typing import Any

import tensorflow as tf

from heldout.models import conv5, keras_application, lenet, mlp, resnet50, small_inception, small_resnet, vgg, vit
from heldout.running import user_code
from zoo import errors

ARCHITECTURES: dict[str, Callable[..., tf.Module]] = {
    "mlp": mlp.mlp,
    "lenet": lenet.lenet,
    "small_inception": small_inception.SmallInception,
    "resnet50": resnet50.resnet50,
    "conv5": conv5.conv5,
    "resnet18": small_resnet.resnet18,
    "resnet34": small_resnet.resnet34,
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vit": vit.VisionTransformer,
}
_WITH_WIDTH = re.compile(r"(.+)_([1-9][0-9]{0,8})")


def build(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    options: Mapping[str, Any] | None = None,
    dtype: tf.DType = tf.float32,
) -> tf.Module:
    """A model whose variables all exist, freshly initialised.

    The model is run once, not training, on a zero image, so that checkpoints can be restored into it and its
    variables counted before it sees data.

    Args:
        name: a key of `ARCHITECTURES`, also with a width behind it as in "resnet18_64", "keras:" and the name of a
            network of keras.applications, or "package.module:callable" for one of your own.
        num_classes: number of logits K, >= 1.
        image_shape: (H, W, C) of the images it will see.
        options: further keyword arguments of the architecture, such as {"hidden_sizes": [64]}.
        dtype: floating dtype of images, variables and logits. The architectures with batch normalisation exist in
            float32 only.

    Returns:
        The module, called as module(images [B, H, W, C], is_training) -> logits [B, K].

    Raises:
        InvalidValueError: name, options, sizes or dtype do not describe a model that can be built.
    """
    _check_sizes(num_classes, image_shape)
    if "num_classes" in (options or {}):
        raise errors.InvalidValueError(
            f"architecture {name!r} with options {dict(options or {})}: num_classes is set from the data; remove it"
        )
    base, width = _split(name)
    if width is not None and "width" in (options or {}):
        raise errors.InvalidValueError(
            f"architecture {name!r} with options {dict(options or {})}: the width is said twice; remove one"
        )
    of_name = {} if width is None else {"width": width}
    arguments = {"num_classes": num_classes, **of_name, **(options or {})}
    constructor = _find(base)
    _check_arguments(name, constructor, arguments)
    model = constructor(**arguments)
    if not callable(model):
        raise errors.InvalidValueError(
            f"architecture {name!r}: returned {type(model).__name__}, expected a tf.Module called as "
            "module(images, is_training); change what it returns"
        )
    _run_once(name, model, num_classes, image_shape, dtype)
    return model


def is_known(name: str) -> bool:
    """Whether a name is that of an architecture here, with or without a width, and not of one's own."""
    return _split(name)[0] in ARCHITECTURES


def _split(name: str) -> tuple[str, int | None]:
    """The name of an architecture without the width that stands behind it, and that width.

    Only architectures that have a width can be followed by one; any other name stays as it is.
    """
    match = _WITH_WIDTH.fullmatch(name)
    if match is None or "width" not in _option_names(ARCHITECTURES.get(match[1])):
        return name, None
    return match[1], int(match[2])


def _check_sizes(num_classes: int, image_shape: tuple[int, int, int]) -> None:
    if num_classes < 1:
        raise errors.InvalidValueError(f"num_classes {num_classes}: must be at least 1")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise errors.InvalidValueError(f"image_shape {tuple(image_shape)}: expected (H, W, C), all at least 1")


def _find(name: str) -> Callable[..., tf.Module]:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith(keras_application.PREFIX):
        application = name.removeprefix(keras_application.PREFIX)
        return functools.partial(keras_application.build, application)
    if not user_code.is_name(name):
        raise errors.InvalidValueError(
            f"architecture {name!r} is unknown; use one of {', '.join(sorted(ARCHITECTURES))}, a width behind those "
            "that have one as in resnet18_64, keras:NAME of keras.applications, or package.module:callable for your own"
        )
    return user_code.load(name, f"architecture {name!r}")


def _check_arguments(name: str, constructor: Callable[..., tf.Module], arguments: Mapping[str, Any]) -> None:
    signature = _signature(constructor)
    try:
        signature.bind(*((None,) if inspect.isclass(constructor) else ()), **arguments)
    except TypeError as error:
        known = _option_names(constructor)
        raise errors.InvalidValueError(
            f"architecture {name!r} with options {dict(arguments)}: {error}; it takes "
            f"{', '.join(known) if known else 'no options'}"
        ) from error


def _signature(constructor: Callable[..., tf.Module]) -> inspect.Signature:
    # Sonnet's metaclass hides the signature of its classes, so __init__ is asked, which takes self before the others.
    return inspect.signature(constructor.__init__ if inspect.isclass(constructor) else constructor)


def _option_names(constructor: Callable[..., tf.Module] | None) -> list[str]:
    if constructor is None:
        return []
    return [name for name in _signature(constructor).parameters if name not in ("self", "num_classes", "name")]


def _run_once(
    name: str, model: Callable[..., tf.Tensor], num_classes: int, image_shape: tuple[int, int, int], dtype: tf.DType
) -> None:
    try:
        logits = model(tf.zeros([1, *image_shape], dtype), is_training=False)
    except errors.HeldoutError:
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise errors.InvalidValueError(
            f"architecture {name!r} cannot run on one {dtype.name} image of shape {tuple(image_shape)}: {error}"
        ) from error
    if tuple(logits.shape) != (1, num_classes) or logits.dtype != dtype:
        raise errors.InvalidValueError(
            f"architecture {name!r}: for one image it returned shape {tuple(logits.shape)} {logits.dtype.name}, "
            f"expected logits of shape (1, {num_classes}) {dtype.name}"
        )

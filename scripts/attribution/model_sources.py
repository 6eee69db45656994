"""The model that an attribution program is asked about, with its training and test examples.

Two kinds: a run of a zoo, rebuilt from its checkpoint, whose training examples are its subset; and a user's own model,
"package.module:callable" or a Keras file. Here models become targets: nothing else in the programs knows what kind of
model it is.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from estimators import examples, parameters, targets
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry as datasets
from heldout.evaluation import judging
from heldout.running import user_code
from scripts.attribution import run_models, source_config
from zoo import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its examples.

    Attributes:
        target: of the model.
        train: the examples that it was trained on; ids are original indices.
        test: all test examples; ids are original indices.
        description: what it is, for people and as JSON.
        pictures: the data set, for images and class names; None where there is none.
    """

    target: targets.Target
    train: examples.Examples
    test: examples.Examples
    description: Mapping[str, Any]
    pictures: dataset_lib.Dataset | None


def load(
    source: source_config.SourceConfig,
    scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Loaded:
    """Rebuilds or imports the model.

    Args:
        source: where it is.
        scope: in which its variables are made, such as `strategy.scope`.

    Raises:
        MissingFileError, DamagedFileError, MismatchError: the run or its data set.
        InvalidValueError: the user's own model is not what it must be.
        EstimatorError: the model cannot be differentiated.
    """
    return _of_run(source, scope) if source.run is not None else _of_user(source, scope)


def _of_run(source: source_config.SourceConfig, scope: Callable[[], contextlib.AbstractContextManager[Any]]) -> Loaded:
    model = run_models.RunModel(source, scope)
    data, trained = model.data, np.flatnonzero(model.subset_mask())
    state = model.restore(source.epoch)
    decay = source.weight_decay
    if decay is None:
        decay = model.recipe.training.weight_decay if model.recipe is not None else 0.0
    target = _target(source, model.module, decay, predict=model.logits)
    train = examples.Examples(_Rows(data.train.images, trained), data.train.label[trained], trained)
    test = examples.Examples(data.test.images, data.test.label, data.test.index)
    description = {
        "model": model.name,
        "epoch": state.epoch,
        "dataset": data.fingerprint(),
        "weight_decay": decay,
        "parameters": source.parameters,
    }
    return Loaded(target, train, test, description, data)


class _Rows:
    """Some rows of an array that may be a memory map; they are read when they are asked for."""

    def __init__(self, array: np.ndarray, positions: np.ndarray) -> None:
        self._array, self._positions = array, positions
        self.shape, self.dtype = (len(positions), *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        return np.asarray(self._array[self._positions[chosen]])


def _of_user(source: source_config.SourceConfig, scope: Callable[[], contextlib.AbstractContextManager[Any]]) -> Loaded:
    assert source.model is not None
    data = None if source.dataset is None else datasets.load(source.dataset, source.data_dir)
    with scope():
        made = _keras_file(source.model) if source.model.endswith((".keras", ".h5")) else _call(source.model)
    model, train, test = made if isinstance(made, tuple) and len(made) == 3 else (made, None, None)
    if train is None and data is None:
        raise errors.InvalidValueError(
            f"--model={source.model}: gives a model without examples; return (model, (x_train, y_train), (x_test, "
            "y_test)), or name a --dataset"
        )
    if train is not None and data is not None:
        raise errors.InvalidValueError(f"--model={source.model}: brings its own examples; leave --dataset out")
    if data is not None:
        model = _on_images(source, model, data)
        train = (data.train.images, data.train.label)
        test = (data.test.images, data.test.label)
    is_target = isinstance(model, targets.Target)
    if is_target:
        _check_target(source)
    target = model if is_target else _target(source, model, source.weight_decay or 0.0)
    fingerprint = None if data is None else data.fingerprint()
    description = {"model": source.model, "dataset": fingerprint, "parameters": source.parameters}
    found = Loaded(target, _examples(source, train), _examples(source, test), description, data)
    _check_call(source, found)
    return found


def _check_target(source: source_config.SourceConfig) -> None:
    """Refuses flags that a target has already decided."""
    plain = source_config.SourceConfig(model=source.model)
    for name in ("loss", "parameters", "weight_decay", "jit_compile"):
        if getattr(source, name) != getattr(plain, name):
            raise errors.InvalidValueError(
                f"--{name} beside --model={source.model}, which returns a Target: the target says that; leave the flag "
                "out, or return the model"
            )


def _check_call(source: source_config.SourceConfig, found: Loaded) -> None:
    """Refuses a model that cannot be called on its examples."""
    for split in (found.train, found.test):
        first = tf.nest.map_structure(tf.convert_to_tensor, split.take(slice(0, 1)).inputs)
        try:
            found.target.predict(first)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            shapes = [tuple(array.shape[1:]) for array in tf.nest.flatten(split.inputs)]
            raise errors.InvalidValueError(
                f"--model={source.model}: cannot be called on its examples, inputs of shape {shapes}: "
                f"{str(error).strip().splitlines()[0]}; give it examples of the shape that it takes"
            ) from error


def _examples(source: source_config.SourceConfig, given: Any) -> examples.Examples:
    """Examples, or made of a pair of inputs and labels."""
    if isinstance(given, examples.Examples):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise errors.InvalidValueError(
            f"--model={source.model}: training and test examples are each a pair (inputs, labels), not "
            f"{type(given).__name__}; return (model, (x_train, y_train), (x_test, y_test))"
        )
    inputs, labels = given
    if isinstance(inputs, list):
        inputs = np.asarray(inputs)
    return examples.Examples(tf.nest.map_structure(_array, inputs), _array(labels))


def _array(values: Any) -> Any:
    return np.asarray(values) if not hasattr(values, "shape") else values


def _on_images(source: source_config.SourceConfig, model: Any, data: dataset_lib.Dataset) -> targets.Target:
    """The target of a model that is given images as the data set normalises them."""
    dtypes = {parameter.variable.dtype for parameter in parameters.of(model)}
    dtype = "float64" if dtypes == {tf.float64} else "float32"
    normalise, predict = judging.normaliser(data, dtype), targets.inference(model)
    return _target(source, model, source.weight_decay or 0.0, predict=lambda images: predict(normalise(images)))


def _target(
    source: source_config.SourceConfig,
    model: Any,
    weight_decay: float,
    predict: Callable[[Any], tf.Tensor] | None = None,
) -> targets.Target:
    """The target of a model; weight decay is that of weights and filters, as our training has it."""

    def decay(parameter: parameters.Parameter) -> float:
        return weight_decay if len(parameter.shape) > 1 else 0.0

    return targets.of(
        model,
        loss=source.loss,
        measured=source.measured,
        parameters=source.parameters,
        weight_decay=decay,
        predict=predict,
        jit_compile=source.jit_compile,
    )


def _keras_file(path: str) -> Any:
    if not pathlib.Path(path).is_file():
        raise errors.MissingFileError(f"--model={path}: there is no such file; check the path")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise errors.DamagedFileError(
            f"--model={path}: Keras cannot load it ({str(error).splitlines()[0]}); save the model again"
        ) from error


def _call(name: str) -> Any:
    """What the user's function returns."""
    if not user_code.is_name(name):
        raise errors.InvalidValueError(
            f"--model={name}: expected package.module:callable, or the path of a .keras file; for a run of a zoo give "
            "--run or --zoo"
        )
    return user_code.load(name, f"--model={name}")()

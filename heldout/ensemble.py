"""Many small models trained as one: every variable carries a leading run axis.

For models made of a list of layers (heldout/models/sequential.py), R of them are one computation:

    dense          [R, B, I] x [R, I, O] -> [R, B, O], one batched matrix product
    convolution    the channels of the R inputs lie side by side, [B, H, W, R C], and one grouped convolution with R
                   groups keeps them apart; on a CPU this is faster than a loop or image patches. Where the device
                   cannot differentiate one, a loop over runs takes its place.

The arithmetic of run r is that of the model alone, up to the rounding of another summation order.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from heldout import learners
from heldout.models import layers as model_layers
from heldout.models import sequential
from zoo import checkpoints


def supports(module: tf.Module) -> bool:
    """Whether every layer of the module has a batched rule."""
    return isinstance(module, sequential.SequentialClassifier) and all(map(_has_rule, module.layers))


def _has_rule(layer: sequential.Layer) -> bool:
    # A padding function and channels-first images are possible in Sonnet; the batched convolution knows neither.
    plain = not isinstance(layer, snt.Conv2D) or (layer.padding_func is None and layer.data_format == "NHWC")
    return type(layer) in _RULES and plain


class EnsembleLearner:
    """R sequential models with stacked variables; a `learners.Learner`.

    Args:
        template: a built model that gives layers and shapes; its own variables are not touched.
        num_runs: R.
    """

    def __init__(self, template: sequential.SequentialClassifier, num_runs: int) -> None:
        self.num_runs = num_runs
        self._layers = list(template.layers)
        members = checkpoints.model_variables(template)
        self._stacked = {
            key: tf.Variable(tf.zeros([num_runs, *variable.shape], variable.dtype)) for key, variable in members.items()
        }
        self._by_member = {variable.ref(): self._stacked[key] for key, variable in members.items()}
        members_trained = [variable.ref() for variable in template.trainable_variables]
        self.trainable_variables: list[tf.Variable] = [self._by_member[reference] for reference in members_trained]
        self.trainable_ranks: list[int] = [variable.shape.rank - 1 for variable in self.trainable_variables]

    def logits(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits [R, B, K] of images [R, B, H, W, C]."""
        del is_training  # no supported layer distinguishes
        activations = images
        for layer in self._layers:
            activations = _RULES[type(layer)](layer, self._stack_of, activations)
        return activations

    def _stack_of(self, member: tf.Variable) -> tf.Variable:
        return self._by_member[member.ref()]

    def assign(self, values: Sequence[learners.ModelValues]) -> None:
        """Sets all variables of all R models."""
        for key, stacked in self._stacked.items():
            stacked.assign(np.stack([of_run[key] for of_run in values]))

    def copy_to(self, run: int, module: tf.Module) -> None:
        """Copies the variables of model `run` into a module of the same architecture."""
        learners.assign(module, {key: stacked[run].numpy() for key, stacked in self._stacked.items()})


StackOf = Callable[[tf.Variable], tf.Variable]


def _dense(layer: snt.Linear, stack_of: StackOf, inputs: tf.Tensor) -> tf.Tensor:
    outputs = tf.matmul(inputs, stack_of(layer.w))
    return outputs + stack_of(layer.b)[:, None] if layer.with_bias else outputs


def _convolution(layer: snt.Conv2D, stack_of: StackOf, inputs: tf.Tensor) -> tf.Tensor:
    filters = stack_of(layer.w)
    options = {"strides": layer.stride, "padding": layer.conv_padding, "dilations": layer.rate}
    convolve = _convolve_grouped if grouped_convolution_works(inputs.dtype.name) else _convolve_one_by_one
    outputs = convolve(inputs, filters, options)
    return outputs + stack_of(layer.b)[:, None, None, None] if layer.with_bias else outputs


def _convolve_grouped(inputs: tf.Tensor, filters: tf.Tensor, options: dict[str, Any]) -> tf.Tensor:
    num_runs, height, width, _, channels = filters.shape
    # [R, B, H, W, C] -> [B, H, W, R C]: group r of the convolution is run r.
    side_by_side = tf.transpose(inputs, [1, 2, 3, 0, 4])
    shape = tf.shape(side_by_side)
    side_by_side = tf.reshape(side_by_side, [shape[0], shape[1], shape[2], num_runs * inputs.shape[-1]])
    grouped = tf.reshape(tf.transpose(filters, [1, 2, 3, 0, 4]), [height, width, -1, num_runs * channels])
    outputs = tf.nn.conv2d(side_by_side, grouped, **options)
    shape = tf.concat([tf.shape(outputs)[:3], [num_runs, channels]], 0)
    static = [outputs.shape[0], outputs.shape[1], outputs.shape[2], num_runs, channels]
    outputs = tf.ensure_shape(tf.reshape(outputs, shape), static)
    return tf.transpose(outputs, [3, 0, 1, 2, 4])


def _convolve_one_by_one(inputs: tf.Tensor, filters: tf.Tensor, options: dict[str, Any]) -> tf.Tensor:
    return tf.stack([tf.nn.conv2d(inputs[run], filters[run], **options) for run in range(filters.shape[0])])


@functools.cache
def grouped_convolution_works(dtype: str) -> bool:
    """Whether this build and device can differentiate a grouped convolution; on a CPU only oneDNN does, in float32."""
    with tf.init_scope():  # also when asked while a function is being traced
        try:
            gradient = tf.raw_ops.Conv2DBackpropFilter(
                input=tf.ones([2, 4, 4, 6], dtype),
                filter_sizes=[3, 3, 2, 12],
                out_backprop=tf.ones([2, 2, 2, 12], dtype),
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
        except tf.errors.OpError:
            return False
        # Each filter weight meets 2 images at 2 x 2 places, all ones.
        return bool(tf.reduce_all(tf.equal(gradient, 8)))


def _per_image(layer: Callable[..., tf.Tensor], stack_of: StackOf, inputs: tf.Tensor) -> tf.Tensor:
    """A layer without variables: runs and examples are one batch to it."""
    del stack_of
    shape = tf.shape(inputs)
    outputs = layer(tf.reshape(inputs, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)))
    restored = tf.reshape(outputs, tf.concat([shape[:2], tf.shape(outputs)[1:]], 0))
    return tf.ensure_shape(restored, [inputs.shape[0], None, *outputs.shape[1:]])


_RULES: dict[type, Callable[..., tf.Tensor]] = {
    snt.Linear: _dense,
    snt.Conv2D: _convolution,
    model_layers.Flatten: _per_image,
    model_layers.Relu: _per_image,
    model_layers.MaxPool: _per_image,
}

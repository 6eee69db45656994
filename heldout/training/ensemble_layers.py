"""How one layer is applied to R models at once, each with its own images and its own variables.

Between layers there are two forms. Features are [R, B, F]. Maps are [B, H, W, R C]: the channels of the R models lie
side by side, so that pooling, batch normalisation and ReLU are those of one model with R C channels.

    dense               [R, B, I] x [R, I, O] -> [R, B, O], one batched matrix product
    convolution         one grouped convolution with R groups; on a CPU this is faster than a loop or image patches.
                        Where the device cannot differentiate one, a loop over models takes its place
    batch norm          statistics are per channel, so none of one model's enters another's; the moving averages are
                        Sonnet's, debiased

The arithmetic of each model is that of the model alone, up to the rounding of another summation order. Products can be
computed in another type than that of the variables (mixed precision); statistics and variables keep theirs.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import sonnet as snt
import tensorflow as tf

from heldout.models import layers as model_layers


@dataclasses.dataclass(frozen=True)
class Context:
    """What a rule needs besides layer and inputs.

    Attributes:
        num_runs: R.
        stack_of: the variable [R, ...] that holds what a variable of the template is in each model.
        is_training: whether batch statistics are used and moving averages updated.
        compute_dtype: of products and of what goes from layer to layer.
    """

    num_runs: int
    stack_of: Callable[[tf.Variable], tf.Variable]
    is_training: bool
    compute_dtype: tf.DType

    def weights(self, member: tf.Variable) -> tf.Tensor:
        """The stacked variable, as it enters products."""
        return tf.cast(self.stack_of(member), self.compute_dtype)


def maps_of(inputs: tf.Tensor) -> tf.Tensor:
    """Images [R, B, H, W, C] as maps; maps stay."""
    if inputs.shape.rank == 4:
        return inputs
    num_runs, _, height, width, channels = inputs.shape
    side_by_side = tf.transpose(inputs, [1, 2, 3, 0, 4])
    return tf.reshape(side_by_side, [-1, height, width, num_runs * channels])


def by_run(maps: tf.Tensor, num_runs: int) -> tf.Tensor:
    """Maps with the runs apart: [B, H, W, R, C]."""
    _, height, width, channels = maps.shape
    return tf.reshape(maps, [-1, height, width, num_runs, channels // num_runs])


def pooled(maps: tf.Tensor, num_runs: int, reduce: Callable[..., tf.Tensor]) -> tf.Tensor:
    """Features [R, B, C]: maps reduced over height and width, by tf.reduce_max or tf.reduce_mean."""
    by_image = by_run(reduce(maps, axis=[1, 2], keepdims=True), num_runs)
    return tf.transpose(by_image[:, 0, 0], [1, 0, 2])


def dense(layer: snt.Linear, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Features [R, B, O] of features [R, B, I]."""
    outputs = tf.matmul(inputs, context.weights(layer.w))
    return outputs + context.weights(layer.b)[:, None] if layer.with_bias else outputs


def convolution(layer: snt.Conv2D, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Maps of images or maps."""
    filters = context.weights(layer.w)
    options = {"strides": layer.stride, "padding": layer.conv_padding, "dilations": layer.rate}
    convolve = _convolve_grouped if grouped_convolution_works(inputs.dtype.name) else _convolve_one_by_one
    maps = maps_of(inputs)
    if layer.padding_func is not None:
        maps = tf.pad(maps, layer._padding)
    outputs = convolve(maps, filters, options)
    return outputs + tf.reshape(context.weights(layer.b), [-1]) if layer.with_bias else outputs


def _convolve_grouped(maps: tf.Tensor, filters: tf.Tensor, options: dict[str, Any]) -> tf.Tensor:
    num_runs, height, width, channels_in, channels = filters.shape
    # Group r of the convolution is run r.
    grouped = tf.reshape(tf.transpose(filters, [1, 2, 3, 0, 4]), [height, width, channels_in, num_runs * channels])
    return tf.nn.conv2d(maps, grouped, **options)


def _convolve_one_by_one(maps: tf.Tensor, filters: tf.Tensor, options: dict[str, Any]) -> tf.Tensor:
    num_runs = filters.shape[0]
    of_runs = tf.split(maps, num_runs, axis=-1)
    return tf.concat([tf.nn.conv2d(of_runs[run], filters[run], **options) for run in range(num_runs)], axis=-1)


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


def batch_norm(layer: snt.BatchNorm, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Normalised maps. Training uses the batch's statistics and moves the averages."""
    averages = [context.stack_of(average.average) for average in (layer.moving_mean, layer.moving_variance)]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps_of(inputs),
        scale=tf.reshape(context.stack_of(layer.scale), [-1]),
        offset=tf.reshape(context.stack_of(layer.offset), [-1]),
        mean=[] if context.is_training else tf.reshape(averages[0], [-1]),
        variance=[] if context.is_training else tf.reshape(averages[1], [-1]),
        epsilon=layer._eps,
        is_training=context.is_training,
    )
    if context.is_training:
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            _update_average(average, context, value)
    return outputs


def _update_average(average: snt.ExponentialMovingAverage, context: Context, value: tf.Tensor) -> None:
    """Sonnet's update of one debiased exponential moving average, for R of them."""
    hidden, debiased = context.stack_of(average._hidden), context.stack_of(average.average)
    counter = context.stack_of(average._counter)
    counter.assign_add(tf.ones_like(counter))
    hidden.assign_sub((hidden - tf.reshape(value, hidden.shape)) * (1 - average._decay))
    steps = tf.reshape(tf.cast(counter, hidden.dtype), [-1, *(1 for _ in hidden.shape[1:])])
    debiased.assign(hidden / (1 - tf.pow(tf.cast(average._decay, hidden.dtype), steps)))


def flatten(layer: model_layers.Flatten, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Features of images or maps, in the order of a single model."""
    del layer
    if inputs.shape.rank == 4:
        inputs = tf.transpose(by_run(inputs, context.num_runs), [3, 0, 1, 2, 4])
    num_features = inputs.shape[2:].num_elements()
    return tf.reshape(inputs, tf.stack([context.num_runs, tf.shape(inputs)[1], num_features]))


def relu(layer: model_layers.Relu, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """max(x, 0) of anything."""
    del context
    return layer(inputs)


def pool(
    layer: model_layers.MaxPool | model_layers.AveragePool | model_layers.Subsample, context: Context, inputs: tf.Tensor
) -> tf.Tensor:
    """Maps of images or maps."""
    del context
    return layer(maps_of(inputs))


def global_max_pool(layer: model_layers.GlobalMaxPool, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Features of images or maps."""
    del layer
    return pooled(maps_of(inputs), context.num_runs, tf.reduce_max)


def global_average_pool(layer: model_layers.GlobalAveragePool, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """Features of images or maps."""
    del layer
    return pooled(maps_of(inputs), context.num_runs, tf.reduce_mean)

"""Which rule applies R models of an architecture at once, from the whole network down to its layers.

For each kind of module a function (module, context, inputs) -> outputs; inputs and outputs are images, features or maps
as ensemble_layers.py describes them. Networks here do what their own `__call__` does, part by part.
"""

from collections.abc import Callable

import sonnet as snt
from sonnet.src.nets import resnet
import tensorflow as tf

from heldout.models import layers as model_layers
from heldout.models import sequential, small_inception
from heldout.training import ensemble_layers

Context = ensemble_layers.Context


def supports(module: tf.Module) -> bool:
    """Whether there is a rule for the module and everything in it."""
    if isinstance(module, sequential.SequentialClassifier):
        return all(map(supports, module.layers))
    if isinstance(module, snt.Conv2D):
        return type(module) is snt.Conv2D and module.data_format == "NHWC"
    if isinstance(module, resnet.ResNet):
        return not module._resnet_v2
    return type(module) in _RULES


def apply(module: tf.Module, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """What the R models make of their inputs.

    Args:
        module: built, of one of the kinds that `supports` knows.
        context: whose variables, and what for.
        inputs: images [R, B, H, W, C], or what an earlier module returned.

    Returns:
        Features or maps.
    """
    return _RULES[type(module)](module, context, inputs)


def _in_sequence(modules: list[tf.Module], context: Context, inputs: tf.Tensor) -> tf.Tensor:
    for module in modules:
        inputs = apply(module, context, inputs)
    return inputs


def _sequential(module: sequential.SequentialClassifier, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    return _in_sequence(module.layers, context, inputs)


def _conv_bn_relu(module: small_inception.ConvBNReLU, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(_in_sequence([module.conv, module.bn], context, inputs))


def _inception_block(module: small_inception.InceptionBlock, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    branches = [apply(branch, context, inputs) for branch in (module.conv1x1, module.conv3x3)]
    # Each run's branches side by side, not all runs' first branches and then all their second ones.
    joined = tf.concat([ensemble_layers.by_run(branch, context.num_runs) for branch in branches], axis=-1)
    return tf.reshape(joined, [-1, *joined.shape[1:3], joined.shape[3] * joined.shape[4]])


def _stage(module: small_inception.Stage, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    return _in_sequence(module.parts, context, inputs)


def _small_inception(module: small_inception.SmallInception, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    outputs = apply(module.conv1, context, inputs)
    if module.large_inputs:
        outputs = small_inception.pool_large(outputs)
    outputs = _in_sequence([module.stage1, module.stage2, module.stage3], context, outputs)
    return apply(module.prediction, context, ensemble_layers.pooled(outputs, context.num_runs, tf.reduce_max))


def _bottleneck(module: resnet.BottleNeckBlockV1, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    shortcut = inputs
    if module._use_projection:
        shortcut = _in_sequence([module._proj_conv, module._proj_batchnorm], context, inputs)
    outputs = inputs
    for number, layers in enumerate(module._layers):
        outputs = _in_sequence(layers, context, outputs)
        if number < len(module._layers) - 1:
            outputs = tf.nn.relu(outputs)
    return tf.nn.relu(outputs + shortcut)


def _block_group(module: resnet.BlockGroup, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    return _in_sequence(module._blocks, context, inputs)


def _resnet(module: resnet.ResNet, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    outputs = tf.nn.relu(_in_sequence([module._initial_conv, module._initial_batchnorm], context, inputs))
    outputs = tf.nn.max_pool2d(outputs, ksize=3, strides=2, padding="SAME")
    outputs = _in_sequence(module._block_groups, context, outputs)
    return apply(module._logits, context, ensemble_layers.pooled(outputs, context.num_runs, tf.reduce_mean))


_RULES: dict[type, Callable[..., tf.Tensor]] = {
    snt.Linear: ensemble_layers.dense,
    snt.Conv2D: ensemble_layers.convolution,
    snt.BatchNorm: ensemble_layers.batch_norm,
    model_layers.Flatten: ensemble_layers.flatten,
    model_layers.Relu: ensemble_layers.relu,
    model_layers.MaxPool: ensemble_layers.max_pool,
    sequential.SequentialClassifier: _sequential,
    small_inception.ConvBNReLU: _conv_bn_relu,
    small_inception.InceptionBlock: _inception_block,
    small_inception.Stage: _stage,
    small_inception.SmallInception: _small_inception,
    resnet.BottleNeckBlockV1: _bottleneck,
    resnet.BlockGroup: _block_group,
    resnet.ResNet50: _resnet,
}

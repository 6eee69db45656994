"""Which rule applies R models of an architecture at once, from the whole network down to its layers.

For each kind of module a function (module, context, inputs) -> outputs; inputs and outputs are images, features or maps
as ensemble_layers.py describes them. Networks here do what their own `__call__` does, part by part; a subclass that
only puts other parts into a list of layers or a ResNet is applied by their rules.
"""

from collections.abc import Callable

import sonnet as snt
from sonnet.src.nets import resnet
import tensorflow as tf

from heldout.models import layers as model_layers
from heldout.models import sequential, small_inception, small_resnet
from heldout.training import ensemble_layers

Context = ensemble_layers.Context


def supports(module: tf.Module) -> bool:
    """Whether there is a rule for the module and everything in it."""
    kind = _kind(module)
    if kind is sequential.SequentialClassifier:
        return all(map(supports, module.layers))
    if kind is small_resnet.BasicBlock:
        return all(map(supports, [*module.branch, *module.shortcut]))
    if kind is snt.BatchNorm:
        # Sonnet says whether it is one of images when it is built.
        return bool(getattr(module, "_fused", True))
    if kind is snt.Conv2D:
        return module.data_format == "NHWC"
    if kind is resnet.ResNet:
        return not module._resnet_v2 and all(map(supports, _resnet_parts(module)))
    return kind in _RULES


def apply(module: tf.Module, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    """What the R models make of their inputs.

    Args:
        module: built, of one of the kinds that `supports` knows.
        context: whose variables, and what for.
        inputs: images [R, B, H, W, C], or what an earlier module returned.

    Returns:
        Features or maps.
    """
    return _RULES[_kind(module)](module, context, inputs)


def _kind(module: tf.Module) -> type:
    """The class by whose rule a module is applied: its own, or the network that it is made as a form of."""
    own = type(module)
    networks = [network for network in _NETWORKS if isinstance(module, network) and not _overrides(own, network)]
    return networks[0] if networks else own


def _overrides(own: type, network: type) -> bool:
    """Whether a subclass changes any method of a network, except how it is made."""
    between = own.__mro__[: own.__mro__.index(network)]
    methods = [name for part in between for name, value in vars(part).items() if hasattr(value, "__get__")]
    # Sonnet gives every class a __repr__ of its own.
    return any(hasattr(network, name) for name in methods if name == "__call__" or not name.startswith("__"))


def _in_sequence(modules: list[tf.Module], context: Context, inputs: tf.Tensor) -> tf.Tensor:
    for module in modules:
        inputs = apply(module, context, inputs)
    return inputs


def _sequential(module: sequential.SequentialClassifier, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    return _in_sequence(module.layers, context, inputs)


def _basic_block(module: small_resnet.BasicBlock, context: Context, inputs: tf.Tensor) -> tf.Tensor:
    maps = ensemble_layers.maps_of(inputs)
    branch, shortcut = (_in_sequence(layers, context, maps) for layers in (module.branch, module.shortcut))
    return tf.nn.relu(branch + shortcut)


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


def _resnet_parts(module: resnet.ResNet) -> list[tf.Module]:
    return [module._initial_conv, module._initial_batchnorm, *module._block_groups, module._logits]


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
    model_layers.MaxPool: ensemble_layers.pool,
    model_layers.AveragePool: ensemble_layers.pool,
    model_layers.Subsample: ensemble_layers.pool,
    model_layers.GlobalMaxPool: ensemble_layers.global_max_pool,
    model_layers.GlobalAveragePool: ensemble_layers.global_average_pool,
    sequential.SequentialClassifier: _sequential,
    small_resnet.BasicBlock: _basic_block,
    small_inception.ConvBNReLU: _conv_bn_relu,
    small_inception.InceptionBlock: _inception_block,
    small_inception.Stage: _stage,
    small_inception.SmallInception: _small_inception,
    resnet.BottleNeckBlockV1: _bottleneck,
    resnet.BlockGroup: _block_group,
    resnet.ResNet: _resnet,
}
# What they are made of is up to their subclasses.
_NETWORKS = (sequential.SequentialClassifier, resnet.ResNet)

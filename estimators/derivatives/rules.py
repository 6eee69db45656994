"""For each kind of operation: what its shared input gets from each example.

A rule takes a `capture.Use`, the cotangent of its output (the gradient of the sum of the examples' losses with respect
to it) and the number of examples B, and returns a `contributions.Contribution`. Axis 0 of every tensor that belongs to
examples runs over examples, or over examples and, within each, further places (sequences that were flattened). Shapes
are static. That the rules do what they should in a given model is proved on examples when a plan is made.

A new kind of operation needs one function here and an entry in `_RULES`.
"""

from collections.abc import Callable
import math

import tensorflow as tf

from estimators import errors
from estimators.derivatives import capture, contributions, layouts


class NoRuleError(errors.EstimatorError, NotImplementedError):
    """An operation whose gradients of single examples cannot be read off; the message says why."""


def contribution(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """What a use contributes to the gradients of single examples.

    Args:
        use: the use.
        cotangent: gradient with respect to its output, of the same shape.
        num_examples: B.

    Returns:
        The contribution, whose shape is that of the shared tensor.

    Raises:
        NoRuleError: there is no rule for it.
    """
    check_known(use)
    return _RULES[use.operation.type](use, _wide(cotangent), num_examples)


def _wide(tensor: tf.Tensor) -> tf.Tensor:
    """At least float32: sums over places, and squares, are not made in numbers of 16 bits."""
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating and tensor.dtype.size < 4 else tensor


def check_known(use: capture.Use) -> None:
    """Raises NoRuleError for a kind of operation that has no rule."""
    if use.operation.type not in _RULES:
        raise NoRuleError(f"no rule for the operation {use.operation.type}")


def _by_example(tensor: tf.Tensor, num_examples: int) -> tf.Tensor:
    """[B T, C] or [B, ..., C] -> [B, T, C]."""
    first = tensor.shape[0]
    if first is None or first % num_examples:
        raise NoRuleError(f"a tensor of shape {tensor.shape} has no axis of {num_examples} examples in front")
    return tf.reshape(tensor, [num_examples, -1, tensor.shape[-1]])


def _product(
    layout: layouts.Layout, rows: tf.Tensor, cotangents: tf.Tensor, num_examples: int
) -> contributions.Contribution:
    """A product without groups of rows [B..., I] that gave [B..., O]."""
    return contributions.Product(
        layout,
        tf.expand_dims(_by_example(rows, num_examples), 1),
        tf.expand_dims(_by_example(cotangents, num_examples), 1),
    )


def _matmul(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    operation = use.operation
    if use.slot != 1 or operation.get_attr("transpose_a"):
        raise NoRuleError("a matrix product with the parameter on the left")
    transposed = operation.get_attr("transpose_b")
    num_outputs, num_inputs = use.shape if transposed else reversed(use.shape)
    layout = layouts.dense(num_inputs, num_outputs, transposed=transposed)
    return _product(layout, _wide(operation.inputs[0]), cotangent, num_examples)


def _batch_matmul(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    operation = use.operation
    if use.slot != 1 or operation.get_attr("adj_x") or operation.get_attr("adj_y"):
        raise NoRuleError("a batched matrix product with the parameter on the left, or transposed")
    if math.prod(use.shape[:-2]) != 1:
        raise NoRuleError(f"a batched matrix product with a parameter of shape {use.shape}")
    shape = use.shape
    layout = layouts.Layout(shape, shape[-2:], (), (0,), (1,))
    return _product(layout, _wide(operation.inputs[0]), cotangent, num_examples)


def _einsum(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """x, w -> y by letters: those of w in x alone are inputs, in y alone outputs, in both groups."""
    equation = use.operation.get_attr("equation").decode()
    sources, _, result = equation.replace(" ", "").partition("->")
    terms = sources.split(",")
    if len(terms) != 2 or "." in equation or any(len(set(t)) != len(t) for t in (*terms, result)):
        raise NoRuleError(f"einsum {equation}")
    kernel, other = terms[use.slot], terms[1 - use.slot]
    batch = other[0]
    if result[:1] != batch or batch in kernel or not set(kernel) <= set(other) | set(result):
        raise NoRuleError(f"einsum {equation}: the first letter is not the examples'")
    groups = [c for c in kernel if c in other and c in result]
    ins, outs = [c for c in kernel if c not in result], [c for c in kernel if c not in other]
    places = [c for c in other if c in result and c not in kernel and c != batch]
    if set(other) - set(result) - set(ins):
        raise NoRuleError(f"einsum {equation} sums over an axis of the examples alone")
    shape = use.shape
    layout = layouts.Layout(shape, shape, *(tuple(kernel.index(c) for c in axes) for axes in (groups, ins, outs)))

    def ordered(tensor: tf.Tensor, letters: str, last: list[str]) -> tf.Tensor:
        order = [batch, *groups, *places, *last]
        extents = dict(zip(letters, tensor.shape, strict=True))
        moved = tf.transpose(tensor, [letters.index(c) for c in order])
        sizes = [math.prod(extents[c] for c in axes) for axes in (groups, places, last)]
        return tf.reshape(moved, [num_examples, *sizes])

    rows = ordered(_wide(use.operation.inputs[1 - use.slot]), other, ins)
    return contributions.Product(layout, rows, ordered(cotangent, result, outs))


def _convolution(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    if use.slot != 1:
        raise NoRuleError("a convolution of a parameter with the examples as its kernel")
    images = _wide(use.operation.inputs[0])
    return _convolve(use, images, cotangent, num_examples)


def _transposed_convolution(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """The transposed convolution looks from its outputs at its inputs: the two change places."""
    if use.slot != 1:
        raise NoRuleError("a transposed convolution of a parameter")
    return _convolve(use, cotangent, _wide(use.operation.inputs[2]), num_examples)


def _convolve(use: capture.Use, images: tf.Tensor, outputs: tf.Tensor, num_examples: int) -> contributions.Contribution:
    operation, kernel = use.operation, use.shape
    channels_first = _is_channels_first(operation)
    if channels_first:
        order = [0, *range(2, len(images.shape)), 1]
        images, outputs = tf.transpose(images, order), tf.transpose(outputs, order)
    window = _window(operation, kernel[:-2], images, outputs, channels_first)
    if images.shape[0] != num_examples and _is_spread(images):
        images, outputs = (_interleaved(tensor, num_examples) for tensor in (images, outputs))
        window = window.with_axis(images.shape[1])
    if images.shape[0] != num_examples:
        raise NoRuleError(f"a convolution of images {images.shape} that are not one for each example")
    if operation.type == "DepthwiseConv2dNative":
        layout = layouts.depthwise(kernel)
    else:
        layout = layouts.convolution(kernel, images.shape[-1] // kernel[-2])
    return contributions.Convolution(layout, window, images, outputs)


def _is_spread(images: tf.Tensor) -> bool:
    """Whether dilation was made of space moved into the batch."""
    operation = images.op
    while operation.type in ("ExpandDims", "Reshape", "Cast"):
        operation = operation.inputs[0].op
    return operation.type == "SpaceToBatchND"


def _interleaved(tensor: tf.Tensor, num_examples: int) -> tf.Tensor:
    """[N B, ...] -> [B, N, ...]: a dilated convolution sees every image as N coarser ones, which run slowest."""
    first, *rest = tensor.shape
    if first is None or first % num_examples:
        raise NoRuleError(f"a dilated convolution of images {tensor.shape} for {num_examples} examples")
    split = tf.reshape(tensor, [first // num_examples, num_examples, *rest])
    return tf.transpose(split, [1, 0, *range(2, len(split.shape))])


def _window(
    operation: tf.Operation, sizes: tuple[int, ...], images: tf.Tensor, outputs: tf.Tensor, channels_first: bool
) -> contributions.Window:
    space = slice(2, None) if channels_first else slice(1, -1)
    strides, dilations = (tuple(operation.get_attr(name)[space]) for name in ("strides", "dilations"))
    places, extents = tuple(outputs.shape[1:-1]), tuple(images.shape[1:-1])
    padding = operation.get_attr("padding").decode()
    # What the windows cover, beyond what there is.
    spans = zip(places, strides, sizes, dilations, extents, strict=True)
    excess = [max((p - 1) * s + (k - 1) * d + 1 - n, 0) for p, s, k, d, n in spans]
    before = [0] * len(sizes)
    if padding == "SAME":
        before = [e // 2 for e in excess]
    elif padding == "EXPLICIT":
        before = list(operation.get_attr("explicit_paddings")[0::2][space])
    after = [max(e - b, 0) for e, b in zip(excess, before, strict=True)]
    return contributions.Window(sizes, strides, dilations, tuple(before), tuple(after), places)


def _offset(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """An offset: x + P, P - x and their like."""
    negative = use.operation.type == "Sub" and use.slot == 1
    axis = 1 if use.operation.type == "BiasAdd" and _is_channels_first(use.operation) else None
    return _summed(-cotangent if negative else cotangent, use, num_examples, axis)


def _scale(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """A scale: x P."""
    return _summed(cotangent * _wide(use.operation.inputs[1 - use.slot]), use, num_examples)


def _quotient(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """A divisor: x / P, with derivative -x / P^2."""
    if use.slot != 1:
        raise NoRuleError("a parameter divided by what belongs to examples")
    return _summed(-cotangent * _wide(use.output) / _wide(use.shared), use, num_examples)


def _is_channels_first(operation: tf.Operation) -> bool:
    # Operations that were given no format have none stored, and channels last.
    return (operation.get_attr("data_format") or b"NHWC").startswith(b"NC")


def _summed(
    values: tf.Tensor, use: capture.Use, num_examples: int, channel_axis: int | None = None
) -> contributions.Contribution:
    """Sums over the axes along which the shared tensor was repeated, but for the examples'."""
    shape = use.shape
    if channel_axis is not None:
        values = tf.transpose(values, [0, *range(2, len(values.shape)), 1])
    rank = len(values.shape)
    if len(shape) == rank and shape[0] != 1:
        raise NoRuleError(f"{use.operation.type} of examples with a parameter of shape {shape}, which names examples")
    if values.shape[0] is None or values.shape[0] % num_examples:
        raise NoRuleError(
            f"{use.operation.type} gives {values.shape}, with no axis of {num_examples} examples in front"
        )
    aligned = (1,) * (rank - len(shape)) + shape
    split = tf.reshape(values, [num_examples, -1, *values.shape[1:]])
    repeated = [1, *(2 + axis for axis in range(rank - 1) if aligned[1 + axis] == 1)]
    return contributions.Formed(tf.reshape(tf.reduce_sum(split, axis=repeated), [num_examples, *shape]))


def _batch_norm(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, with given mean and variance."""
    operation = use.operation
    if operation.get_attr("is_training") or use.slot not in (1, 2):
        raise NoRuleError("batch normalisation by the statistics of the batch")
    images = operation.inputs[0]
    if _is_channels_first(operation):
        order = [0, *range(2, len(images.shape)), 1]
        images, cotangent = tf.transpose(images, order), tf.transpose(cotangent, order)
    if use.slot == 1:
        mean, variance = operation.inputs[3:5]
        root = tf.math.rsqrt(variance + operation.get_attr("epsilon"))
        cotangent = cotangent * tf.cast((tf.cast(images, root.dtype) - mean) * root, cotangent.dtype)
    return _summed(cotangent, use, num_examples)


def _lookup(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """Rows of a table [V, D] at keys [B, ...]."""
    operation, shape = use.operation, use.shape
    if use.slot != 0 or len(shape) != 2:
        raise NoRuleError(f"a look-up in a table of shape {shape}")
    if operation.type == "GatherV2" and tf.get_static_value(operation.inputs[2]) != 0:
        raise NoRuleError("a look-up along another axis than the first")
    keys, width = operation.inputs[1], shape[1]
    if keys.shape[0] != num_examples:
        raise NoRuleError(f"a look-up of keys {keys.shape} that are not one row for each example")
    flat = tf.reshape(keys, [num_examples, -1])
    return contributions.Lookup(shape[0], flat, tf.reshape(cotangent, [num_examples, -1, width]))


def _broadcast(use: capture.Use, cotangent: tf.Tensor, num_examples: int) -> contributions.Contribution:
    """A parameter repeated for every example, such as the class token of a transformer."""
    if use.slot != 0:
        raise NoRuleError("a shape that depends on a parameter")
    # `tf.repeat` puts the axis of examples behind others of extent 1.
    values, shape = cotangent, (1,) * (len(cotangent.shape) - len(use.shape)) + use.shape
    while len(shape) > 1 and values.shape[0] == 1 != num_examples:
        values, shape = values[0], shape[1:]
    if any(size not in (1, extent) for size, extent in zip(shape[1:], values.shape[1:], strict=True)):
        raise NoRuleError(f"a parameter of shape {use.shape} repeated to {cotangent.shape}")
    if shape[0] != 1 or values.shape[0] != num_examples:
        raise NoRuleError(f"a parameter of shape {use.shape} repeated to {cotangent.shape} for {num_examples} examples")
    repeated = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0]
    return contributions.Formed(tf.reshape(tf.reduce_sum(values, axis=repeated), [num_examples, *use.shape]))


_Rule = Callable[[capture.Use, tf.Tensor, int], contributions.Contribution]
_RULES: dict[str, _Rule] = {
    "MatMul": _matmul,
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "Add": _offset,
    "AddV2": _offset,
    "BiasAdd": _offset,
    "Sub": _offset,
    "Mul": _scale,
    "RealDiv": _quotient,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "GatherV2": _lookup,
    "ResourceGather": _lookup,
    "BroadcastTo": _broadcast,
    "Tile": _broadcast,
}

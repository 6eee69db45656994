"""The derivative of max pooling, from the places of the maxima, which are found once and not anew for every pass.

TensorFlow's own searches each window again in every backward pass, which costs as much as a convolution. Used for pools
whose windows do not overlap; the others keep TensorFlow's. Both give the gradient to the first maximum of a window.
Where a rectifier is read by such a pool alone, the places say at once where its maximum is above 0, and the rectifier
has no pass of its own.
"""

from collections.abc import Callable

import tensorflow as tf

# For `tf.Graph.gradient_override_map` around the forward pass.
OVERRIDES = {"MaxPool": "EstimatorsMaxPoolByPlaces", "Relu": "EstimatorsReluBeforePool"}
_FOLDED = "rectifiers that their pools stand for"


def fold(graph: tf.Graph) -> None:
    """Finds the rectifiers that are read by a pool alone; called between the forward pass and the first derivative."""
    known = set(graph.get_collection(_FOLDED))
    for operation in graph.get_operations():
        if operation.type == "MaxPool" and _fits(operation):
            before = operation.inputs[0].op
            if before.type == "Relu" and before.outputs[0].consumers() == [operation] and before.name not in known:
                graph.add_to_collection(_FOLDED, before.name)


def _is_folded(operation: tf.Operation) -> bool:
    return operation.name in operation.graph.get_collection(_FOLDED)


@tf.RegisterGradient(OVERRIDES["Relu"])
def _of_rectifier(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """Cotangent of the input of a rectifier."""
    if _is_folded(operation):
        return cotangent
    return tf.raw_ops.ReluGrad(gradients=cotangent, features=operation.outputs[0])


@tf.RegisterGradient(OVERRIDES["MaxPool"])
def _gradient(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """Cotangent of the input [B, H, W, C] from that of the output."""
    if not _fits(operation):
        return _as_usual(operation, cotangent)
    inputs, size = operation.inputs[0], operation.get_attr("ksize")[1]
    spread = _spread(_mask(operation, size), size)(cotangent)
    rest = [inputs.shape[k] - spread.shape[k] for k in (1, 2)]
    return tf.pad(spread, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]]) if any(rest) else spread


def _fits(operation: tf.Operation) -> bool:
    """Whether windows are square, do not overlap and lie within the image."""
    sizes, strides = operation.get_attr("ksize"), operation.get_attr("strides")
    inputs, size = operation.inputs[0], sizes[1]
    is_plain = operation.get_attr("data_format") == b"NHWC" and sizes == [1, size, size, 1] and inputs.shape.rank == 4
    apart = is_plain and strides == sizes and inputs.shape.is_fully_defined() and size > 1
    return apart and (operation.get_attr("padding") == b"VALID" or not any(n % size for n in inputs.shape[1:3]))


def _spread(mask: tf.Tensor, size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """The linear map that puts each number of [B, h, w, C] where the mask [B, h size, w size, C] is 1 in its window.

    Its derivative, which sums what the mask leaves of each window, and the derivative of that are written out, so that
    either takes one pass over its numbers.
    """

    @tf.custom_gradient
    def spread(small: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        large = mask * tf.raw_ops.ResizeNearestNeighbor(images=small, size=mask.shape[1:3])
        return large, gather

    @tf.custom_gradient
    def gather(large: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return size * size * tf.nn.avg_pool2d(mask * large, size, size, "VALID"), spread

    return spread


def _mask(operation: tf.Operation, size: int) -> tf.Tensor:
    """[B, h size, w size, C]: 1 where the first maximum of each window is, 0 elsewhere; 0 at a rectifier's zeros."""
    # Kept with the graph of the forward pass, in which it is computed even if the gradient is traced within a loop.
    kept = operation.graph.get_collection_ref(f"mask of {operation.name}")
    if not kept:
        with operation.graph.as_default():
            inputs, outputs = operation.inputs[0], operation.outputs[0]
            height, width = outputs.shape[1] * size, outputs.shape[2] * size
            mask = _as_usual(operation, tf.ones_like(outputs))[:, :height, :width]
            inputs = inputs[:, :height, :width]
            kept.append(tf.where(inputs > 0, mask, 0) if _is_folded(operation.inputs[0].op) else mask)
    return kept[0]


def _as_usual(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.MaxPoolGrad(
        orig_input=operation.inputs[0],
        orig_output=operation.outputs[0],
        grad=cotangent,
        ksize=operation.get_attr("ksize"),
        strides=operation.get_attr("strides"),
        padding=operation.get_attr("padding"),
        explicit_paddings=operation.get_attr("explicit_paddings"),
        data_format=operation.get_attr("data_format"),
    )

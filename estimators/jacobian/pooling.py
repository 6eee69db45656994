"""The derivative of max pooling, from the places of the maxima, which are found once and not anew for every pass.

TensorFlow's own searches each window again in every backward pass, which costs as much as a convolution. Used for pools
whose windows do not overlap; the others keep TensorFlow's. Both give the gradient to the first maximum of a window.
"""

import tensorflow as tf

# For `tf.Graph.gradient_override_map` around the forward pass.
OVERRIDES = {"MaxPool": "EstimatorsMaxPoolByPlaces"}


@tf.RegisterGradient(OVERRIDES["MaxPool"])
def _gradient(operation: tf.Operation, cotangent: tf.Tensor) -> tf.Tensor:
    """Cotangent of the input [B, H, W, C] from that of the output."""
    sizes, strides = operation.get_attr("ksize"), operation.get_attr("strides")
    inputs, size = operation.inputs[0], sizes[1]
    is_plain = operation.get_attr("data_format") == b"NHWC" and sizes == [1, size, size, 1] and inputs.shape.rank == 4
    apart = is_plain and strides == sizes and inputs.shape.is_fully_defined() and size > 1
    fits = apart and (operation.get_attr("padding") == b"VALID" or not any(n % size for n in inputs.shape[1:3]))
    if not fits:
        return _as_usual(operation, cotangent)
    places = _places(operation, size)
    spread = tf.nn.depth_to_space(places * tf.tile(cotangent, [1, 1, 1, size * size]), size)
    rest = [inputs.shape[k] - spread.shape[k] for k in (1, 2)]
    return tf.pad(spread, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]]) if any(rest) else spread


def _places(operation: tf.Operation, size: int) -> tf.Tensor:
    """[B, H / size, W / size, size^2 C]: 1 where the maximum of a window is, 0 elsewhere."""
    # Kept with the graph of the forward pass, in which it is computed even if the gradient is traced within a loop.
    kept = operation.graph.get_collection_ref(f"places of {operation.name}")
    if not kept:
        with operation.graph.as_default():
            num, height, width, channels = operation.outputs[0].shape
            inputs = operation.inputs[0][:, : height * size, : width * size]
            windows = tf.reshape(tf.nn.space_to_depth(inputs, size), [num, height, width, size * size, channels])
            first = tf.one_hot(tf.argmax(windows, axis=3), size * size, axis=3, dtype=inputs.dtype)
            kept.append(tf.reshape(first, [num, height, width, size * size * channels]))
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

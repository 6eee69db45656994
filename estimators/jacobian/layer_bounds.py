"""An upper bound of the Lipschitz constant of a network, operation by operation (Szegedy et al., 2014).

The traced graph is walked from the input to the output. Each tensor t carries a bound of |dt/dx|_2 for every x at once:
a linear operation multiplies it by its operator norm, sums add, joined tensors add in squares, and an activation
multiplies by its steepest slope. For a chain of layers that is the product of the layers' norms, for residual blocks
the sum of branch and shortcut. Never below the norm of any input Jacobian, and usually orders of magnitude above.

Convolutions: a convolution with zeros outside is a part of one on a torus that is larger by the kernel, whose norm is
the largest of its DFT matrices' [in, out] norms (Sedghi et al., 2019, arXiv:1805.10408); strides only leave rows out.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from estimators import errors
from estimators.jacobian import functions

_SLOPES = {
    "Relu": 1.0,
    "Relu6": 1.0,
    "Elu": 1.0,
    "Selu": 1.7581,
    "Tanh": 1.0,
    "Sigmoid": 0.25,
    "Softplus": 1.0,
    "Softsign": 1.0,
    "Softmax": 0.5,
    "Abs": 1.0,
    "Neg": 1.0,
    "Sin": 1.0,
    "Cos": 1.0,
}
_ELEMENTWISE = {"Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Maximum", "Minimum"}
# Each element goes to one place at most, as it is.
_MOVES = {
    "Identity",
    "IdentityN",
    "StopGradient",
    "Reshape",
    "Squeeze",
    "ExpandDims",
    "Transpose",
    "Pad",
    "PadV2",
    "Slice",
    "StridedSlice",
    "Cast",
    "BiasAdd",
    "EnsureShape",
    "PreventGradient",
    "CheckNumerics",
    "Snapshot",
    "SpaceToBatchND",
    "BatchToSpaceND",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """What one operation multiplies the bound by.

    Attributes:
        name, type: of the operation.
        factor: its norm or steepest slope; 1 for sums.
        bound: of its output's derivative by the network's input.
    """

    name: str
    type: str
    factor: float
    bound: float


@dataclasses.dataclass(frozen=True)
class LayerBound:
    """The bound, and how it comes about.

    Attributes:
        bound: of |J(x)|_2 for every x; output units per unit of the input.
        steps: operations with a factor that is not 1, and sums, in order.
    """

    bound: float
    steps: tuple[Step, ...]


def of(function: functions.Function) -> LayerBound:
    """The layer-product bound of a function.

    Args:
        function: whose graph consists of convolutions, products with constant matrices, batch normalisation by moving
            statistics, activations, sums, poolings, means and moves of elements.

    Returns:
        The bound: one traced pass over one example, and a decomposition of each kernel at each frequency.

    Raises:
        InvalidTargetError: the graph contains an operation whose norm is not known; its name and type are given.
    """

    def predict(inputs: tf.Tensor) -> tf.Tensor:
        return function.predict(inputs)

    spec = tf.TensorSpec([1, *function.input_shape], function.dtype)
    traced = tf.function(predict, autograph=False).get_concrete_function(spec)
    frozen = convert_to_constants.convert_variables_to_constants_v2(traced)
    return _Walk(frozen).bound()


class _Walk:
    """The operations that depend on the input, in order, with the bounds of their outputs."""

    def __init__(self, frozen: Any) -> None:
        self._frozen = frozen
        self._bounds: dict[Any, float] = {frozen.inputs[0].ref(): 1.0}
        self._steps: list[Step] = []
        self._constants = self._evaluated()

    def bound(self) -> LayerBound:
        """The bound of the output."""
        for operation in self._frozen.graph.get_operations():
            if self._from_input(operation):
                self._visit(operation)
        return LayerBound(self._bounds.get(self._frozen.outputs[0].ref(), 0.0), tuple(self._steps))

    def _evaluated(self) -> dict[Any, np.ndarray]:
        """Values of all tensors that meet tensors that follow from the input, and do not themselves."""
        dependent = {self._frozen.inputs[0].ref()}
        wanted: dict[Any, tf.Tensor] = {}
        for operation in self._frozen.graph.get_operations():
            refs = [tensor.ref() for tensor in operation.inputs]
            if dependent & set(refs):
                dependent |= {tensor.ref() for tensor in operation.outputs}
                if operation.type not in _RULES:
                    continue
                wanted |= {ref: t for ref, t in zip(refs, operation.inputs, strict=True) if ref not in dependent}
        if not wanted:
            return {}
        values = self._frozen.prune([], list(wanted.values()))()
        return {ref: value.numpy() for ref, value in zip(wanted, values, strict=True)}

    def _from_input(self, operation: tf.Operation) -> bool:
        return any(tensor.ref() in self._bounds for tensor in operation.inputs)

    def _visit(self, operation: tf.Operation) -> None:
        incoming = [self._bounds[t.ref()] * _repeats(operation, t) for t in operation.inputs if t.ref() in self._bounds]
        if operation.type in ("Add", "AddV2", "AddN", "Sub"):
            self._note(operation, 1.0, sum(incoming), is_step=len(incoming) > 1)
        elif operation.type in ("ConcatV2", "Pack"):
            self._note(operation, 1.0, math.hypot(*incoming), is_step=len(incoming) > 1)
        elif operation.type in ("Maximum", "Minimum"):
            # Element by element one of them, so that squares add at worst.
            self._note(operation, 1.0, math.hypot(*incoming), is_step=len(incoming) > 1)
        elif operation.type == "Shape":
            return
        elif len(incoming) > 1:
            raise _unknown(operation, "multiplies or mixes tensors that both follow from the input")
        else:
            factor = self._factor(operation)
            self._note(operation, factor, factor * incoming[0], is_step=factor != 1)

    def _note(self, operation: tf.Operation, factor: float, bound: float, *, is_step: bool) -> None:
        if is_step:
            self._steps.append(Step(operation.name, operation.type, factor, bound))
        for tensor in operation.outputs:
            self._bounds[tensor.ref()] = bound

    def _factor(self, operation: tf.Operation) -> float:
        if operation.type in _MOVES:
            return 1.0
        if operation.type in _SLOPES:
            return _SLOPES[operation.type]
        if operation.type == "LeakyRelu":
            return max(1.0, abs(operation.get_attr("alpha")))
        if operation.type not in _RULES:
            raise _unknown(operation, "has no known norm")
        constants = [self._constants.get(tensor.ref()) for tensor in operation.inputs]
        return float(_RULES[operation.type](operation, constants))


def _repeats(operation: tf.Operation, tensor: tf.Tensor) -> float:
    """Root of how often an element of a tensor is there, if it is repeated to meet a larger one."""
    if operation.type not in _ELEMENTWISE:
        return 1.0
    return math.sqrt(operation.outputs[0].shape.num_elements() / tensor.shape.num_elements())


def _unknown(operation: tf.Operation, why: str) -> errors.InvalidTargetError:
    return errors.InvalidTargetError(
        f"operation {operation.name} of type {operation.type} {why}, so that there is no layer-product bound; leave "
        "the bound out, or bound the parts of the network that have one"
    )


def _matmul(operation: tf.Operation, constants: list[Any]) -> float:
    return float(np.linalg.norm(next(c for c in constants if c is not None).astype(np.float64), 2))


def _scale(operation: tf.Operation, constants: list[Any]) -> float:
    if operation.type == "RealDiv":
        if constants[1] is None:
            raise _unknown(operation, "divides by what follows from the input")
        return (1 / np.abs(constants[1])).max()
    return np.abs(next(c for c in constants if c is not None)).max()


def _batch_norm(operation: tf.Operation, constants: list[Any]) -> float:
    if operation.get_attr("is_training"):
        raise _unknown(operation, "uses the statistics of the batch")
    _, scale, _, _, variance = constants
    return (np.abs(scale) / np.sqrt(variance + operation.get_attr("epsilon"))).max()


def _convolution(operation: tf.Operation, constants: list[Any]) -> float:
    """Of the kernel [height, width, in, out], dilated, on the torus that the image with its border fits."""
    kernel = constants[1].astype(np.float64)
    if operation.get_attr("data_format") != b"NHWC":
        raise _unknown(operation, "does not have its channels last")
    shape = operation.inputs[0].shape[1:3]
    if kernel.shape[2] != operation.inputs[0].shape[3]:
        raise _unknown(operation, "has groups of channels")
    dilations = operation.get_attr("dilations")[1:3]
    return _torus_norm(kernel, shape, dilations)


def _depthwise(operation: tf.Operation, constants: list[Any]) -> float:
    """A kernel [height, width, in, multiplier]: channels do not meet, so the largest of theirs."""
    kernel = constants[1].astype(np.float64)
    shape, dilations = operation.inputs[0].shape[1:3], operation.get_attr("dilations")[1:3]
    return max(_torus_norm(kernel[:, :, c : c + 1], shape, dilations) for c in range(kernel.shape[2]))


def _torus_norm(kernel: np.ndarray, shape: Any, dilations: list[int]) -> float:
    reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilations, strict=True)]
    dilated = np.zeros((*reach, *kernel.shape[2:]))
    dilated[:: dilations[0], :: dilations[1]] = kernel
    # The image with a border of the kernel's reach: no output sees around the torus.
    sizes = [n + r - 1 for n, r in zip(shape, reach, strict=True)]
    if dilated.shape[2] > dilated.shape[3]:
        dilated = dilated.transpose(0, 1, 3, 2)
    matrices = np.fft.rfft2(dilated, s=sizes, axes=(0, 1))
    products = matrices @ matrices.conj().transpose(0, 1, 3, 2)
    return math.sqrt(np.linalg.eigvalsh(products).max())


def _overlap(operation: tf.Operation) -> tuple[int, int]:
    """(windows that an element is in at most, elements of a window)."""
    sizes, strides = operation.get_attr("ksize")[1:3], operation.get_attr("strides")[1:3]
    return math.prod(-(-k // s) for k, s in zip(sizes, strides, strict=True)), math.prod(sizes)


def _max_pool(operation: tf.Operation, constants: list[Any]) -> float:
    return math.sqrt(_overlap(operation)[0])


def _average_pool(operation: tf.Operation, constants: list[Any]) -> float:
    """The square of a mean of m is at most the sum of squares over m, and at borders m may be 1."""
    overlap, num = _overlap(operation)
    if operation.get_attr("padding") != b"VALID":
        sizes, strides = operation.get_attr("ksize")[1:3], operation.get_attr("strides")[1:3]
        fits = all(
            n % s == 0 and k == s for n, k, s in zip(operation.inputs[0].shape[1:3], sizes, strides, strict=True)
        )
        num = num if fits else 1
    return math.sqrt(overlap / num)


def _reduced(operation: tf.Operation, constants: list[Any]) -> int:
    """How many elements come to one."""
    return operation.inputs[0].shape.num_elements() // operation.outputs[0].shape.num_elements()


_RULES: dict[str, Callable[[tf.Operation, list[Any]], float]] = {
    "MatMul": _matmul,
    "Mul": _scale,
    "RealDiv": _scale,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _max_pool,
    "AvgPool": _average_pool,
    "Mean": lambda operation, constants: 1 / math.sqrt(_reduced(operation, constants)),
    "Sum": lambda operation, constants: math.sqrt(_reduced(operation, constants)),
    "Max": lambda operation, constants: 1.0,
    "Min": lambda operation, constants: 1.0,
}

"""Where parameters meet examples: the operations of a model at which a gradient of one example can be read off.

A model is traced once. Tensors that follow from parameters and constants alone (a kernel, a kernel cast to float16, a
scale times a reciprocal root of a variance) are *shared* by all examples; all that follows from the inputs belongs to
single examples. A `Use` is an operation with a shared tensor on one side and examples on the other: the product of a
kernel, the addition of an offset. Every gradient of one example passes through uses and nowhere else, so it is enough
to know, for each kind of use, what the shared tensor gets from each example (see `rules`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import enum
from typing import Any

import tensorflow as tf

from estimators import errors, parameters


class Kind(enum.IntEnum):
    """How a shared tensor follows from a parameter; the larger number is the weaker statement."""

    PLAIN = 0  # the same elements in the same order, perhaps of another dtype
    ELEMENTWISE = 1  # each element from the parameter's element in the same place
    MIXED = 2  # anything else


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """One operation in which parameters meet examples.

    Attributes:
        operation: the operation in the graph.
        slot: which of its inputs is the shared tensor.
        owners: positions of the parameters that the shared tensor follows from, and how.
        shape: shape of the shared tensor; for a look-up by handle, that of the variable.
    """

    operation: tf.Operation
    slot: int
    owners: Mapping[int, Kind]
    shape: tuple[int, ...]

    @property
    def shared(self) -> tf.Tensor:
        """The shared tensor (for a look-up in a table, the handle of its variable)."""
        return self.operation.inputs[self.slot]

    @property
    def output(self) -> tf.Tensor:
        """The first output, which belongs to examples."""
        return self.operation.outputs[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Capture:
    """What tracing a function found.

    Attributes:
        outputs: what the function returned.
        uses: in the order of the computation.
        mixed: operations on shared tensors alone that do not keep their elements in place: type and shape of the first
            output, by number among the operations. Some may repeat a parameter for every example: see `repeats_of`.
    """

    outputs: Any
    uses: tuple[Use, ...]
    mixed: Mapping[int, tuple[str, tuple[int | None, ...]]]


_PLAIN = {"ReadVariableOp", "Identity", "Cast", "Reshape", "Squeeze", "ExpandDims"}
_ELEMENTWISE = {
    *("Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv", "Neg", "Reciprocal", "Pow", "Maximum", "Minimum"),
    *("Exp", "Log", "Sqrt", "Rsqrt", "Square", "Abs", "Sigmoid", "Tanh", "Softplus", "Relu", "Elu", "ClipByValue"),
}


def repeats_of(three: Capture, five: Capture) -> dict[int, str]:
    """Operations that give a parameter an axis of examples, as of a class token, though no example enters them.

    With static shapes the number of examples is a constant like any other. What follows it is told by tracing a
    function with three and with five examples: a shape that begins with as many.

    Returns:
        Types of such operations by number; none if the traces are not of the same operations.
    """
    if [(k, kind) for k, (kind, _) in three.mixed.items()] != [(k, kind) for k, (kind, _) in five.mixed.items()]:
        return {}
    found = {}
    for number, (kind, shape) in three.mixed.items():
        pairs = [pair for pair in zip(shape, five.mixed[number][1], strict=False) if pair != (1, 1)]
        first, second = pairs[0] if pairs else (None, None)
        if first and second and first * 5 == second * 3:
            found[number] = kind
    return found


def trace(
    function: Callable[[Any], Any],
    inputs: Any,
    params: Sequence[parameters.Parameter],
    *,
    inline: bool = True,
    repeats: Mapping[int, str] | None = None,
) -> Capture:
    """Calls a function within the graph that is being built and finds where parameters meet its inputs.

    Args:
        function: inputs -> tensors.
        inputs: nest of tensors of that graph; all that depends on them belongs to examples.
        params: the parameters to look for.
        inline: trace tf.functions within the function as plain Python, so that their operations lie open. Not possible
            where they branch on tensors.
        repeats: see `repeats_of`; their outputs belong to examples.

    Returns:
        What it returned, and the uses.

    Raises:
        InvalidTargetError: functions are run eagerly, so that there is no graph; or the function consists of other
            operations than when `repeats` were found.
    """
    graph = tf.compat.v1.get_default_graph()
    if not getattr(graph, "building_function", False):
        raise errors.InvalidTargetError(
            "there is no graph to look at because tf.functions run eagerly; call tf.config.run_functions_eagerly(False)"
        )
    inputs = tf.nest.map_structure(tf.identity, inputs)
    num_before = len(graph.get_operations())
    with _nested_functions_inline() if inline else contextlib.nullcontext():
        outputs = function(inputs)
    # Placeholders of captured tensors are made where they are met first, and so not in every trace.
    operations = [o for o in graph.get_operations()[num_before:] if o.type != "Placeholder"]
    handles = {graph.capture(p.variable.handle).name: k for k, p in enumerate(params)}
    finder = _Finder(handles, {tensor.name for tensor in tf.nest.flatten(inputs)}, [p.shape for p in params])
    repeats = repeats or {}
    for number, kind in repeats.items():
        if number >= len(operations) or operations[number].type != kind:
            raise errors.InvalidTargetError(
                "the model computes a batch of this size in another way than others, so that the operations that "
                f"repeat a parameter for every example ({kind}) are not found; use another batch size"
            )
    uses = [use for k, operation in enumerate(operations) for use in finder.visit(operation, k, k in repeats)]
    return Capture(outputs, tuple(uses), finder.mixed)


@contextlib.contextmanager
def _nested_functions_inline() -> Iterator[None]:
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


class _Finder:
    """Follows parameters and examples through operations, which come in the order of computation.

    Tensors are known by their names: the graph makes a new object each time that it is asked for one.
    """

    def __init__(self, handles: dict[str, int], inputs: set[str], shapes: Sequence[tuple[int, ...]]) -> None:
        self._examples = inputs
        self._shapes = shapes
        # Name of a shared tensor -> position of each parameter that it follows from, and how.
        self._shared: dict[str, dict[int, Kind]] = {handle: {k: Kind.PLAIN} for handle, k in handles.items()}
        self.mixed: dict[int, tuple[str, tuple[int | None, ...]]] = {}

    def visit(self, operation: tf.Operation, number: int, is_repeat: bool) -> list[Use]:
        """Marks the outputs of one operation; returns its uses."""
        inputs = [tensor.name for tensor in operation.inputs]
        touched = [(slot, self._shared[name]) for slot, name in enumerate(inputs) if name in self._shared]
        if is_repeat or not self._examples.isdisjoint(inputs):
            self._examples.update(tensor.name for tensor in operation.outputs)
            return [
                Use(operation, slot, owners, self._shape(operation.inputs[slot], owners)) for slot, owners in touched
            ]
        owners: dict[int, Kind] = {}
        for slot, some in touched:
            step = _kind(operation, slot, len(touched))
            if step is Kind.MIXED and operation.outputs and operation.outputs[0].shape.rank:
                self.mixed[number] = (operation.type, tuple(operation.outputs[0].shape))
            for owner, kind in some.items():
                # Two ways to one element are one way: both keep the place.
                owners[owner] = max(kind, step, owners.get(owner, Kind.PLAIN))
        if owners:
            self._shared.update({tensor.name: owners for tensor in operation.outputs})
        return []

    def _shape(self, shared: tf.Tensor, owners: Mapping[int, Kind]) -> tuple[int, ...]:
        if shared.dtype == tf.resource:
            (owner,) = owners
            return self._shapes[owner]
        return tuple(shared.shape)


def _kind(operation: tf.Operation, slot: int, num_shared: int) -> Kind:
    """How the output of an operation follows from one of its inputs."""
    if operation.type == "ReadVariableOp":
        return Kind.PLAIN
    sizes = [t.shape.num_elements() for t in (operation.inputs[slot], operation.outputs[0])]
    if operation.type in _PLAIN and num_shared == 1:
        return Kind.PLAIN
    # A new axis is a slice of all elements; one that turns them round is found out when a plan is made.
    if operation.type == "StridedSlice" and slot == 0 and num_shared == 1 and sizes[0] == sizes[1] is not None:
        return Kind.PLAIN
    return Kind.ELEMENTWISE if operation.type in _ELEMENTWISE and sizes[0] == sizes[1] else Kind.MIXED

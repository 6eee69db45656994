"""The gradients of all outputs of a batch by each parameter, in factors: one forward pass and k backward passes.

A layer that multiplies has, whatever the output, the same rows a [B, G, T, I] (of G groups at T places), and for every
output j a cotangent d_j [B, G, T, O]: the gradient of f_j(x_b) by its kernel is sum_t a_bt^T d_bjt. Rows are kept once
for all outputs, images in the place of patches. What has few elements, such as biases and scales, is kept as it is.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import tensorflow as tf

from estimators.curvature import vectorised
from estimators.derivatives import capture, contributions, layouts, passes, per_example, rules
from estimators.ntk import outputs as outputs_lib

# Patches of so few numbers are held: a product for each element of the window is slower.
_SMALL_PATCH = 32
_TRANSPOSED = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
# Backward passes that run side by side where they are made one after the other.
_SIDE_BY_SIDE = 2

# Tensors of one parameter, [B, ...] each; what they are is said by a `Kind`.
Values = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Product:
    """Values (what the rows are read from, once for each use of the kernel, ..., cotangents [B, G, T, k, O]).

    Attributes:
        layout: how the kernel is made of matrices.
        windows: for each use the window that moves over images [B, *space, C], or None for rows [B, G, T, I]; places of
            all uses count one after the other.
        num_places: T, of all uses together.
    """

    layout: layouts.Layout
    windows: tuple[contributions.Window | None, ...]
    num_places: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(T, G, I, O)."""
        return (self.num_places, *self.layout.sizes)

    @property
    def num_taps(self) -> int:
        """In how many parts `taps` gives the rows, if not as one."""
        window = self.windows[0]
        return 1 if window is None or self.layout.sizes[1] <= _SMALL_PATCH else math.prod(window.sizes)

    def taps(self, values: Values, *, together: bool = False) -> list[tf.Tensor]:
        """The rows as the elements of the window see them: [B, G, T, I / taps] each, or `together` [B, G, T, I]."""
        uses = [self._seen(source, window) for source, window in zip(values[:-1], self.windows, strict=True)]
        seen = [_joined(parts, axis=2) for parts in zip(*uses, strict=True)]
        return [tf.concat(seen, axis=3)] if len(seen) > 1 and (together or self.num_taps == 1) else seen

    def _seen(self, source: tf.Tensor, window: contributions.Window | None) -> list[tf.Tensor]:
        if window is None:
            return [source]
        num_groups = self.layout.sizes[0]
        return [_grouped(tap, num_groups) for tap in window.taps(source)]


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Values (keys [B, T], cotangents [B, T, k, D]) of a table [V, D]."""

    num_rows: int
    width: int
    num_places: int


@dataclasses.dataclass(frozen=True)
class Formed:
    """Values (gradients [B, k, s],) of a parameter of s elements."""

    size: int


Kind = Product | Lookup | Formed


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """The factors of some examples; kinds depend on the size of the inputs, such as of images, and go with them.

    Attributes:
        kinds: of the parameters, by position.
        values: theirs.
    """

    kinds: Mapping[int, Kind]
    values: Mapping[int, Values]

    @property
    def num_examples(self) -> int:
        """How many examples they are of."""
        return int(tf.nest.flatten(self.values)[0].shape[0])


def of_batch(outputs: outputs_lib.Outputs, inputs: Any) -> tuple[dict[int, Kind], dict[int, Values]]:
    """What all gradients of a batch's outputs are made of, within a function that is being traced.

    Args:
        outputs: of a target.
        inputs: [B, ...] with a static B.

    Returns:
        (kinds, values) by position of the parameter; no entry where the gradient is zero whatever the inputs.
    """
    plan, num = outputs.plan, outputs.num_outputs
    forward = plan.forward(inputs)
    found = plan.contributions(forward, forward.outputs[:, 0])
    uses = _uses(forward, found)
    found = {
        k: [_kept(*pair) for pair in zip(found[k], some, strict=True)] for k, some in zip(found, uses, strict=True)
    }

    def pull(cotangent: tf.Tensor) -> list[list[tf.Tensor]]:
        return _pulled(forward, uses, tf.linalg.matvec(forward.outputs, cotangent))

    shapes = [[_varying(part) for part in parts] for parts in found.values()]
    # Whether all fit into memory was settled by the size of the batch; here only the kinds of operations count.
    together = num > 1 and vectorised.num_together(plan.target.predict, inputs) > 1
    pulled = _for_each(pull, tf.eye(num, dtype=forward.outputs.dtype), shapes, together=together)
    kinds, values = {}, {}
    for (position, parts), cotangents in zip(found.items(), pulled, strict=True):
        if parts:
            kinds[position], values[position] = _one_parameter(parts, cotangents)
    for position, rows in _looped(outputs, inputs).items():
        kinds[position], values[position] = Formed(plan.target.parameters[position].size), (rows,)
    return kinds, values


@dataclasses.dataclass(frozen=True, eq=False)
class _Use:
    """Where a parameter meets examples; slopes are of the shared tensor by the parameter, None where they are equal."""

    use: capture.Use
    slopes: tf.Tensor | None

    @property
    def is_formed(self) -> bool:
        """Whether the gradient is formed at once, both of its factors depending on the output, or neither being there.

        A transposed convolution looks from its outputs at its inputs: what the window moves over are the cotangents.
        """
        return self.slopes is not None or self.use.operation.type in _TRANSPOSED


def _uses(forward: passes.Pass, found: Mapping[int, list[contributions.Contribution]]) -> list[list[_Use]]:
    """For each parameter the uses that its contributions come from, in their order.

    Slopes are taken here, as in the loop over outputs variables are other tensors.
    """
    result: list[list[_Use]] = [[] for _ in found]
    connected = tf.gradients(forward.outputs, [use.output for use in forward.uses])
    for use, cotangent in zip(forward.uses, connected, strict=True):
        for number, owner in enumerate(found):
            if owner in use.owners and cotangent is not None:
                is_plain = use.owners[owner] is capture.Kind.PLAIN
                slopes = None if is_plain else tf.gradients(use.shared, [forward.params[owner].variable])[0]
                result[number].append(_Use(use, slopes))
    return result


def _pulled(forward: passes.Pass, uses: list[list[_Use]], values: tf.Tensor) -> list[list[tf.Tensor]]:
    """What of the contributions to the gradients of values [B] depends on what is differentiated."""
    flat = [use for some in uses for use in some]
    cotangents = iter(tf.gradients(values, [use.use.output for use in flat]) if flat else [])
    return [[_of_use(use, next(cotangents), forward.num_examples) for use in some] for some in uses]


def _of_use(use: _Use, cotangent: tf.Tensor, num_examples: int) -> tf.Tensor:
    part = _kept(rules.contribution(use.use, cotangent, num_examples), use)
    if use.slopes is None:
        return _varying(part)
    formed = part.gradients()
    return formed * tf.cast(tf.reshape(use.slopes, use.use.shape), formed.dtype)


def _kept(part: contributions.Contribution, use: _Use) -> contributions.Contribution:
    return contributions.Formed(part.gradients()) if use.is_formed else part


def _varying(part: contributions.Contribution) -> tf.Tensor:
    """What of a contribution depends on the output that is differentiated."""
    return part.values if isinstance(part, contributions.Formed) else part.cotangents  # type: ignore[attr-defined]


def _for_each(
    pull: Callable[[tf.Tensor], list[list[tf.Tensor]]], units: tf.Tensor, like: Any, *, together: bool
) -> list[list[tf.Tensor]]:
    """Stacks [k, ...] of what a backward pass from each output gives."""
    if not tf.nest.flatten(like):
        return like
    if units.shape[0] == 1:
        return tf.nest.map_structure(lambda t: t[None], pull(units[0]))
    if together:
        try:
            return tf.vectorized_map(pull, units, fallback_to_while_loop=False)
        except ValueError:
            # TensorFlow has no form of some operation for several outputs; if it was another error it comes again.
            pass
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), like)
    return tf.map_fn(pull, units, fn_output_signature=specs, parallel_iterations=_SIDE_BY_SIDE)


def _one_parameter(parts: list[contributions.Contribution], pulled: list[tf.Tensor]) -> tuple[Kind, Values]:
    """The uses of one parameter as one, with cotangents [k, B, ...] that come from all outputs."""
    # Gradients in loops may come without a static shape.
    pulled = [tf.ensure_shape(t, [t.shape[0], *_varying(p).shape]) for t, p in zip(pulled, parts, strict=True)]
    factored = [part for part in parts if isinstance(part, contributions.Factored)]
    if len(factored) == len(parts) and len({part.layout for part in factored}) == 1:
        return _product(factored, pulled)
    first = parts[0]
    if len(parts) == 1 and isinstance(first, contributions.Lookup):
        cotangents = tf.transpose(pulled[0], [1, 2, 0, 3])
        kind = Lookup(first.num_rows, cotangents.shape[3], cotangents.shape[1])
        return kind, (first.keys, cotangents)
    return _sum([_formed(part, t) for part, t in zip(parts, pulled, strict=True)])


def _product(parts: list[contributions.Factored], pulled: list[tf.Tensor]) -> tuple[Product, Values]:
    num_groups = parts[0].layout.sizes[0]
    sources: list[tf.Tensor] = []
    cotangents: list[tf.Tensor] = []
    windows: list[contributions.Window | None] = []
    for part, tensor in zip(parts, pulled, strict=True):
        if isinstance(part, contributions.Convolution):
            sources.append(part.images)
            windows.append(part.window)
            num, batch, *_, channels = tensor.shape
            split = tf.reshape(tensor, [num, batch, part.num_places, num_groups, channels // num_groups])
            cotangents.append(tf.transpose(split, [1, 3, 2, 0, 4]))
        else:
            sources.append(part.rows)
            windows.append(None)
            cotangents.append(tf.transpose(tensor, [1, 2, 3, 0, 4]))
    joined = _joined(cotangents, axis=2)
    return Product(parts[0].layout, tuple(windows), joined.shape[2]), (*sources, joined)


def _formed(part: contributions.Contribution, pulled: tf.Tensor) -> tf.Tensor:
    """[B, k, s], the gradients of all outputs through one use."""
    num, batch = pulled.shape[:2]
    if isinstance(part, contributions.Formed):
        return tf.reshape(tf.transpose(pulled, [1, 0, *range(2, len(pulled.shape))]), [batch, num, -1])
    kind, values = _one_parameter([part], [pulled])
    return gradients(kind, values)


def _sum(parts: list[tf.Tensor]) -> tuple[Formed, Values]:
    return Formed(parts[0].shape[2]), (tf.add_n(parts),)


def gradients(kind: Kind, values: Values) -> tf.Tensor:
    """[B, k, s]: the gradients themselves, elements in the order of the parameter."""
    if isinstance(kind, Formed):
        return values[0]
    if isinstance(kind, Lookup):
        return _looked_up(kind, values)
    batch, num = values[-1].shape[0], values[-1].shape[3]
    _, num_groups, num_inputs, num_outputs = kind.sizes
    taps = [formed_tap(tap, values[-1]) for tap in kind.taps(values)]  # [B, G, k O, I / taps] each
    rows = tf.reshape(_joined(taps, axis=3), [batch, num_groups, num, num_outputs, num_inputs])
    matrices = tf.reshape(tf.transpose(rows, [0, 2, 1, 4, 3]), [-1, num_groups, num_inputs, num_outputs])
    return tf.reshape(kind.layout.kernels(matrices), [batch, num, -1])


def formed_tap(tap: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
    """[B, G, T, I], [B, G, T, k, O] -> [B, G, k O, I], the sums over places of outer products."""
    batch, num_groups, places, num, size = cotangents.shape
    flat = tf.reshape(cotangents, [batch, num_groups, places, num * size])
    if places == 1:  # an outer product, for which a batched matrix product is slow
        return flat[:, :, 0, :, None] * tap[:, :, 0, None, :]
    return tf.matmul(flat, tap, transpose_a=True)


def _looked_up(kind: Lookup, values: Values) -> tf.Tensor:
    keys, cotangents = values
    batch, places, num, width = cotangents.shape
    offsets = kind.num_rows * tf.range(batch, dtype=tf.int64)[:, None]
    flat = tf.reshape(cotangents, [batch * places, num * width])
    found = tf.reshape(tf.cast(keys, tf.int64) + offsets, [-1])
    sums = tf.math.unsorted_segment_sum(flat, found, batch * kind.num_rows)
    ordered = tf.transpose(tf.reshape(sums, [batch, kind.num_rows, num, width]), [0, 2, 1, 3])
    return tf.reshape(ordered, [batch, num, kind.num_rows * width])


def _looped(outputs: outputs_lib.Outputs, inputs: Any) -> dict[int, tf.Tensor]:
    """[B, k, s] of the parameters that have no rule, for one example and output after the other."""
    plan, num = outputs.plan, outputs.num_outputs
    if not plan.looped:
        return {}
    batch = tf.nest.flatten(inputs)[0].shape[0]
    repeated = tf.nest.map_structure(lambda t: tf.repeat(t, num, axis=0), inputs)
    units = tf.tile(tf.eye(num, dtype=outputs.dtype), [batch, 1])
    found = per_example.looped(plan, repeated, units, "loss", plan.looped)
    return {k: tf.cast(tf.reshape(rows, [batch, num, -1]), outputs.dtype) for k, rows in found.items()}


def _grouped(rows: tf.Tensor, num_groups: int) -> tf.Tensor:
    """[B, T, G C] -> [B, G, T, C]."""
    if num_groups == 1:
        return tf.expand_dims(rows, 1)
    batch, places, channels = rows.shape
    return tf.transpose(tf.reshape(rows, [batch, places, num_groups, channels // num_groups]), [0, 2, 1, 3])


def _joined(parts: Any, axis: int) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=axis)

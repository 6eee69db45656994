"""What one parameter adds to the tangent kernel of two batches, in three ways; the one of fewest operations is chosen.

With rows a and cotangents d of `factors`, gradients G_bj = sum_t a_bt^T d_bjt, and inner products <G_bj, G_cl>:

    jacobian          G of both batches, and their inner products
    structured        sum over places t, s of (a_bt . a_cs)(d_bjt . d_cls), no gradient being formed: of a dense layer
                      (a a'^T) times (d d'^T) by element (Goodfellow, 2015, arXiv:1510.01799)
    vector_products   G of the second batch as directions along which the layer's outputs at the first change, a G_cl,
                      times d: what products with the kernel do (Novak et al., 2022, arXiv:2206.08720), layer by layer

All give the same numbers up to rounding. A kernel that is summed over outputs is that of one output with cotangents
[d_1 ... d_k]. Parameters with few elements are contracted as they are.
"""

from collections.abc import Mapping
import dataclasses

import tensorflow as tf

from estimators.ntk import factors

METHODS = ("jacobian", "structured", "vector_products")
# Multiplications that moving one number takes as long as.
_MOVING = 8


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a way takes.

    Attributes:
        operations: multiplications, and numbers that are moved by their weight.
        elements: numbers that are there at a time beside the factors.
    """

    operations: float
    elements: float


def costs(
    kind: factors.Kind,
    num_first: int,
    num_second: int,
    num_outputs: int,
    *,
    same: bool,
    other: factors.Kind | None = None,
) -> dict[str, Cost]:
    """What each way takes for a parameter; those that come to the same have the same.

    Args:
        kind: of the parameter in the first batch.
        num_first: B examples of the first batch.
        num_second: C of the second.
        num_outputs: k.
        same: both batches are one.
        other: of the parameter in the second batch, see `aligned`; None if it is the same.
    """
    pairs, k = num_first * num_second, num_outputs
    sides = num_first + (0 if same else num_second)
    if isinstance(kind, factors.Formed):
        return dict.fromkeys(METHODS, Cost(pairs * k * k * kind.size, 0))
    places = kind.num_places
    others = places if other is None or isinstance(other, factors.Formed) else other.num_places
    if isinstance(kind, factors.Lookup):
        groups, size, width = 1, kind.num_rows, kind.width
        formed, formed_second = (num * k * size * width * _MOVING for num in (sides, num_second))
        matching = pairs * places * others
    else:
        _, groups, size, width = kind.sizes
        formed_second = num_second * k * groups * size * width * others
        formed = formed_second if same else formed_second + num_first * k * groups * size * width * places
        matching = pairs * places * others * groups * size
    last = pairs * k * k * groups * width
    spread = 0 if places == others == 1 else pairs * others * groups * k * width
    elements = groups * k * size * width / (kind.num_taps if isinstance(kind, factors.Product) else 1)
    found = {
        "jacobian": Cost(formed + last * size + _MOVING * sides * groups * k * size * width, sides * elements),
        "structured": Cost(
            matching + places * spread + others * last + _MOVING * (spread + pairs * places * others * groups),
            pairs * places * others * groups + 2 * spread,
        ),
    }
    along = pairs * k * places * groups * width
    found["vector_products"] = Cost(
        formed_second + along * size + places * last + _MOVING * along,
        num_second * groups * k * size * width + 2 * along,
    )
    return found if isinstance(kind, factors.Product) else found | {"vector_products": found["structured"]}


def choose(kind: factors.Kind, found: Mapping[str, Cost], method: str, most_elements: float) -> str:
    """The way that is asked for, or of those that fit into memory the one of fewest operations.

    Args:
        kind: of the parameter.
        found: from `costs`.
        method: one of `METHODS`, or "auto".
        most_elements: that may be there; where no way takes so few, the one of fewest is taken.
    """
    if isinstance(kind, factors.Formed):
        return "jacobian"
    if method != "auto":
        return method
    fitting = {name: cost for name, cost in found.items() if cost.elements <= most_elements}
    if not fitting:
        return min(found, key=lambda name: found[name].elements)
    return min(fitting, key=lambda name: fitting[name].operations)


def aligned(first: factors.Batch, second: factors.Batch) -> tuple[factors.Batch, factors.Batch]:
    """Both batches with the parameters of both alone, whose kinds can be contracted with each other.

    Inputs of another size may lead through other operations; what does not match is formed. Where one of the batches
    has no entry its gradient is zero.
    """
    common = [k for k in first.kinds if k in second.kinds]
    match = {k: _match(first.kinds[k], second.kinds[k]) for k in common}

    def side(batch: factors.Batch) -> factors.Batch:
        pairs = {k: (batch.kinds[k], batch.values[k]) if match[k] else _as_formed(batch, k) for k in common}
        return factors.Batch({k: kind for k, (kind, _) in pairs.items()}, {k: some for k, (_, some) in pairs.items()})

    return side(first), side(second)


def _match(first: factors.Kind, second: factors.Kind) -> bool:
    if isinstance(first, factors.Product) and isinstance(second, factors.Product):
        return first.layout == second.layout
    return type(first) is type(second)


def _as_formed(batch: factors.Batch, position: int) -> tuple[factors.Kind, factors.Values]:
    rows = factors.gradients(batch.kinds[position], batch.values[position])
    return factors.Formed(rows.shape[2]), (rows,)


def contract(first: factors.Batch, second: factors.Batch | None, methods: Mapping[int, str]) -> tf.Tensor:
    """[B, k, C, k], the tangent kernel of two batches, within a function that is being traced.

    Args:
        first: the first batch, of one parameter at least.
        second: the second, `aligned` with the first; None if it is the first.
        methods: the way of each parameter, one of `METHODS`.
    """
    total: tf.Tensor | None = None
    for position, kind in first.kinds.items():
        # One parameter after the other, so that what they form is not all there at a time.
        with tf.control_dependencies([] if total is None else [total]):
            own = kind, _held(first.values[position])
            other = own if second is None else (second.kinds[position], _held(second.values[position]))
        part = _parameter(own, other, methods[position])
        total = part if total is None else total + part
    assert total is not None
    return total


def _held(values: factors.Values) -> factors.Values:
    return tuple(tf.identity(t) for t in values)


def summed(batch: factors.Batch) -> factors.Batch:
    """The same of a single output whose kernel is the sum over outputs of the kernels of single ones."""
    pairs = {k: _summed(kind, batch.values[k]) for k, kind in batch.kinds.items()}
    return factors.Batch({k: kind for k, (kind, _) in pairs.items()}, {k: some for k, (_, some) in pairs.items()})


def _summed(kind: factors.Kind, values: factors.Values) -> tuple[factors.Kind, factors.Values]:
    last = values[-1]
    if isinstance(kind, factors.Formed):
        size = last.shape[1] * last.shape[2]
        return factors.Formed(size), (tf.reshape(last, [last.shape[0], 1, size]),)
    wide = tf.reshape(last, [*last.shape[:-2], 1, last.shape[-2] * last.shape[-1]])
    return summed_kind(kind, last.shape[-2]), (*values[:-1], wide)


def summed_kind(kind: factors.Kind, num_outputs: int) -> factors.Kind:
    """The kind that `summed` gives."""
    if isinstance(kind, factors.Formed):
        return factors.Formed(kind.size * num_outputs)
    if isinstance(kind, factors.Lookup):
        return dataclasses.replace(kind, width=kind.width * num_outputs)
    num_groups, num_inputs, size = kind.layout.sizes
    # Only the sizes count here: elements are not put back into a kernel.
    split = (num_groups, num_inputs, size * num_outputs)
    return dataclasses.replace(kind, layout=factors.layouts.Layout(split, split, (0,), (1,), (2,)))


# A parameter in one batch.
_Own = tuple[factors.Kind, factors.Values]


def _parameter(own: _Own, other: _Own, method: str) -> tf.Tensor:
    (kind, first), (kind_second, second) = own, other
    if isinstance(kind, factors.Product) and isinstance(kind_second, factors.Product):
        ways = {"jacobian": _formed, "structured": _structured, "vector_products": _vector_products}
        return ways[method]((kind, first), (kind_second, second))
    if isinstance(kind, factors.Lookup) and method != "jacobian":
        keys, keys_second = (tf.reshape(values[0], [-1]) for values in (first, second))
        equal = tf.cast(keys[:, None] == keys_second[None, :], first[1].dtype)[None]
        return _by_places(equal, first[1][:, None], second[1][:, None])
    rows = factors.gradients(kind, first)
    return _pairs(rows, rows if own is other else factors.gradients(kind_second, second))


# A kernel that multiplies, in one batch.
_Multiplied = tuple[factors.Product, factors.Values]


def _pairs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """[B, k, S], [C, k, S] -> [B, k, C, k]."""
    flat = [tf.reshape(t, [-1, t.shape[2]]) for t in (first, second)]
    products = tf.matmul(flat[0], flat[1], transpose_b=True)
    return tf.reshape(products, [*first.shape[:2], *second.shape[:2]])


def _formed(own: _Multiplied, other: _Multiplied) -> tf.Tensor:
    """Element of the window by element: gradients of large kernels are never there as a whole."""
    (kind, first), (kind_second, second) = own, other
    same = first is second
    together = kind.num_taps != kind_second.num_taps
    taps = kind.taps(first, together=together)
    others = taps if same else kind_second.taps(second, together=together)
    total: tf.Tensor | None = None
    for tap, tap_second in zip(taps, others, strict=True):
        with tf.control_dependencies([] if total is None else [total]):
            rows = _rows(tf.identity(tap), first[-1])
            part = _pairs(rows, rows if same else _rows(tf.identity(tap_second), second[-1]))
        total = part if total is None else total + part
    return total


def _rows(tap: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
    """[B, k, G O I] of `factors.formed_tap`."""
    batch, num_groups, _, num, size = cotangents.shape
    split = tf.reshape(factors.formed_tap(tap, cotangents), [batch, num_groups, num, size, tap.shape[3]])
    moved = split if num_groups == 1 else tf.transpose(split, [0, 2, 1, 3, 4])
    return tf.reshape(moved, [batch, num, -1])


def _structured(own: _Multiplied, other: _Multiplied) -> tf.Tensor:
    rows = [_groups_first(kind.taps(values, together=True)[0]) for kind, values in (own, other)]
    flat = [tf.reshape(t, [t.shape[0], -1, t.shape[3]]) for t in rows]
    return _by_places(tf.matmul(flat[0], flat[1], transpose_b=True), own[1][-1], other[1][-1])


def _by_places(matching: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Sum over g, t, s of matching [G, B T, C S] times the products of cotangents [B, G, T, k, O], [C, G, S, k, O]."""
    batch, num_groups, places, num, size = first.shape
    others, other_places = second.shape[0], second.shape[2]
    own = _groups_first(first)
    if places == other_places == 1:
        flat = [tf.reshape(t, [num_groups, -1, size]) for t in (own, _groups_first(second))]
        products = tf.reshape(tf.matmul(flat[0], flat[1], transpose_b=True), [num_groups, batch, num, others, num])
        return tf.reduce_sum(products * tf.reshape(matching, [num_groups, batch, 1, others, 1]), axis=0)
    matching = tf.reshape(matching, [num_groups, batch, places, others * other_places])
    spread = tf.matmul(matching, tf.reshape(own, [num_groups, batch, places, num * size]), transpose_a=True)
    spread = tf.reshape(spread, [num_groups, batch, others, other_places, num, size])
    moved = tf.reshape(tf.transpose(spread, [2, 1, 4, 0, 3, 5]), [others, batch * num, -1])
    last = tf.reshape(tf.transpose(second, [0, 3, 1, 2, 4]), [others, num, -1])
    products = tf.reshape(tf.matmul(moved, last, transpose_b=True), [others, batch, num, num])
    return tf.transpose(products, [1, 2, 0, 3])


def _vector_products(own: _Multiplied, other: _Multiplied) -> tf.Tensor:
    (kind, first), (kind_second, second) = own, other
    batch, num_groups, places, num, size = first[-1].shape
    others = second[-1].shape[0]
    rows = _groups_first(kind.taps(first, together=True)[0])
    formed = factors.formed_tap(kind_second.taps(second, together=True)[0], second[-1])  # [C, G, k O, I]
    directions = tf.reshape(_groups_first(formed), [num_groups, others * num * size, -1])
    along = tf.matmul(tf.reshape(rows, [num_groups, batch * places, -1]), directions, transpose_b=True)
    along = tf.reshape(along, [num_groups, batch, places, others * num, size])
    moved = tf.reshape(tf.transpose(along, [1, 3, 0, 2, 4]), [batch, others * num, -1])
    last = tf.reshape(tf.transpose(first[-1], [0, 3, 1, 2, 4]), [batch, num, -1])
    return tf.reshape(tf.matmul(last, moved, transpose_b=True), [batch, num, others, num])


def _groups_first(tensor: tf.Tensor) -> tf.Tensor:
    """[B, G, ...] -> [G, B, ...]; nothing is moved where there is one group."""
    if tensor.shape[1] == 1:
        return tf.reshape(tensor, [1, tensor.shape[0], *tensor.shape[2:]])
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])


def blocks(batch: factors.Batch, *, diagonal: bool) -> tf.Tensor:
    """The kernel of each example with itself, [B, k, k], or its diagonal [B, k], within a traced function."""
    total: tf.Tensor | None = None
    for position, kind in batch.kinds.items():
        with tf.control_dependencies([] if total is None else [total]):
            own = _held(batch.values[position])
        part = _block(kind, own, diagonal=diagonal)
        total = part if total is None else total + part
    assert total is not None
    return total


def _block(kind: factors.Kind, values: factors.Values, *, diagonal: bool) -> tf.Tensor:
    if isinstance(kind, factors.Product):
        places, _, num_inputs, width = kind.sizes
        num = values[-1].shape[3]
        # T^2 (I + k O) by places against T k I O, and k I O for each pair of outputs.
        pairs = 1 if diagonal else num
        if places * (num_inputs + num * width) < num * num_inputs * width * (1 + pairs / places):
            rows = kind.taps(values, together=True)[0]
            return _block_by_places(tf.matmul(rows, rows, transpose_b=True), values[-1], diagonal=diagonal)
        parts = [_products(_rows(tap, values[-1]), diagonal=diagonal) for tap in kind.taps(values)]
        return tf.add_n(parts)
    if isinstance(kind, factors.Lookup):
        keys, cotangents = values
        equal = tf.cast(keys[:, :, None] == keys[:, None, :], cotangents.dtype)[:, None]
        return _block_by_places(equal, cotangents[:, None], diagonal=diagonal)
    return _products(factors.gradients(kind, values), diagonal=diagonal)


def _products(rows: tf.Tensor, *, diagonal: bool) -> tf.Tensor:
    """[B, k, S] -> [B, k, k] or [B, k]."""
    return tf.reduce_sum(tf.square(rows), axis=2) if diagonal else tf.matmul(rows, rows, transpose_b=True)


def _block_by_places(matching: tf.Tensor, cotangents: tf.Tensor, *, diagonal: bool) -> tf.Tensor:
    """Sum over g, t, s of matching [B, G, T, T] times the products of cotangents [B, G, T, k, O]."""
    batch, num_groups, places, num, size = cotangents.shape
    flat = tf.reshape(cotangents, [batch, num_groups, places, num * size])
    spread = matching * flat if places == 1 else tf.matmul(matching, flat)
    if diagonal:
        return tf.reduce_sum(tf.reshape(spread * flat, [batch, num_groups, places, num, size]), axis=[1, 2, 4])
    moved = [
        tf.reshape(tf.transpose(tf.reshape(t, cotangents.shape), [0, 3, 1, 2, 4]), [batch, num, -1])
        for t in (spread, flat)
    ]
    return tf.matmul(moved[0], moved[1], transpose_b=True)

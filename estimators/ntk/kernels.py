"""The empirical neural tangent kernel of a target, K[(i, j), (i', l)] = <grad f_j(x_i), grad f_l(x'_i')>.

    kernel = ntk.TangentKernel(target, x)              # compiled once
    kernel.full(x)                                     # [n k, n k], row = example * k + output
    kernel.trace(x, x_test)                            # [n, m], summed over outputs
    print(kernel.describe(x))                          # how each parameter is contracted, and why

After Jacot et al. (2018, arXiv:1806.07572); ways to compute it after Novak et al. (2022, arXiv:2206.08720).
"""

from collections.abc import Mapping
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, gradient_products, targets
from estimators.derivatives import per_example
from estimators.ntk import contractions, factors, tiles
from estimators.ntk import outputs as outputs_lib

AUTO = "auto"


class TangentKernel:
    """The tangent kernel of a target at its parameters as they are when it is asked for.

    Derivatives are by the target's parameters, so of a `restricted` target or one with chosen `parameters` by those
    alone. What is compiled runs on all replicas of the target's strategy, see `sharding`.

    Attributes:
        num_outputs: k, the numbers that the model gives for one example.
        dtype: of the results.
        sizes: what is held at a time.
    """

    def __init__(
        self,
        target: targets.Target,
        x: Any,
        *,
        method: str = AUTO,
        batch_size: int = 256,
        memory_limit_mb: float = 2048.0,
        dtype: Any = None,
        jit_compile: bool | None = None,
    ) -> None:
        """Checks the target on the first examples; nothing else is computed yet.

        Args:
            target: what is differentiated; the model is in inference mode. Its loss does not count.
            x: inputs [n, ...], a nest of arrays as the model takes them, or `examples.Examples`.
            method: one of `contractions.METHODS` for all parameters, or "auto": for each the one that takes the fewest
                operations, of those that fit into memory.
            batch_size: examples at a time on either side of a tile, fewer if the memory allows no more. It changes
                nothing but rounding.
            memory_limit_mb: of factors of gradients and of what is formed of them; a model's own activations come on
                top.
            dtype: in which gradients are multiplied and summed, float32 or float64; None for the parameters' own.
                Gradients are computed in the parameters' dtype.
            jit_compile: compile by XLA; None for what the target says.

        Raises:
            InvalidArgumentError: an argument lies outside what is allowed, or one example takes more than the memory.
            InvalidTargetError, NotFiniteError: see `plans.make`.
        """
        if method not in (AUTO, *contractions.METHODS):
            raise errors.InvalidArgumentError(
                f"method {method!r}: expected one of {', '.join((AUTO, *contractions.METHODS))}"
            )
        outputs = outputs_lib.of(target, x)
        self.dtype = np.dtype(dtype or outputs.dtype)
        if self.dtype not in (np.float32, np.float64):
            raise errors.InvalidArgumentError(f"dtype {self.dtype}: expected float32 or float64")
        self.num_outputs, self._outputs, self._method = outputs.num_outputs, outputs, method
        self.sizes = tiles.sizes(outputs, x, batch_size, memory_limit_mb, self.dtype.itemsize)
        self._kinds: dict[tiles.Signature, Mapping[int, factors.Kind]] = {}
        self._compiled = functools.partial(per_example.compiled_rows, outputs.plan, jit_compile=jit_compile)
        self._factors = self._compiled(lambda inputs, labels: self._traced(inputs))
        self._contractions: dict[tuple[Any, ...], per_example.Compiled] = {}

    def full(
        self,
        x: Any,
        x2: Any = None,
        *,
        out: np.ndarray | None = None,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> np.ndarray:
        """K [n k, m k], all pairs of outputs; row (and column) index = example * k + output.

        Args:
            x: inputs of n examples, which may be of another size than those that the target was checked on.
            x2: inputs of m examples, of any size; None for `x`, of which one half is computed and the result is
                symmetric.
            out: [n k, m k] floats to fill, such as a memory map; None for a new array.
            progress: called with (tiles done, all).

        Returns:
            The kernel, positive semidefinite up to rounding where x2 is None, in units of squared outputs over squared
            parameters. One forward and k backward passes for each example, if the factors of all fit into half of the
            memory; else those of the second side are computed anew for each batch of the first.

        Raises:
            MismatchError: `out` has another shape.
            NotFiniteError: an entry is NaN or infinite.
        """
        return self._kernel(x, x2, out, progress, of_sum=False)

    def trace(
        self,
        x: Any,
        x2: Any = None,
        *,
        out: np.ndarray | None = None,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> np.ndarray:
        """[n, m], sum over outputs j of K[(i, j), (i', j)]; k times what neural-tangents gives for `trace_axes=(-1,)`.

        No entry between different outputs is computed. Args, Raises: see `full`.
        """
        return self._kernel(x, x2, out, progress, of_sum=True)

    def mean_trace(
        self,
        x: Any,
        x2: Any = None,
        *,
        out: np.ndarray | None = None,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> np.ndarray:
        """[n, m], the trace over outputs divided by k: what neural-tangents gives for `trace_axes=(-1,)`.

        Args, Raises: see `full`.
        """
        return self._kernel(x, x2, out, progress, of_sum=True, factor=1 / self.num_outputs)

    def diagonal(self, x: Any) -> np.ndarray:
        """[n, k], |grad f_j(x_i)|^2.

        Args:
            x: inputs of n examples.

        Raises:
            NotFiniteError: an entry is NaN or infinite.
        """
        return self._by_example(x, diagonal=True)

    def blocks(self, x: Any) -> np.ndarray:
        """[n, k, k], the kernel of each example with itself. Args, Raises: see `diagonal`."""
        found = self._by_example(x, diagonal=False)
        return (found + np.swapaxes(found, 1, 2)) / 2

    def describe(self, x: Any) -> str:
        """One line for each parameter: how it is contracted in a tile, and multiplications of each way in millions."""
        data = outputs_lib.data(x)
        num = min(self.sizes.batch, len(data))
        probe = tf.nest.map_structure(tf.convert_to_tensor, data.take(np.arange(2) % len(data)).inputs)
        tf.function(lambda inputs: self._traced(inputs) and None, autograph=False).get_concrete_function(probe)
        kinds, lines = self._kinds[tiles.signature(probe)], []
        for position, parameter in enumerate(self._outputs.target.parameters):
            kind = kinds.get(position)
            if kind is None:
                lines.append(f"{parameter.name}: no output depends on it")
                continue
            found = contractions.costs(kind, num, num, self.num_outputs, same=True)
            counts = ", ".join(f"{name} {cost.operations / 1e6:.4g}" for name, cost in found.items())
            chosen = contractions.choose(kind, found, self._method, self.sizes.elements)
            looped = ", differentiated example by example" if position in self._outputs.plan.looped else ""
            lines.append(f"{parameter.name} {list(parameter.shape)}: {chosen} ({counts}){looped}")
        return "\n".join(lines)

    def _traced(self, inputs: Any) -> tiles.Held:
        """Factors of a batch; notes what they are for inputs of this size."""
        kinds, values = factors.of_batch(self._outputs, inputs)
        if not kinds:
            raise outputs_lib.no_dependence(self._outputs.target)
        self._kinds[tiles.signature(inputs)] = kinds
        return values

    def _kernel(
        self,
        x: Any,
        x2: Any,
        out: np.ndarray | None,
        progress: gradient_products.Progress,
        *,
        of_sum: bool,
        factor: float = 1.0,
    ) -> np.ndarray:
        first, second = self._side(x), None if x2 is None else self._side(x2)
        entries = 1 if of_sum else self.num_outputs
        lengths = (len(first.data) * entries, len((second or first).data) * entries)
        values = tiles.output_array(out, lengths, self.dtype)

        def contract(own: tiles.Held, other: tiles.Held, same: bool) -> np.ndarray:
            # Replicas have a part of the first side each, so that it is not the second.
            alike = same and self._outputs.target.strategy is None
            compiled = self._contraction(of_sum, alike, first.signature, (second or first).signature)
            labels = np.zeros(tf.nest.flatten(own)[0].shape[0], np.float32)
            return (compiled(own, labels) if alike else compiled(own, labels, other)).numpy() * self.dtype.type(factor)

        tiles.fill(first, second, contract, entries, values, progress)
        return values

    def _side(self, x: Any) -> tiles.Side:
        data = outputs_lib.data(x)

        def compute(inputs: Any) -> tiles.Held:
            num = len(tf.nest.flatten(inputs)[0])
            return self._factors(tf.nest.map_structure(tf.convert_to_tensor, inputs), np.zeros(num, np.float32))

        size, keeps = min(self.sizes.batch, len(data)), len(data) <= self.sizes.held // 2
        probe = tf.nest.map_structure(tf.convert_to_tensor, data.take(np.arange(1)).inputs)
        return tiles.Side(data, size, compute, keeps, tiles.signature(probe))

    def _contraction(
        self, of_sum: bool, alike: bool, first: tiles.Signature, second: tiles.Signature
    ) -> per_example.Compiled:
        """(factors, labels that do not count, other factors unless alike) -> [B, k, C, k], of one output if summed."""
        key = (of_sum, alike, first, second)
        if key not in self._contractions:

            def compute(own: tiles.Held, labels: tf.Tensor, other: tiles.Held | None = None) -> tf.Tensor:
                del labels  # its length tells replicas how many examples there are
                batch = self._prepared(own, first)
                return self._contracted(batch, None if other is None else self._prepared(other, second), of_sum)

            self._contractions[key] = self._compiled(compute)
        return self._contractions[key]

    def _contracted(self, first: factors.Batch, second: factors.Batch | None, of_sum: bool) -> tf.Tensor:
        num, same = 1 if of_sum else self.num_outputs, second is None
        sizes = first.num_examples, (second or first).num_examples
        if second is not None:
            first, second = contractions.aligned(first, second)
        if not first.kinds:
            return tf.zeros([sizes[0], num, sizes[1], num], self.dtype)
        if of_sum:
            first, second = contractions.summed(first), None if second is None else contractions.summed(second)
        methods = {}
        for position, kind in first.kinds.items():
            other = None if second is None else second.kinds[position]
            found = contractions.costs(kind, *sizes, num, same=same, other=other)
            methods[position] = contractions.choose(kind, found, self._method, self.sizes.elements)
        return contractions.contract(first, second, methods)

    def _prepared(self, values: tiles.Held, signature: tiles.Signature) -> factors.Batch:
        """Factors of inputs of a size, in the dtype of the kernel."""
        wide = {
            k: tuple(tf.cast(t, self.dtype) if t.dtype.is_floating else t for t in some) for k, some in values.items()
        }
        return factors.Batch({k: self._kinds[signature][k] for k in wide}, wide)

    def _by_example(self, x: Any, *, diagonal: bool) -> np.ndarray:
        def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
            del labels
            batch = self._prepared(self._traced(inputs), tiles.signature(inputs))
            return contractions.blocks(batch, diagonal=diagonal)

        compiled = self._compiled(compute)
        parts = []
        for batch, count in gradient_products.even_batches(outputs_lib.data(x), self.sizes.batch):
            found = compiled(batch.inputs, np.zeros(len(batch), np.float32)).numpy()[:count]
            tiles.check_finite(found.reshape(count, -1), batch.ids)
            parts.append(found)
        return np.concatenate(parts)


def ntk_full(
    target: targets.Target, x: Any, x2: Any = None, *, out: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """The empirical tangent kernel K [n k, m k] of all outputs; row index = example * k + output.

    Args:
        target: what is differentiated.
        x: inputs of n examples, see `TangentKernel`.
        x2: inputs of m examples; None for `x`.
        out: [n k, m k] floats to fill, such as a memory map; None for a new array.
        **options: method, batch_size, memory_limit_mb, dtype, jit_compile of `TangentKernel`.

    Returns:
        K, see `TangentKernel.full`.

    Raises:
        InvalidArgumentError, InvalidTargetError, MismatchError, NotFiniteError: see `TangentKernel`.
    """
    return TangentKernel(target, x, **options).full(x, x2, out=out)


def ntk_trace(
    target: targets.Target, x: Any, x2: Any = None, *, out: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """[n, m], the tangent kernel summed over outputs; see `TangentKernel.trace`. Args, Raises: see `ntk_full`."""
    return TangentKernel(target, x, **options).trace(x, x2, out=out)


def ntk_mean_trace(
    target: targets.Target, x: Any, x2: Any = None, *, out: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """[n, m], `ntk_trace` / k; see `TangentKernel.mean_trace`. Args, Raises: see `ntk_full`."""
    return TangentKernel(target, x, **options).mean_trace(x, x2, out=out)


def ntk_diagonal(target: targets.Target, x: Any, *, blocks: bool = False, **options: Any) -> np.ndarray:
    """[n, k], |grad f_j(x_i)|^2; with `blocks` [n, k, k], the kernel of each example with itself.

    Args, Raises: see `ntk_full`.
    """
    kernel = TangentKernel(target, x, **options)
    return kernel.blocks(x) if blocks else kernel.diagonal(x)

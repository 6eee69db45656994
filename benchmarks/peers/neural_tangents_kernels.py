"""Tangent kernels by neural-tangents, of the networks of `benchmark_ntk`, in each of its three ways.

Run as PYTHON SCRIPT IN.npz OUT.npz. Reads weights by name, `inputs` [n, ...] and settings (JSON): `network` ("dense" or
"resnet"), `way` (of `nt.NtkImplementation`), `summed`, `repeats`. Writes `kernel` [n k, n k] with row = example * k +
output, or [n, n] if summed, which is the sum over outputs and so k times what `trace_axes=(-1,)` gives; and seconds,
without compiling. It imports nothing of ours. neural-tangents 0.6.5 runs with

    pip install neural-tangents==0.6.5 jax==0.4.23 jaxlib==0.4.23 tf2jax==0.3.6 "numpy<2"
"""

import json
import pathlib
import sys
import time

import jax
from jax import numpy as jnp
import neural_tangents as nt
import numpy as np


def main() -> None:
    """One way of one network."""
    with np.load(sys.argv[1]) as stored:
        arrays = dict(stored)
    settings = json.loads(str(arrays.pop("settings")))
    if settings["float64"]:
        jax.config.update("jax_enable_x64", True)
    inputs = jnp.asarray(arrays.pop("inputs"))
    weights = {name: jnp.asarray(value) for name, value in arrays.items()}
    network = {"dense": dense, "resnet": resnet}[settings["network"]]
    function = nt.empirical_ntk_fn(
        lambda weights, x: network(weights, x),
        trace_axes=(-1,) if settings["summed"] else (),
        vmap_axes=0,
        implementation=nt.NtkImplementation[settings["way"]],
    )
    compiled = jax.jit(lambda x, weights: function(x, None, weights))
    started = time.perf_counter()
    found = np.asarray(compiled(inputs, weights))
    compiling = time.perf_counter() - started
    wall, processor = [], []
    for _ in range(settings["repeats"]):
        started, begun = time.perf_counter(), time.process_time()
        found = np.asarray(compiled(inputs, weights))
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    if settings["summed"]:
        kernel = found * network(weights, inputs[:1]).shape[1]
    else:
        n, m, k, _ = found.shape
        kernel = found.transpose(0, 2, 1, 3).reshape(n * k, m * k)
    version = f"neural-tangents {nt.__version__}, jax {jax.__version__}"
    np.savez(
        pathlib.Path(sys.argv[2]),
        kernel=kernel,
        kernel_wall=wall,
        kernel_processor=processor,
        compiling=compiling,
        version=version,
    )


def dense(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Layers w0, b0, w1, ... with ReLU between them."""
    count = sum(name[0] == "w" for name in weights)
    for k in range(count):
        x = (jax.nn.relu(x) if k else x) @ weights[f"w{k}"] + weights[f"b{k}"]
    return x


def resnet(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Blocks of two 3 x 3 convolutions with scale and offset for batch normalisation, see `ntk_ways`."""

    def convolved(x: jax.Array, name: str, stride: int) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x, weights[f"{name}_w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y * weights[f"{name}_scale"] + weights[f"{name}_offset"]

    x = jax.nn.relu(convolved(x, "stem", 1))
    for block in sorted({name.split("_")[0] for name in weights if name.startswith("block")}):
        stride = 2 if f"{block}_skip_w" in weights else 1
        y = jax.nn.relu(convolved(x, f"{block}_first", stride))
        y = convolved(y, f"{block}_second", 1)
        x = jax.nn.relu(y + (convolved(x, f"{block}_skip", stride) if stride == 2 else x))
    return x.mean(axis=(1, 2)) @ weights["head_w"] + weights["head_b"]


if __name__ == "__main__":
    main()

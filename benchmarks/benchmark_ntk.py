"""Tangent kernels beside neural-tangents and beside `tape.jacobian`.

    python -m benchmarks.benchmark_ntk
    python -m benchmarks.benchmark_ntk --jax_python=PYTHON
    python -m benchmarks.benchmark_ntk --networks=dense --outputs=1

The kernel of all pairs of outputs of

    dense     784 - 2048 - 2048 - 2048 - k, 10 million parameters
    resnet    ResNet-18 on 32 x 32 images, 11 million parameters, batch normalisation as scale and offset

with random weights at random inputs, by `ntk.TangentKernel` with ways chosen by operations, and forced; by
neural-tangents in its three ways, where --jax_python is a Python that has it (the header of
benchmarks/peers/neural_tangents_kernels.py says which versions go together); and by `tape.jacobian`, one example
after the other and of the whole batch at a time. Every way runs in a process of its own with the same
number of threads, one after the other; compiling is left out and stored. Seconds that passed and seconds of all
processors are both stored: on a machine that others use, only the second can be compared. Kernels are compared with
ours, so that a way that is fast and wrong is seen. Writes benchmarks/results/ntk.json.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks import environment, ntk_ways

_NETWORKS = flags.DEFINE_list("networks", ["dense", "resnet"], "Some of the networks.")
_JAX = flags.DEFINE_string("jax_python", None, "A Python that has neural-tangents.")
_OUTPUTS = flags.DEFINE_integer("outputs", None, "Outputs k; 8 for dense and 10 for resnet by default.")
_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Examples n; 16 for dense and 4 for resnet by default.")
_WIDTH = flags.DEFINE_integer("width", 2048, "Width of the dense network.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Of resnet.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each way; the median counts.")
_LIMIT = flags.DEFINE_float("limit", 600, "Seconds after which a way is given up.")
_FORCED = flags.DEFINE_bool("forced", False, "Ours also in each of its ways, for all layers.")
_SUMMED = flags.DEFINE_bool("summed", False, "The sum over outputs in the place of all pairs.")
_FLOAT64 = flags.DEFINE_bool("float64", False, "In float64, which TensorFlow's convolutions are slow in.")
_PEERS = flags.DEFINE_list(
    "peer_ways",
    ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"],
    "Some of the ways of neural-tangents; the first takes minutes on two cores.",
)
_NAME = flags.DEFINE_string("name", "ntk", "The result is benchmarks/results/<name>.json.")
_WAY = flags.DEFINE_bool("way", False, "One way alone: IN.npz OUT.npz, as this program calls itself.")

_THREADS = 2
_DEFAULTS = {"dense": {"num_outputs": 8, "num_examples": 16}, "resnet": {"num_outputs": 10, "num_examples": 4}}
_METHODS = ("jacobian", "structured", "vector_products")

Arrays = dict[str, np.ndarray]


def main(argv: list[str]) -> None:
    """Runs all ways of the networks, or the one that is asked for."""
    if _WAY.value:
        ntk_ways.run(pathlib.Path(argv[1]), pathlib.Path(argv[2]))
        return
    figures: dict[str, Any] = {"threads": _THREADS, "load": os.getloadavg()[0]}
    for network in _NETWORKS.value:
        with tempfile.TemporaryDirectory() as folder:
            figures[network] = _measured(network, pathlib.Path(folder))
        print(json.dumps(figures[network]["times_faster"], indent=1), flush=True)
    figures["load_after"] = os.getloadavg()[0]
    print(environment.save(_NAME.value, figures))


def _settings(network: str) -> dict[str, Any]:
    asked = {"num_outputs": _OUTPUTS.value, "num_examples": _EXAMPLES.value}
    return {
        **_DEFAULTS[network],
        **{name: value for name, value in asked.items() if value is not None},
        "network": network,
        "width": _WIDTH.value,
        "image_size": _IMAGE_SIZE.value,
        "summed": _SUMMED.value,
        "float64": _FLOAT64.value,
        "repeats": _REPEATS.value,
        "threads": _THREADS,
    }


def _measured(network: str, folder: pathlib.Path) -> dict[str, Any]:
    settings = _settings(network)
    arrays = ntk_ways.problem(settings)
    ours = [sys.executable, "-m", "benchmarks.benchmark_ntk", "--way"]
    peer = [_JAX.value, str(pathlib.Path(__file__).parent / "peers" / "neural_tangents_kernels.py")]
    plans = [("ours", ours, {"way": "ours", "method": "auto"})]
    plans += [(f"ours_{name}", ours, {"way": "ours", "method": name}) for name in _METHODS if _FORCED.value]
    plans += [(f"neural_tangents_{way.lower()}", peer, {"way": way}) for way in _PEERS.value if _JAX.value]
    if not _SUMMED.value:
        plans += [(name, ours, {"way": name}) for name in ("tape_by_example", "tape")]
    figures: dict[str, Any] = {"settings": settings, "ways": {}}
    first: np.ndarray | None = None
    for name, command, options in plans:
        found = _run(command, folder, arrays, settings | options)
        if isinstance(found, str):
            figures["ways"][name] = {"failed": found}
        else:
            first = found["kernel"] if first is None else first
            figures["ways"][name] = _figures(found, first)
        print(network, name, json.dumps(figures["ways"][name]), flush=True)
    figures["times_faster"] = _ratios(figures["ways"])
    return figures


def _run(command: list[str], folder: pathlib.Path, arrays: Arrays, settings: dict[str, Any]) -> Arrays | str:
    """What a way wrote, or the end of what it said where it failed."""
    source, destination = folder / "in.npz", folder / "out.npz"
    destination.unlink(missing_ok=True)
    np.savez(source, settings=json.dumps(settings), **arrays)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(_THREADS))
    whole, limit = [*command, str(source), str(destination)], _LIMIT.value
    try:
        done = subprocess.run(
            whole, env=os.environ | threads, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"took more than {limit} s, compiling and all repetitions together"
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr[-300:]}"
    with np.load(destination) as stored:
        return dict(stored)


def _figures(found: Arrays, ours: np.ndarray) -> dict[str, Any]:
    result: dict[str, Any] = {
        kind: round(float(np.median(found[f"kernel_{kind}"])), 4) for kind in ("wall", "processor")
    }
    result |= {name: round(float(found[name]), 2) for name in ("compiling", "megabytes") if name in found}
    result |= {"version": str(found["version"])} if "version" in found else {}
    difference = np.linalg.norm(found["kernel"].astype(np.float64) - ours) / np.linalg.norm(ours)
    return result | {"relative_difference": float(difference)}


def _ratios(ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times longer the others take than ours."""
    ours = ways["ours"]
    if "wall" not in ours:
        return {}
    return {
        name: {kind: round(way[kind] / ours[kind], 2) for kind in ("wall", "processor")}
        for name, way in ways.items()
        if name != "ours" and "wall" in way
    }


flags.register_validator(
    "networks",
    lambda networks: bool(networks) and not set(networks) - set(_DEFAULTS),
    f"expected some of {', '.join(_DEFAULTS)}",
)


if __name__ == "__main__":
    app.run(main)

"""Influence functions beside PyTorch libraries that compute the same, or beside the plain TensorFlow way.

    python -m benchmarks.benchmark_influence
    python -m benchmarks.benchmark_influence --torch_python=PYTHON --data_dir=DIR
    python -m benchmarks.benchmark_influence --parts=inception

A classifier 784-128-64-10 (0.11 million parameters), trained here on real MNIST (--data_dir, as TFDS stores it) or on
made-up images of its size, of which a fifth of the pixels is not zero. --torch_python is a Python with kronfluence,
pydvl and captum; the scripts in benchmarks/peers/ run there, on the same weights and examples, read from a file.

    ekfac       influence of 1000 test on 10000 training examples with EK-FAC factors of the labels in the data, beside
                kronfluence without low rank: fitting, scoring, and how much the scores differ
    cg          (H + damping)^-1 of gradients by conjugate gradients to 1e-5, beside pyDVL, plain and by blocks; the
                residuals of all are measured here, in float64
    gradients   gradients of 256 examples, beside captum's sample-wise trick
    naive       one tape for each example and a loop over test examples: a few of them, for 1000 x 10000 by their
                number; not a peer, but what one writes down first
    inception   2000 x 200 images through EK-FAC of SmallInception (1.9 million parameters), the peak of memory;
                minutes, and only when asked for

Every way runs in a process of its own with the same number of threads, one after the other. Seconds that passed and
seconds of all processors are both stored: on a machine that others use, only the second can be compared. Compiling is
part of the first repetition; the median counts. Each part writes
benchmarks/results/influence_<part>.json.
"""

from collections.abc import Callable
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks import environment, influence_ways

_PARTS = flags.DEFINE_list("parts", ["ekfac", "cg", "gradients", "naive"], "Some of the parts.")
_TORCH = flags.DEFINE_string("torch_python", None, "A Python that has kronfluence, pydvl and captum.")
_DATA = flags.DEFINE_string("data_dir", None, "Folder of TFDS with mnist; none for made-up images.")
_TRAIN = flags.DEFINE_integer("num_train", 10_000, "Training examples.")
_TEST = flags.DEFINE_integer("num_test", 1000, "Test examples.")
_DAMPING = flags.DEFINE_float("damping", 1e-3, "Added to the eigenvalues, of EK-FAC.")
_CG_DAMPING = flags.DEFINE_float("cg_damping", 0.1, "Added to the eigenvalues of the Hessian.")
_CG_TRAIN = flags.DEFINE_integer("cg_num_train", 1000, "Training examples of the Hessian.")
_CG_VECTORS = flags.DEFINE_integer("cg_vectors", 8, "Right-hand sides.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each way; the median counts.")
_BATCH = flags.DEFINE_integer("peer_batch_size", 512, "Training examples that a peer takes at a time.")
_IMAGES = flags.DEFINE_list("inception_images", ["2000", "200"], "Training and test images of SmallInception.")
_WAY = flags.DEFINE_string("way", None, "One way alone: NAME IN.npz OUT.npz, as this program calls itself.")

_THREADS = 2
_FILE_OF_PEER = {"kronfluence": "kronfluence_scores", "pydvl": "pydvl_solutions", "captum": "captum_gradients"}

Arrays = dict[str, np.ndarray]


def main(argv: list[str]) -> None:
    """Runs the parts, or the one way that is asked for."""
    if _WAY.value:
        influence_ways.run(_WAY.value, *(pathlib.Path(path) for path in argv[1:3]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        problem = _ours(folder, "problem", {}, _problem_settings()) if set(_PARTS.value) - {"inception"} else {}
        problem.pop("settings", None)
        for part in _PARTS.value:
            about: dict[str, Any] = {"threads": _THREADS, "data": _DATA.value is not None, "load": os.getloadavg()[0]}
            figures = about | _MEASURED[part](folder, problem) | {"load_after": os.getloadavg()[0]}
            print(part, json.dumps(figures, indent=1), flush=True)
            print(environment.save(f"influence_{part}", figures), flush=True)


def _problem_settings() -> dict[str, Any]:
    return {"data_dir": _DATA.value, "num_train": _TRAIN.value, "num_test": _TEST.value}


def _ours(folder: pathlib.Path, way: str, arrays: Arrays, settings: dict[str, Any]) -> Arrays:
    return _run([sys.executable, "-m", "benchmarks.benchmark_influence", f"--way={way}"], folder, arrays, settings)


def _peer(folder: pathlib.Path, name: str, arrays: Arrays, settings: dict[str, Any]) -> Arrays | None:
    """What a peer's script wrote; None where no Python for it was given."""
    if not _TORCH.value:
        return None
    script = pathlib.Path(__file__).parent / "peers" / f"{_FILE_OF_PEER[name]}.py"
    return _run([_TORCH.value, str(script)], folder, arrays, settings)


def _run(command: list[str], folder: pathlib.Path, arrays: Arrays, settings: dict[str, Any]) -> Arrays:
    source, destination = folder / "in.npz", folder / "out.npz"
    destination.unlink(missing_ok=True)
    settings = {"threads": _THREADS, "repeats": _REPEATS.value, **settings}
    np.savez(source, settings=json.dumps(settings), **arrays)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(_THREADS))
    done = subprocess.run(
        [*command, str(source), str(destination)], env=os.environ | threads, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    with np.load(destination) as stored:
        return dict(stored)


def _seconds(found: Arrays | None, *stages: str) -> dict[str, Any]:
    """Medians of the seconds of every stage and of all together, in real time and of all processors."""
    if found is None:
        return {}
    result: dict[str, Any] = {"version": str(found["version"])} if "version" in found else {}
    for kind in ("wall", "processor"):
        parts = {stage: np.asarray(found[f"{stage}_{kind}"]) for stage in stages}
        result |= {f"{stage}_{kind}": round(float(np.median(values)), 4) for stage, values in parts.items()}
        result[kind] = round(float(np.median(sum(parts.values()))), 4)
    return result


def _ratios(ours: dict[str, Any], others: dict[str, Any]) -> dict[str, float]:
    """How many times longer the others take."""
    return {kind: round(others[kind] / ours[kind], 2) for kind in ("wall", "processor") if kind in others}


def _differences(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Correlation of all numbers, and the length of their difference over that of theirs."""
    first, second = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    return {
        "correlation": float(np.corrcoef(first, second)[0, 1]),
        "relative_difference": float(np.linalg.norm(first - second) / np.linalg.norm(second)),
    }


def _ekfac(folder: pathlib.Path, problem: Arrays) -> dict[str, Any]:
    settings = {"damping": _DAMPING.value, "labels": "data"}
    ours = _ours(folder, "ekfac", problem, settings)
    batches = {"batch_size": _BATCH.value, "query_batch_size": _TEST.value}
    sizes = {name: len(problem[f"{name}_labels"]) for name in ("train", "test")}
    theirs = _peer(folder, "kronfluence", problem, settings | batches)
    figures: dict[str, Any] = {"ours": _seconds(ours, "fit", "score"), "settings": settings | batches | sizes}
    if theirs is not None:
        figures["kronfluence"] = _seconds(theirs, "fit", "score")
        figures["times_faster"] = _ratios(figures["ours"], figures["kronfluence"])
        # Ours are changes by having the example, over n; theirs are of removal, times n.
        figures |= _differences(-len(problem["train_labels"]) * ours["scores"], theirs["scores"])
    return figures


def _cg(folder: pathlib.Path, problem: Arrays) -> dict[str, Any]:
    some = problem | {name: problem[name][: _CG_TRAIN.value] for name in ("train_inputs", "train_labels")}
    settings = {"damping": _CG_DAMPING.value, "tolerance": 1e-5, "max_iterations": 300, "num": _CG_VECTORS.value}
    sizes = {"num_train": len(some["train_labels"]), "num_vectors": _CG_VECTORS.value}
    vectors = _ours(folder, "vectors", some, settings)["vectors"]
    ways: dict[str, Callable[[], Arrays | None]] = {
        "ours": lambda: _ours(folder, "cg", some | {"vectors": vectors}, settings),
        "pydvl": lambda: _peer(folder, "pydvl", some | {"vectors": vectors}, settings | _PLAIN),
        "pydvl_blocks": lambda: _peer(folder, "pydvl", some | {"vectors": vectors}, settings | _PLAIN | _BLOCKS),
    }
    figures: dict[str, Any] = {"settings": settings | sizes, "times_faster": {}}
    for name, way in ways.items():
        found = way()
        if found is None:
            continue
        solved = some | {"vectors": vectors, "solutions": found["solutions"]}
        residuals = _ours(folder, "residuals", solved, settings)["residuals"]
        asked = {"asked_for": _BLOCKS["tolerance"] if name == "pydvl_blocks" else settings["tolerance"]}
        figures[name] = _seconds(found, "solve") | {"largest_residual": float(residuals.max())} | asked
        if name != "ours":
            figures["times_faster"][name] = _ratios(figures["ours"], figures[name])
    return figures


_PLAIN = {"together": False, "batch_size": 1000}
# Asked for 1e-5 itself it ends a little above.
_BLOCKS = {"together": True, "tolerance": 9e-6}


def _gradients(folder: pathlib.Path, problem: Arrays) -> dict[str, Any]:
    some = problem | {name: problem[name][:256] for name in ("train_inputs", "train_labels")}
    settings = {"repeats": 5 * _REPEATS.value, "batch_size": 256}
    ours = _ours(folder, "gradients", some, settings)
    theirs = _peer(folder, "captum", some, settings)
    figures: dict[str, Any] = {"ours": _seconds(ours, "gradients")}
    if theirs is not None:
        figures["captum"] = _seconds(theirs, "gradients")
        figures["times_faster"] = _ratios(figures["ours"], figures["captum"])
        figures |= _differences(ours["gradients"], theirs["gradients"])
    return figures


def _naive(folder: pathlib.Path, problem: Arrays) -> dict[str, Any]:
    settings = {"damping": _DAMPING.value, "labels": "data", "num_pairs": 2000, "repeats": 1}
    found = _ours(folder, "naive", problem, settings)
    pairs = len(problem["train_labels"]) * len(problem["test_labels"])
    times = pairs / settings["num_pairs"]
    return {
        "measured_pairs": settings["num_pairs"],
        "all_pairs_processor": float(np.median(found["pairs_processor"]) * times),
        "ours_processor": float(np.median(found["ours_processor"])),
        "times_faster": float(np.median(found["pairs_processor"]) * times / np.median(found["ours_processor"])),
        **_differences(found["ours"], found["naive"]),
    }


def _inception(folder: pathlib.Path, problem: Arrays) -> dict[str, Any]:
    del problem
    num_train, num_test = (int(number) for number in _IMAGES.value)
    settings = {"num_train": num_train, "num_test": num_test, "damping": _DAMPING.value, "repeats": 1}
    found = _ours(folder, "inception", {}, settings)
    return {
        **settings,
        **_seconds(found, "fit", "score"),
        "peak_megabytes": float(found["megabytes"]),
        "peak_megabytes_of_fit": float(found["fit_megabytes"]),
    }


_MEASURED: dict[str, Callable[[pathlib.Path, Arrays], dict[str, Any]]] = {
    "ekfac": _ekfac,
    "cg": _cg,
    "gradients": _gradients,
    "naive": _naive,
    "inception": _inception,
}

flags.register_validator(
    "parts", lambda parts: bool(parts) and not set(parts) - set(_MEASURED), f"expected some of {', '.join(_MEASURED)}"
)


if __name__ == "__main__":
    app.run(main)

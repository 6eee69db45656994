"""Times all leave-one-out solutions of a linearised network beside one matrix power for each example.

    python -m benchmarks.benchmark_leave_one_out                         # n = 1000, and 10000 examples of 10 outputs
    python -m benchmarks.benchmark_leave_one_out --primal_train=0        # without the second

Dual: n examples of one output, kernel of random features with eigenvalues that fall as 1 / k, t steps. Ours (mean of
three runs), with its decomposition and with and without two groups checked, is set beside what serves one example at a
time: the power (I - eta A)^t of the kernel without it by repeated squaring and a solution with A, and a decomposition
of that kernel. Those are timed on a few examples, and the mean is MULTIPLIED by n. All three give the same
coefficients, and by how much they differ is stored.

Primal: n examples of k outputs by D random features in float32, each example left out, in a process of its own whose
peak memory is stored; the error is that of two examples against a decomposition without them. A healthy run shows at
least 100 times in the first part and less than 8 GB in the second. Results go to benchmarks/results/leave_one_out.json.
"""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks import environment
from estimators.linearized import descents, leave_out, spectra

_NUM_TRAIN = flags.DEFINE_integer("num_train", 1000, "n of the dual form.")
_STEPS = flags.DEFINE_integer("steps", 2000, "t.")
_TIMED = flags.DEFINE_integer("timed", 3, "Examples on which one example at a time is timed.")
_PRIMAL_TRAIN = flags.DEFINE_integer("primal_train", 10000, "n of the primal form; 0 for none.")
_PRIMAL_OUTPUTS = flags.DEFINE_integer("primal_outputs", 10, "k of the primal form.")
_PRIMAL_FEATURES = flags.DEFINE_integer("primal_features", 1024, "D of the primal form.")
_CHILD = flags.DEFINE_boolean("child", False, "Measure the primal form here and print it as JSON.")


def _features(num_rows: int, width: int, dtype: Any) -> np.ndarray:
    """[N, D], normal numbers of variances 1 / k, filled block by block."""
    rng, scale = np.random.default_rng(0), (1 / np.sqrt(np.arange(1, width + 1))).astype(dtype)
    found = np.empty((num_rows, width), dtype)
    for start in range(0, num_rows, 8192):
        block = found[start : start + 8192]
        block[:] = rng.standard_normal(block.shape, dtype) * scale
    return found


def _by_power(kernel: np.ndarray, residuals: np.ndarray, rates: descents.Rates, steps: int) -> np.ndarray:
    """Coefficients with a matrix power."""
    matrix = kernel + rates.lam * np.eye(len(kernel))
    power = np.linalg.matrix_power(np.eye(len(kernel)) - rates.eta * matrix, steps)
    return -np.linalg.solve(matrix, residuals - power @ residuals)


def _by_decomposition(kernel: np.ndarray, residuals: np.ndarray, rates: descents.Rates, steps: int) -> np.ndarray:
    """Coefficients with a decomposition."""
    spectrum = spectra.decompose(kernel)
    values = spectrum.eigenvalues + rates.lam
    transfer = -np.expm1(steps * np.log1p(-rates.eta * values)) / values
    return -spectrum.eigenvectors @ (transfer * (spectrum.eigenvectors.T @ residuals))


def _dual() -> dict[str, Any]:
    num, steps = _NUM_TRAIN.value, _STEPS.value
    features = _features(num, 2 * num, np.float64)
    kernel, residuals = features @ features.T, np.random.default_rng(1).normal(size=num)
    descent = descents.GradientDescent(0.5 * num / np.linalg.eigvalsh(kernel)[-1], 1e-3 / num)
    figures: dict[str, Any] = {"num_train": num, "steps": steps}
    found = None
    for name, checked in (("ours", 0), ("ours, two checked", 2)):
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            found = leave_out.solve(kernel, residuals, descent, steps, num_checked=checked)
            seconds.append(time.perf_counter() - start)
        figures[f"{name}, seconds"] = float(np.mean(seconds))
    assert found is not None
    figures |= {"method": found.method, "measured error": found.check.solution_error}
    rates, places = descent.without(num, 1, "mean"), np.linspace(0, num - 1, _TIMED.value).astype(int)
    for name, function in (("power", _by_power), ("decomposition", _by_decomposition)):
        seconds, apart = [], 0.0
        for place in places:
            left = np.delete(np.arange(num), place)
            start = time.perf_counter()
            single = function(kernel[np.ix_(left, left)], residuals[left], rates, steps)
            seconds.append(time.perf_counter() - start)
            apart = max(apart, np.abs(found.without[place, left] - single).max() / np.abs(single).max())
        whole = float(np.mean(seconds)) * num
        figures |= {
            f"{name}, seconds for each example": seconds,
            f"{name}, seconds for all (mean times n, not run)": whole,
            f"{name}, times as long as ours": whole / figures["ours, seconds"],
            f"{name}, largest difference": float(apart),
        }
    return figures


def _primal() -> dict[str, Any]:
    num, outputs, width = _PRIMAL_TRAIN.value, _PRIMAL_OUTPUTS.value, _PRIMAL_FEATURES.value
    features = _features(num * outputs, width, np.float32)
    residuals = np.random.default_rng(1).normal(size=(num, outputs))
    # The largest eigenvalue is near the largest variance times the rows; half of what is stable.
    descent = descents.GradientDescent(1.0 / (1.2 * outputs), 1e-6)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = leave_out.solve_primal(features, residuals, descent, _STEPS.value)
    seconds = time.perf_counter() - start
    return {
        "num_train": num,
        "num_outputs": outputs,
        "features": width,
        "steps": _STEPS.value,
        "seconds, two checked": seconds,
        "method": found.method,
        "measured error": found.check.solution_error,
        "measured error of changes": found.check.change_error,
        "peak memory before, GB": before / 1e6,
        "peak memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def _in_a_child() -> dict[str, Any]:
    """A process of its own, so that nothing but the features counts in its peak memory."""
    given = [f"--{flag.name}={flag.value}" for flag in (_STEPS, _PRIMAL_TRAIN, _PRIMAL_OUTPUTS, _PRIMAL_FEATURES)]
    command = [sys.executable, "-m", "benchmarks.benchmark_leave_one_out", "--child", *given]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def main(argv: list[str]) -> None:
    """Measures, prints and stores."""
    del argv
    if _CHILD.value:
        print(json.dumps(_primal()))
        return
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {"load average before": load, "dual": _dual()}
    if _PRIMAL_TRAIN.value:
        figures["primal"] = _in_a_child()
    print(json.dumps(figures, indent=2))
    print(environment.save("leave_one_out", figures))


if __name__ == "__main__":
    app.run(main)

"""Time of a datamodel's lasso path and cross-validation beside scikit-learn's, at the same penalties and precision.

    python -m benchmarks.benchmark_datamodels --sizes=1000x1438,2000x10000

For each size (runs x training examples) masks are drawn, subsets of 70 % each, and an output that 40 examples change
strongly, all a little, and noise. Then take turns, in one process of one thread:

- ours: `heldout.scoring.datamodel_path.fit_path` from the packed masks, and `heldout.scoring.datamodels.fit`, which
  cross-validates over 5 folds, fits, and scores held-out runs;
- scikit-learn: `lasso_path` on the dense centred masks (centring is not timed), and `LassoCV` with the same folds.
  For no more than --gram_train examples `lasso_path` is also given the Gram matrix, which is not timed either; the
  faster way counts.

Both get the same penalties, and the same tolerance, a bound on the duality gap over the square of the centred output.
The largest gap of each, by the plain dense formula, is part of the table, and for cross-validation the largest
difference of two weights over the largest weight. Cross-validation is timed for no more than --cv_train examples, and
beyond --gram_train for the first of the --tolerances alone: scikit-learn's takes many minutes for 10000. Compiling is
not timed. The machine may be busy with other things: the ratio of processor seconds is stored beside that of the clock.
A healthy run prints a table with ratios above 5, the same penalty chosen by both, and writes
benchmarks/results/datamodels.json; datamodels_cv.json beside it is of --parts=cross-validation --sizes=2000x10000
--tolerances=1e-7.
"""

from collections.abc import Callable, Iterator
import time
from typing import Any
import warnings

from absl import app, flags
import numpy as np
import sklearn.exceptions
import sklearn.linear_model
import sklearn.model_selection
import threadpoolctl

from benchmarks import environment
from heldout.scoring import datamodel_path, datamodels
from zoo import packed_bits

_SIZES = flags.DEFINE_list("sizes", ["1000x1438", "2000x10000"], "Runs x training examples.")
_TOLERANCES = flags.DEFINE_list("tolerances", ["1e-4", "1e-6"], "Of both.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "How often ours is run; the median counts.")
_THEIR_REPEATS = flags.DEFINE_integer("their_repeats", 1, "The same for scikit-learn.")
_GRAM_TRAIN = flags.DEFINE_integer("gram_train", 2000, "Most examples for which the Gram matrix is tried.")
_CV_TRAIN = flags.DEFINE_integer("cv_train", 10000, "Most examples for which cross-validation is timed.")
_PARTS = flags.DEFINE_list("parts", ["path", "cross-validation"], "What is timed.")
_NAME = flags.DEFINE_string("name", "datamodels", "Name of the result file.")
_NUM_PENALTIES, _RATIO, _NUM_FOLDS = 100, 0.01, 5


def draw(num_runs: int, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [T, N] and outputs [T]."""
    generator = np.random.default_rng(0)
    size = round(0.7 * num_train)
    mask = np.zeros((num_runs, num_train), bool)
    for row in mask:
        row[generator.permutation(num_train)[:size]] = True
    effect = 0.02 * generator.normal(size=num_train)
    effect[generator.permutation(num_train)[:40]] += generator.normal(size=40)
    return mask, mask @ effect + generator.normal(size=num_runs)


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median seconds on the clock and of the processor, and the last result."""
    clock, processor = [], []
    for _ in range(repeats):
        starts = time.perf_counter(), time.process_time()
        result = function()
        clock.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return float(np.median(clock)), float(np.median(processor)), result


def largest_gap(columns: np.ndarray, centred: np.ndarray, weights: np.ndarray, penalties: np.ndarray) -> float:
    """The largest relative duality gap of weights [L, N], from dense products."""
    residual = centred[:, np.newaxis] - columns @ weights.T
    scaled = len(centred) * penalties
    shrink = np.minimum(1, scaled / np.max(np.abs(columns.T @ residual), axis=0))
    square = np.sum(residual**2, axis=0)
    length = np.sum(np.abs(weights), axis=1)
    gap = 0.5 * square * (1 + shrink**2) + scaled * length - shrink * (centred @ residual)
    return float(np.max(gap) / (centred @ centred))


def time_path(mask: np.ndarray, output: np.ndarray, tolerance: float) -> dict[str, Any]:
    """One whole path each."""
    masks = datamodel_path.design(packed_bits.pack(mask), mask.shape[1])
    penalties = datamodel_path.penalties(datamodel_path.largest_penalty(masks, output), _NUM_PENALTIES, _RATIO)
    *ours, fit = timed(lambda: datamodel_path.fit_path(masks, output, penalties, tolerance=tolerance), _REPEATS.value)
    weights = np.zeros((len(penalties), mask.shape[1]))
    for row, index, weight in zip(weights, fit.train_index, fit.weight, strict=True):
        row[index] = weight
    columns, centred = np.asfortranarray(mask - mask.mean(axis=0)), output - output.mean()
    options: list[dict[str, Any]] = [{"precompute": False}]
    if mask.shape[1] <= _GRAM_TRAIN.value:
        options += [{"precompute": columns.T @ columns, "Xy": columns.T @ centred}]
    theirs = [
        timed(
            lambda one=one: sklearn.linear_model.lasso_path(
                columns, centred, alphas=penalties, tol=tolerance, max_iter=10_000, **one
            ),
            _THEIR_REPEATS.value,
        )
        for one in options
    ]
    *fastest, found = min(theirs, key=lambda each: each[0])
    gaps = [largest_gap(columns, centred, one, penalties) for one in (weights, found[1].T)]
    return {**figures(ours, fastest, gaps), "num_weights": len(fit.weight[-1]), "num_ways": len(theirs)}


def time_cross_validation(mask: np.ndarray, output: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Cross-validation and the final fit."""
    masks = datamodel_path.design(packed_bits.pack(mask), mask.shape[1])
    penalties = datamodel_path.penalties(datamodel_path.largest_penalty(masks, output), _NUM_PENALTIES, _RATIO)
    options = datamodels.Options(_NUM_PENALTIES, _RATIO, _NUM_FOLDS, tolerance)
    *ours, model = timed(lambda: datamodels.fit(masks, output, options), _REPEATS.value)
    features = np.asfortranarray(mask, np.float64)
    estimator = sklearn.linear_model.LassoCV(
        alphas=penalties, cv=sklearn.model_selection.KFold(_NUM_FOLDS), tol=tolerance, max_iter=10_000, copy_X=True
    )
    *theirs, found = timed(lambda: estimator.fit(features, output), _THEIR_REPEATS.value)
    weights = np.zeros((1, mask.shape[1]))
    weights[0, model.train_index] = model.weight
    columns, centred = features - features.mean(axis=0), output - output.mean()
    gaps = [
        largest_gap(columns, centred, one, np.array([penalty]))
        for one, penalty in ((weights, model.penalty), (found.coef_[np.newaxis], found.alpha_))
    ]
    same = bool(np.isclose(model.penalty, found.alpha_))
    difference = float(np.max(np.abs(weights[0] - found.coef_)) / np.max(np.abs(found.coef_)))
    return {
        **figures(ours, theirs, gaps),
        "num_weights": len(model.weight),
        "same_penalty": same,
        "largest_difference": difference,
    }


def figures(ours: list[float], theirs: list[float], gaps: list[float]) -> dict[str, float]:
    """Seconds, their ratio, and gaps."""
    return {
        "our_seconds": ours[0],
        "their_seconds": theirs[0],
        "ratio": theirs[0] / ours[0],
        "our_processor_seconds": ours[1],
        "their_processor_seconds": theirs[1],
        "processor_ratio": theirs[1] / ours[1],
        "our_gap": gaps[0],
        "their_gap": gaps[1],
    }


def measure() -> Iterator[dict[str, Any]]:
    """One row after the other."""
    for size in _SIZES.value:
        num_runs, num_train = (int(part) for part in size.split("x"))
        mask, output = draw(num_runs, num_train)
        for number, tolerance in enumerate(map(float, _TOLERANCES.value)):
            known = {"num_runs": num_runs, "num_train": num_train, "tolerance": tolerance}
            if "path" in _PARTS.value:
                yield {"what": "path", **known, **time_path(mask, output, tolerance)}
            most = _GRAM_TRAIN.value if number else _CV_TRAIN.value
            if "cross-validation" in _PARTS.value and num_train <= most:
                yield {"what": "cross-validation", **known, **time_cross_validation(mask, output, tolerance)}


def main(argv: list[str]) -> None:
    """Times, prints and writes."""
    del argv
    # Paths that scikit-learn does not finish within its sweeps show in their gaps.
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    small = draw(100, 50)
    rows = []
    print(
        "runs x examples   what               tolerance      ours    theirs  ratio  of processor    our gap  their gap"
    )
    with threadpoolctl.threadpool_limits(1):
        datamodels.fit(datamodel_path.design(packed_bits.pack(small[0]), 50), small[1], datamodels.Options())
        for row in measure():
            rows.append(row)
            size = f"{row['num_runs']} x {row['num_train']}"
            print(
                f"{size:16s}  {row['what']:17s}  {row['tolerance']:9.0e}  {row['our_seconds']:6.2f} s  "
                f"{row['their_seconds']:6.1f} s  {row['ratio']:5.1f}  {row['processor_ratio']:12.1f}  "
                f"{row['our_gap']:9.1e}  {row['their_gap']:9.1e}",
                flush=True,
            )
    settings = {"num_penalties": _NUM_PENALTIES, "lambda_ratio": _RATIO, "num_folds": _NUM_FOLDS}
    print(environment.save(_NAME.value, {**settings, "repeats": _REPEATS.value, "rows": rows}))


if __name__ == "__main__":
    app.run(main)

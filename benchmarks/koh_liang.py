"""Predicted against actual effects of leaving single training examples out: figure 2 (left) of Koh & Liang (2017).

    python -m benchmarks.koh_liang --dataset=mnist --data_dir=PATH_OF_TFDS       # some minutes
    python -m benchmarks.koh_liang --dataset=digits --num_top=100 --outdir=/tmp/koh_liang

Softmax regression of all classes with weight decay .01 is fitted to the first training examples of a data set, by all
of them, to a gradient of at most 1e-10. For one test image that it gets wrong, influence functions predict how far the
loss rises when each training example is left out, by conjugate gradients and by LiSSA. For the training examples of
the largest predictions (of conjugate gradients, by modulus) the model is then refitted without each, as exactly, and
the true rises stand beside the predicted ones.

Everything is float64. Writes koh_liang.json, koh_liang.png and README.md to --outdir. A healthy run prints
correlations above .99.
"""

from collections.abc import Sequence
import json
import pathlib
import time
from typing import Any

from absl import app, flags
import numpy as np
import tensorflow as tf

from benchmarks import environment, softmax_regression
from estimators import influence_functions, targets
from heldout.datasets import registry

_DATASET = flags.DEFINE_string("dataset", "mnist", "Data set by name, see heldout/datasets/registry.py.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS data sets.")
_NUM_TRAIN = flags.DEFINE_integer("num_train", 55000, "Training examples, the first of the data set.")
_NUM_TOP = flags.DEFINE_integer("num_top", 500, "Training examples that are left out, one at a time.")
_DECAY = flags.DEFINE_float("weight_decay", 0.01, "lambda of 1/2 lambda |W|^2, the bias included.")
_TEST_ID = flags.DEFINE_integer("test_id", None, "Test image; by default the first that the model gets wrong.")
_DEPTH = flags.DEFINE_integer("recursion_depth", 5000, "Steps of LiSSA.")
_REPEATS = flags.DEFINE_integer("r", 10, "Repeats of LiSSA.")
_SCALE = flags.DEFINE_float("scale", 25.0, "Scale of LiSSA.")
_OUTDIR = flags.DEFINE_string("outdir", "docs/koh_liang", "Folder of the results.")


def main(argv: Sequence[str]) -> None:
    """Fits, predicts, refits, and writes the results."""
    del argv
    started = time.perf_counter()
    problem, test = _load()
    weights, step = softmax_regression.fit(problem)
    logits = test[0] @ weights
    wrong = np.flatnonzero(logits.argmax(axis=1) != test[1])
    if _TEST_ID.value is None and not wrong.size:
        raise SystemExit("the model gets every test image right; name one by --test_id")
    test_id = int(wrong[0]) if _TEST_ID.value is None else _TEST_ID.value
    print(f"fitted after {time.perf_counter() - started:.0f} s; {wrong.size} of {len(logits)} test images are wrong")
    one = (test[0][test_id], int(test[1][test_id]))
    predicted = {name: _predictions(problem, weights, one, name, started) for name in ("conjugate_gradient", "lissa")}
    rises = predicted["conjugate_gradient"][0]
    top = np.argsort(-np.abs(rises), kind="stable")[: _NUM_TOP.value]
    refits = softmax_regression.leave_one_out(problem, weights, step, top)
    actual = np.array([_loss(one, fit) for fit in refits]) - _loss(one, weights)
    figures = _figures(problem, test_id, one[1], int(logits[test_id].argmax()), predicted, top, actual)
    figures["test_accuracy"] = round(1 - wrong.size / len(logits), 4)
    figures["processor_seconds"] = round(time.process_time())
    _write(
        pathlib.Path(_OUTDIR.value), figures, {name: found[0][top] for name, found in predicted.items()}, top, actual
    )
    for name, found in figures["solvers"].items():
        print(f"{name:<20} correlation {found['correlation']:.5f}, slope {found['slope']:.4f}")


def _load() -> tuple[softmax_regression.Problem, tuple[np.ndarray, np.ndarray]]:
    """(training problem, (features, labels) of the test examples), with a column of ones."""
    data = registry.load(_DATASET.value, _DATA_DIR.value)
    num = min(_NUM_TRAIN.value, len(data.train))

    def features(images: np.ndarray) -> np.ndarray:
        rows = data.normalise(images, np.float64).reshape(len(images), -1)
        return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)

    train = features(data.train.images[:num])
    problem = softmax_regression.Problem(train, data.train.label[:num], data.num_classes, _DECAY.value)
    return problem, (features(data.test.images), data.test.label)


def _loss(example: tuple[np.ndarray, int], weights: np.ndarray) -> float:
    logits = example[0] @ weights
    return float(np.logaddexp.reduce(logits) - logits[example[1]])


def _predictions(
    problem: softmax_regression.Problem, weights: np.ndarray, example: tuple[np.ndarray, int], name: str, started: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """(R [n], the predicted rise of the loss of the example without each training example; what the solver said)."""
    module = tf.Module()
    module.weights = tf.Variable(weights)
    target = targets.of(module, predict=lambda x: x @ module.weights, weight_decay=problem.decay)
    # No damping: the weight decay alone makes the curvature positive.
    options: dict[str, dict[str, Any]] = {
        "conjugate_gradient": {"damping": 0.0, "curvature": "hessian", "tolerance": 1e-8},
        "lissa": {"damp": 0.0, "scale": _SCALE.value, "recursion_depth": _DEPTH.value, "r": _REPEATS.value},
    }
    train = (problem.features, problem.labels)
    fitted = influence_functions.InfluenceFunctions(target, name, batch_size=2000, **options[name]).fit(train)
    matrix = fitted.scores(train, (example[0][None], np.array([example[1]])))
    assert matrix.residuals is not None
    print(f"{name}: residual {matrix.residuals[0]:.2g} after {time.perf_counter() - started:.0f} s", flush=True)
    return matrix.helpfulness(0), {"residual": float(f"{matrix.residuals[0]:.2g}"), "options": options[name]}


def _figures(
    problem: softmax_regression.Problem,
    test_id: int,
    label: int,
    seen_as: int,
    predicted: dict[str, tuple[np.ndarray, dict[str, Any]]],
    top: np.ndarray,
    actual: np.ndarray,
) -> dict[str, Any]:
    """What is stored and stands in the text."""
    found = {
        name: {
            **said,
            "correlation": round(float(np.corrcoef(values[top], actual)[0, 1]), 7),
            "slope": round(float(np.polyfit(values[top], actual, 1)[0]), 4),
        }
        for name, (values, said) in predicted.items()
    }
    return {
        "dataset": _DATASET.value,
        "num_train": len(problem.labels),
        "num_parameters": problem.features.shape[1] * problem.num_classes,
        "weight_decay": problem.decay,
        "test_id": test_id,
        "test_label": label,
        "test_prediction": seen_as,
        "num_top": len(top),
        "largest_actual": float(f"{np.abs(actual).max():.3g}"),
        "least_actual": float(f"{np.abs(actual).min():.3g}"),
        "solvers": found,
    }


def _write(
    folder: pathlib.Path, figures: dict[str, Any], predicted: dict[str, np.ndarray], top: np.ndarray, actual: np.ndarray
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _draw(folder / "koh_liang.png", figures, predicted, actual)
    rows = {"train_ids": top.tolist(), "actual": _short(actual)}
    rows |= {f"predicted_{name}": _short(values) for name, values in predicted.items()}
    stored = {"figures": figures, "examples": rows, "environment": environment.describe()}
    (folder / "koh_liang.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_text(figures), encoding="utf-8")


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


_NAMES = {"conjugate_gradient": "conjugate gradients", "lissa": "LiSSA"}


def _draw(path: pathlib.Path, figures: dict[str, Any], predicted: dict[str, np.ndarray], actual: np.ndarray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(predicted), figsize=(9, 4.4), sharex=True, sharey=True, layout="constrained")
    for axis, (name, values) in zip(axes, predicted.items(), strict=True):
        ends = [min(values.min(), actual.min()), max(values.max(), actual.max())]
        axis.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
        axis.scatter(actual, values, s=10, color="#1f77b4", alpha=0.6, linewidths=0)
        axis.set_title(f"{_NAMES[name]}: r = {figures['solvers'][name]['correlation']:.5f}", fontsize=11)
        axis.set_xlabel("actual rise of the test loss")
        axis.ticklabel_format(axis="both", style="sci", scilimits=(0, 0))
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
    axes[0].set_ylabel("predicted rise of the test loss")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _text(figures: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {_NAMES[name]} | {found['correlation']:.5f} | {found['slope']:.3f} | {found['residual']:.1g} |"
        for name, found in figures["solvers"].items()
    )
    lissa = figures["solvers"]["lissa"]["options"]
    data_dir = "" if _DATA_DIR.value is None else " --data_dir=PATH_OF_TFDS"
    return f"""# Predicted and actual effects of leaving one example out

    python -m benchmarks.koh_liang --dataset={figures["dataset"]}{data_dir}

The figure of Koh & Liang (2017, figure 2, left) by this project, in its conventions. Written by the command above in
{figures["processor_seconds"]} seconds of processor time; figures and all points are in `koh_liang.json`, with versions
and processor.

![predicted against actual rise of the test loss](koh_liang.png)

Softmax regression with {figures["num_parameters"]} parameters and weight decay {figures["weight_decay"]} on the first
{figures["num_train"]} training images of {figures["dataset"]}, at its optimum (gradient at most 1e-10, float64), which
gets {figures["test_accuracy"]:.2%} of the test images right. The test image is number {figures["test_id"]}, a
{figures["test_label"]} that it takes for a {figures["test_prediction"]}. Each point is one of the {figures["num_top"]}
training images with the largest predicted effects:

- across, the *actual* rise of the test loss when the model is fitted again without it, to the same gradient (all
  other examples keep their weight 1/n); in modulus from {figures["least_actual"]} to {figures["largest_actual"]};
- upwards, the *predicted* rise, R = (1/n) g_i^T H^-1 g_t, with the Hessian H, weight decay included, and no damping.

Positive helps: without such an example the loss is higher. The grey line is where prediction and truth agree.

| solver | Pearson correlation | slope of actual on predicted | residual |
|---|---|---|---|
{rows}

LiSSA takes r = {lissa["r"]} repeats of {lissa["recursion_depth"]} steps, each with one example, at scale
{lissa["scale"]:g}. It stops short of the inverse in directions of small curvature and keeps some noise of its batches,
which its residual tells. A slope above 1 is what influence functions leave out: with an example its curvature goes too.
"""


if __name__ == "__main__":
    app.run(main)

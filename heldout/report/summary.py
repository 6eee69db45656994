"""The scores of an experiment in a few lines for the terminal."""

from collections.abc import Sequence

import numpy as np

from heldout.report import formats, influence_scan, selection
from heldout.scoring import bootstrap, saved_scores
from heldout.scoring import scores as scores_lib


def text_summary(
    saved: saved_scores.SavedScores,
    class_names: Sequence[str] | None = None,
    *,
    subset_ratio: float | None = None,
    num_tests: int = 3,
) -> str:
    """What the scores say, as plain text without a final newline.

    Args:
        saved: the scores.
        class_names: names of the classes; without them their numbers are shown, without labels neither.
        subset_ratio: which ratio to speak about; None takes the one with the most runs.
        num_tests: how many test examples to name for the most memorized training example.

    Returns:
        Runs, a warning where they are few, accuracy, the number of memorized examples with its interval, the most
        memorized example, the test examples that it influences most, and the strongest pair of all, each value with
        its standard error.

    Raises:
        InvalidValueError: the ratio was not scored.
    """
    scores = selection.ratio_scores(saved, subset_ratio)
    num_train, num_test = scores.num_train, scores.num_test
    lines = [
        f"{saved.experiment}: {counted(scores.num_runs, 'run')} at subset ratio {scores.subset_ratio:g}, "
        f"{num_train} training and {num_test} test examples",
    ]
    if warning := formats.few_runs(scores.num_runs, scores.memorization.num_in, scores.memorization.num_heldout):
        lines.append(warning)
    lines += [
        f"accuracy: {percent(scores.mean_accuracy_in)} trained on, {percent(scores.mean_accuracy_heldout)} held out, "
        f"{percent(scores.mean_test_accuracy)} test",
        memorized_sentence(scores.memorized),
    ]
    if undefined := int(np.isnan(scores.memorization.values).sum()):
        verb = "has" if undefined == 1 else "have"
        lines.append(f"{counted(undefined, 'example')} {verb} no memorization: {_why_undefined(scores)}")
    spread: list[float] = []
    best = selection.highest(scores.memorization.values, 1, selection.support(scores))
    if best.size:
        pairs = influence_scan.of_train(scores, int(best[0]), num_tests)
        lines += _most_memorized(saved, scores, int(best[0]), pairs, class_names)
        spread += [scores.memorization.standard_error[best[0]], *(pair.standard_error for pair in pairs)]
    if (strongest := influence_scan.strongest_pair(scores)) is not None:
        lines.append(_strongest_pair(saved, scores, strongest, class_names))
        spread.append(strongest.standard_error)
    if 0 in spread:
        lines.append("(an error of 0 means that no run disagreed, not that the value is certain)")
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share in percent with one decimal; "no data" for NaN."""
    return "no data" if np.isnan(share) else f"{100 * share:.1f} %"


def counted(number: int, noun: str) -> str:
    """A number of things, the number as a program would read it: "1 run", "1400 runs"."""
    return f"{number} {noun if number == 1 else noun + 's'}"


def memorized_sentence(memorized: bootstrap.CountInterval) -> str:
    """The number of memorized examples with its interval, as one clause."""
    return (
        f"memorized (memorization >= {memorized.threshold:g}): {counted(memorized.count, 'example')}, "
        f"interval {memorized.low:.0f} to {memorized.high:.0f} (bootstrap over runs, {memorized.num_draws} draws)"
    )


def value_with_error(value: float, standard_error: float) -> str:
    """A signed score with its standard error: "+0.83 +- 0.05"."""
    return f"{value:+.2f} +- {standard_error:.2f}"


def _why_undefined(scores: saved_scores.RatioScores) -> str:
    """Which of the two that memorization compares is missing, with counts: "5 were never held out"."""
    support = scores.memorization
    parts = [
        ("never trained on", int((support.num_in == 0).sum())),
        ("never held out", int((support.num_heldout == 0).sum())),
    ]
    return ", ".join(f"{number} {'was' if number == 1 else 'were'} {what}" for what, number in parts if number)


def _most_memorized(
    saved: saved_scores.SavedScores,
    scores: saved_scores.RatioScores,
    index: int,
    pairs: Sequence[influence_scan.Pair],
    class_names: Sequence[str] | None,
) -> list[str]:
    support = scores.memorization
    score = value_with_error(support.values[index], support.standard_error[index])
    lines = [
        f"most memorized: training example {index}{_class(saved.train_label, index, class_names)}, memorization "
        f"{score} {_runs(support, index)}"
    ]
    for pair in pairs:
        test = pair.test_index
        lines.append(
            f"  its subset influence on test example {test}{_class(saved.test_label, test, class_names)}: "
            f"{value_with_error(pair.value, pair.standard_error)}"
        )
    return lines


def _strongest_pair(
    saved: saved_scores.SavedScores,
    scores: saved_scores.RatioScores,
    pair: influence_scan.Pair,
    class_names: Sequence[str] | None,
) -> str:
    train, test = pair.train_index, pair.test_index
    return (
        f"strongest pair: training example {train}{_class(saved.train_label, train, class_names)} -> "
        f"test example {test}{_class(saved.test_label, test, class_names)}, subset influence "
        f"{value_with_error(pair.value, pair.standard_error)} {_runs(scores.memorization, train)}"
    )


def _runs(support: scores_lib.Scores, index: int) -> str:
    """The runs behind the values of a training example: "(280 runs with it, 120 without)"."""
    return f"({counted(int(support.num_in[index]), 'run')} with it, {support.num_heldout[index]} without)"


def _class(labels: np.ndarray | None, index: int, class_names: Sequence[str] | None) -> str:
    return "" if labels is None else f" (class {selection.class_name(int(labels[index]), class_names)})"

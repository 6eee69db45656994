"""Scores of a small simulated experiment whose memorized example and strongest pair are known.

60 training examples of 3 classes and 24 test examples. Training example 7 is right exactly when it is trained on, and
so is test example 5, which therefore hangs on it alone. Training example 11 is held out by no run at ratio 0.5.
Everything else is right with a probability of its own, whatever the subset.
"""

import dataclasses
import pathlib

import numpy as np

from heldout.datasets import dataset
from heldout.scoring import bootstrap, influence_matrix, influence_pass, joint_counts, saved_scores, scores
from tests.reference import influence_summary as reference
from zoo import run_table

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 60, 24, 3
MEMORIZED, DEPENDENT_TEST, NEVER_HELD_OUT = 7, 5, 11
TRAIN_LABEL = np.arange(NUM_TRAIN) % NUM_CLASSES
TEST_LABEL = np.arange(NUM_TEST) % NUM_CLASSES
CLASS_NAMES = ("cat", "dog", "</script><b>bird")


def table(subset_ratios: tuple[float, ...] = (0.5, 0.8), labels: bool = True) -> run_table.RunTable:
    """40 runs at the first ratio, 30 at each of the others."""
    rng = np.random.default_rng(3)
    run_ids, ratios, masks, train, test = [], [], [], [], []
    train_rate, test_rate = rng.uniform(0.6, 1, NUM_TRAIN), rng.uniform(0.6, 1, NUM_TEST)
    for ratio in subset_ratios:
        for run_id in range(40 if ratio == subset_ratios[0] else 30):
            mask = np.zeros(NUM_TRAIN, bool)
            mask[rng.permutation(NUM_TRAIN)[: int(ratio * NUM_TRAIN)]] = True
            if ratio == 0.5 and not mask[NEVER_HELD_OUT]:
                mask[np.flatnonzero(mask)[0]] = False
                mask[NEVER_HELD_OUT] = True
            right_train, right_test = rng.random(NUM_TRAIN) < train_rate, rng.random(NUM_TEST) < test_rate
            right_train[MEMORIZED] = right_test[DEPENDENT_TEST] = mask[MEMORIZED]
            right_test[0] = True
            run_ids.append(run_id)
            ratios.append(ratio)
            masks.append(mask)
            train.append(right_train)
            test.append(right_test)
    known = (TRAIN_LABEL, TEST_LABEL) if labels else (None, None)
    return run_table.from_arrays(
        "simulated", np.array(run_ids), np.array(ratios), np.array(masks), np.array(train), np.array(test), *known
    )


def saved(subset_ratios: tuple[float, ...] = (0.5, 0.8), labels: bool = True) -> saved_scores.SavedScores:
    """Scores of `table`, in memory."""
    runs = table(subset_ratios, labels)
    return saved_scores.SavedScores(
        directory=pathlib.Path("scores"),
        experiment="simulated",
        schema_version=1,
        provenance={
            "table_digest": runs.digest(),
            "num_runs": runs.num_runs,
            "dataset": None,
            "subset_ratios": list(runs.subset_ratios),
        },
        ratios={ratio: _ratio_scores(runs, ratio) for ratio in runs.subset_ratios},
        consistency=scores.consistency(runs),
        train_label=runs.train_label,
        test_label=runs.test_label,
    )


def _ratio_scores(runs: run_table.RunTable, ratio: float) -> saved_scores.RatioScores:
    chosen = runs.select(ratio)
    counts = scores.count_sides(runs, ratio)
    memorization = scores.memorization_from_counts(counts)
    settings = influence_pass.Settings(top_k=10, least_influence=0.1, least_memorization=-1.0, least_z=2.0)
    counter, sides = joint_counts.WordCounter.of_runs(chosen), influence_matrix.sides_of(chosen)
    work = influence_pass.Work(counter, sides, memorization.values, settings)
    matrix = np.empty((NUM_TRAIN, NUM_TEST), np.float32)

    def write_rows(start: int, values: np.ndarray) -> None:
        matrix[start : start + len(values)] = values

    mask, train, test = chosen.subset_mask(), chosen.train_correctness(), chosen.test_correctness()
    return saved_scores.RatioScores(
        subset_ratio=ratio,
        num_runs=chosen.num_runs,
        memorization=memorization,
        accuracy_in=counts.accuracy_in,
        accuracy_heldout=counts.accuracy_heldout,
        test_accuracy=test.mean(axis=0),
        mean_accuracy_in=float(train[mask].mean()),
        mean_accuracy_heldout=float(train[~mask].mean()),
        mean_test_accuracy=float(test.mean()),
        memorized=bootstrap.count_above(runs, ratio, 0.25, num_draws=50),
        influence=influence_pass.summary_of(work, range(NUM_TRAIN), write_rows),
        subset_influence=matrix,
    )


def with_influence(ratio: saved_scores.RatioScores, values: np.ndarray) -> saved_scores.RatioScores:
    """The same scores with another matrix of subset influence; standard errors of its values mean nothing."""
    values = values.astype(np.float32)
    support = np.minimum(ratio.memorization.num_in, ratio.memorization.num_heldout)
    summary = reference.summarise(values, ratio.memorization.values, support, 10, 0.1, -1.0)
    return dataclasses.replace(ratio, subset_influence=values, influence=summary)


def images(channels: int = 1, scale: float = 255.0) -> dataset.Dataset:
    """A data set of 6x5 images, all different but training images 0 and 1, which are the same."""
    rng = np.random.default_rng(4)
    train = rng.integers(0, int(scale) + 1, (NUM_TRAIN, 6, 5, channels)).astype(np.uint8)
    train[1] = train[0]
    test = rng.integers(0, int(scale) + 1, (NUM_TEST, 6, 5, channels)).astype(np.uint8)
    return dataset.Dataset(
        name="simulated-images",
        version="1",
        train=dataset.Split(train, TRAIN_LABEL.astype(np.int64)),
        test=dataset.Split(test, TEST_LABEL.astype(np.int64)),
        class_names=CLASS_NAMES,
        scale=scale,
    )

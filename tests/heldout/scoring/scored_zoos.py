"""Scores of small zoos on disk, made by the project itself, with the same examples memorized in each."""

import numpy as np

from heldout.scoring import score_config, score_files
from zoo import aux_arrays, layout

N, M = 40, 17
TRAIN_LABEL, TEST_LABEL = np.arange(N) % 3, np.arange(M) % 3
_MEMORIZED = 10


def write(folder, run_ids, ratios=(0.3, 0.7), **options):
    """Runs that memorize the first ten training examples, each of which helps the test example of its number.

    Returns the folder of their scores.
    """
    for ratio in ratios:
        for run_id in run_ids:
            generator = np.random.default_rng([int(10 * ratio), run_id])
            mask = np.isin(np.arange(N), generator.permutation(N)[: int(ratio * N)])
            train = generator.random(N) < np.where(mask, 0.98, np.where(np.arange(N) < _MEMORIZED, 0.1, 0.9))
            test = generator.random(M) < np.where(mask[:M] & (np.arange(M) < _MEMORIZED), 0.95, 0.2)
            aux = aux_arrays.from_masks(mask, train, test)
            aux_arrays.write(layout.Run(folder, "demo", ratio, run_id).aux_arrays_path, aux)
    folder.mkdir(parents=True, exist_ok=True)
    images = {"train__image": np.zeros((N, 2, 2), np.uint8), "test__image": np.zeros((M, 2, 2), np.uint8)}
    np.savez(folder / "data.npz", **images, train__label=TRAIN_LABEL, test__label=TEST_LABEL)
    dataset = f"npz:{folder / 'data.npz'}"
    config = score_config.ScoreConfig(zoo=str(folder), experiment="demo", num_draws=20, dataset=dataset, **options)
    return score_files.compute_scores(config).directory


def class_influence(path, matrix, memorization, train_label, test_label):
    """Writes the class-wise format of the papers with NumPy alone."""
    members = {"tr_labels": train_label, "tt_labels": test_label, "tr_mem": memorization}
    for label in np.union1d(train_label, test_label):
        rows, columns = np.flatnonzero(train_label == label), np.flatnonzero(test_label == label)
        members |= {f"tr_classidx_{label}": rows, f"tt_classidx_{label}": columns}
        members[f"infl_matrix_class{label}"] = matrix[np.ix_(rows, columns)]
    np.savez(path, **members)

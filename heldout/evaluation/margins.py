"""How sure a run was of each example: the margins that lie beside its correctness.

    margin = z_y - log sum_{k != y} exp(z_k) = log(p / (1 - p)),   z the logits, y the label, p = softmax(z)_y

as Park et al. (2023) measure a model's output. Positive: the label is more likely than all other classes together.
It is computed in float64 and stored as float16, clipped to the finite range of that type, -65504 to 65504.
"""

import numpy as np

from zoo import aux_arrays, files, layout, run_table_update

LARGEST = float(np.finfo(np.float16).max)


def margins(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The margin of each example.

    Args:
        logits: [n, K], finite.
        label: integers [n], in 0..K-1.

    Returns:
        float16 [n], in -65504 to 65504; the bound where there is no other class.
    """
    others = logits.astype(np.float64)
    rows = np.arange(len(label))
    of_label = others[rows, label]
    others[rows, label] = -np.inf
    largest = np.max(others, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.log(np.sum(np.exp(others - largest[:, np.newaxis]), axis=1))
    log_sum = np.where(np.isneginf(largest), largest, largest + sums)
    return np.clip(of_label - log_sum, -LARGEST, LARGEST).astype(np.float16)


def collect(zoo: files.PathLike, experiment: str) -> tuple[np.ndarray, np.ndarray]:
    """The margins of all runs of an experiment, in the order of its run table.

    Args:
        zoo: folder that holds the experiments.
        experiment: name of one.

    Returns:
        float16 [T, N] on the training examples and [T, M] on the test examples, by original index; rows of NaN for
        runs whose record holds no margins, or whose folder is gone. Memory: 2 T (N + M) bytes.

    Raises:
        MissingFileError: the experiment has no complete run.
    """
    table, _ = run_table_update.update(zoo, experiment)
    train = np.full((table.num_runs, table.num_train), np.nan, np.float16)
    test = np.full((table.num_runs, table.num_test), np.nan, np.float16)
    names = zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True)
    runs = {(run.subset_ratio, run.run_id): run for run in layout.runs(zoo, experiment)}
    for row, name in enumerate(names):
        if name not in runs or not runs[name].aux_arrays_path.exists():
            continue
        aux = aux_arrays.read(runs[name].aux_arrays_path)
        if aux.margins is not None:
            train[row], test[row] = aux.train_margin(), aux.test_margin()
    return train, test

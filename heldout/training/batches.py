"""The order in which a training sees its examples, drawn on the host and replayed on any device.

One epoch of R runs is `indices` [S, R, B]: S steps, R runs, B original positions. Every run permutes its own subset
anew each epoch; the incomplete last batch is left out. With augmentation there is one shift and one flip per place:
`shifts` [S, R, B, 2] in [0, 2 * padding] (row, column; `padding` means none) and `flips` [S, R, B].
"""

import dataclasses

import numpy as np

from heldout import subsets
from heldout.experiments import training_config


@dataclasses.dataclass(frozen=True)
class RunDraw:
    """What one run draws from: its name and its subset.

    Attributes:
        name: (experiment, subset_ratio, run_id), the source of all its seeds.
        subset_indices: original positions trained on, int64 [m].
    """

    name: tuple[str, float, int]
    subset_indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class EpochBatches:
    """One epoch of R runs; see the module's first lines for the shapes."""

    indices: np.ndarray
    shifts: np.ndarray
    flips: np.ndarray


def steps_per_epoch(config: training_config.TrainingConfig, subset_size: int) -> int:
    """S, the number of complete batches in a pass over the subset."""
    return subset_size // min(config.batch_size, subset_size)


def epoch_batches(config: training_config.TrainingConfig, runs: list[RunDraw], epoch: int) -> EpochBatches:
    """The batches of epoch `epoch` (from 0) of runs with subsets of one size."""
    per_run = [_one_run(config, run, epoch) for run in runs]
    return EpochBatches(*(np.stack(arrays, axis=1) for arrays in zip(*per_run, strict=True)))


def _one_run(config: training_config.TrainingConfig, run: RunDraw, epoch: int) -> tuple[np.ndarray, ...]:
    size = len(run.subset_indices)
    num_steps, batch_size = steps_per_epoch(config, size), min(config.batch_size, size)
    shape = (num_steps, batch_size)
    order = subsets.permutation(subsets.seed(run.name, f"order/{epoch}"), size)[: num_steps * batch_size]
    indices = run.subset_indices[order].reshape(shape).astype(np.int32)
    shifts, flips = np.zeros((0, 0, 2), np.int32), np.zeros((0, 0), bool)
    if "crop" in config.augmentation:
        key = subsets.seed(run.name, f"shift/{epoch}")
        shifts = subsets.random_integers(key, (*shape, 2), 2 * config.crop_padding + 1)
    if "flip" in config.augmentation:
        flips = subsets.random_integers(subsets.seed(run.name, f"flip/{epoch}"), shape, 2).astype(bool)
    return indices, shifts, flips

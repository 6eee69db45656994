"""All of a computation of `compute_unique_information` that is not there yet; imports TensorFlow."""

from collections.abc import Callable
import contextlib
import dataclasses
from typing import Any

import numpy as np

from heldout.training import leave_out_files
from scripts.unique_information import (
    array_store,
    file_digests,
    information_config,
    information_figures,
    information_files,
    left_out_groups,
    linearisation,
    linearised_networks,
    linearised_problem,
    linearised_scores,
    linearised_training,
    scoring_config,
)
from zoo import errors

_RESULTS = (*information_files.NAMES, *information_figures.NAMES)
# (stage, done, all)
Progress = Callable[[str, int, int], None]


def run(
    config: information_config.InformationConfig,
    network: linearised_networks.Network,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Computes and writes what is missing.

    Args:
        config: what is asked.
        network: at w0.
        progress: hears of stages.
        overwrite: take the place of results of other settings.

    Returns:
        What unique_information.json holds, with "up_to_date": whether all was there.

    Raises:
        MismatchError: the folder holds results of other settings.
        InvalidValueError: settings do not go together, training diverges, or the memory is too small.
        DamagedFileError: a file of the folder is unsound.
    """
    folder = config.directory
    made_of = linearisation.made_of(network, config.linearisation)
    keeps_arrays = not array_store.differences(config.kernel_directory, made_of)
    information_config.adopt(folder, config.decisive(), _RESULTS, keeps_arrays=keeps_arrays, overwrite=overwrite)
    identity = {**config.decisive(), "made_of": made_of}
    found = information_files.read_results(folder, identity)
    if found is not None:
        return found | {"up_to_date": True}
    groups = _groups(config, network.train.ids)
    problem = linearisation.problem(
        network, config.linearisation, config.kernel_directory, config.memory_limit_mb, progress
    )
    results = _scored(config, network, problem, groups, identity, progress)
    if not config.keep_kernel:
        array_store.clear(config.kernel_directory)
        with contextlib.suppress(OSError):  # what is not ours may lie there too
            config.kernel_directory.rmdir()
    return results | {"up_to_date": False}


def _groups(config: information_config.InformationConfig, train_index: np.ndarray) -> tuple[tuple[int, ...], ...]:
    if config.groups is None:
        return ()
    order = np.sort(train_index)
    return left_out_groups.parse(config.groups, order, 0)


def _scored(
    config: information_config.InformationConfig,
    network: linearised_networks.Network,
    problem: linearised_problem.Problem,
    groups: tuple[tuple[int, ...], ...],
    identity: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    folder, sha256 = config.directory, information_config.digest(identity)
    main = scoring_config.main_columns(config.scoring, config.training.num_steps)
    labels = information_files.Labels(problem.train_index, network.train_label, network.clean_train_label)
    found = linearised_scores.compute(problem, config.training, config.scoring, progress=progress)
    of_groups = _of_groups(config, problem, groups, progress) if groups else None
    agreed = _agreement(config, problem)
    # From here on nothing is refused any more.
    information_config.replace(folder, config.decisive(), _RESULTS)
    written = information_files.write_scores(folder, sha256, labels, found)
    if "effects" in config.scoring.measures:
        written.append(information_files.write_effects(folder, sha256, labels, problem, network.val_label, found))
    if of_groups is not None:
        written.append(information_files.write_groups(folder, sha256, groups, of_groups, found))
    written += information_figures.write(folder, main, found, labels, network.train.inputs, config.num_shown)
    results = {
        "identity_sha256": sha256,
        "config": config.decisive(),
        "network": _described(config, network, problem),
        "times": found.facts,
        "columns": found.described,
        "main_columns": main,
        "ends": {name: _ends(found.columns[name], labels, config.num_shown) for name in main},
        "agreement": agreed,
        **file_digests.described(written),
    }
    information_files.write_results(folder, results)
    return results


def _of_groups(
    config: information_config.InformationConfig,
    problem: linearised_problem.Problem,
    groups: tuple[tuple[int, ...], ...],
    progress: Progress,
) -> linearised_scores.Scores:
    order = np.argsort(problem.train_index)
    places = [order[np.searchsorted(problem.train_index, group, sorter=order)] for group in groups]
    measures = tuple(name for name in config.scoring.measures if name not in ("accumulation", "effects"))
    scoring = dataclasses.replace(config.scoring, measures=measures or ("weights",))
    return linearised_scores.compute(problem, config.training, scoring, groups=places, progress=progress)


def _described(
    config: information_config.InformationConfig,
    network: linearised_networks.Network,
    problem: linearised_problem.Problem,
) -> dict[str, Any]:
    """What was linearised, and how."""
    stored = array_store.read(config.kernel_directory)
    return {
        "name": config.source.name,
        "num_train": problem.num_train,
        "num_val": len(problem.val_output),
        "num_outputs": problem.num_outputs,
        **stored.facts,
        "shape": list(stored.arrays[linearised_problem.TRAIN_NAME].shape),
        "kernel": information_config.KERNEL_NAME if config.keep_kernel else None,
    }


def _ends(values: np.ndarray, labels: information_files.Labels, count: int) -> dict[str, list[Any]]:
    """The highest and lowest of a column: training index, label, value."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known], kind="stable")]
    count = min(count, len(order))

    def listed(places: np.ndarray) -> list[Any]:
        return [
            [int(labels.train_index[i]), np.asarray(labels.train_label)[i].tolist(), float(values[i])] for i in places
        ]

    return {"highest": listed(order[:count]), "lowest": listed(order[::-1][:count])}


def _agreement(
    config: information_config.InformationConfig, problem: linearised_problem.Problem
) -> dict[str, Any] | None:
    """How far the linearised network is the one that was trained, where that is known."""
    source, settings = config.source, config.linearisation
    begins_there = settings.checkpoint == "first" or settings.start == "first"
    if source.folder is None or source.experiment is None or not begins_there or settings.head:
        return None
    full_run = leave_out_files.read_full_run(source.folder, source.experiment.sha256)
    if full_run is None or config.training != source.training():
        return None
    if not np.array_equal(full_run["train_index"], problem.train_index):
        raise errors.MismatchError(
            f"{source.folder}: full_run.npz is of other training examples than the experiment draws now; name the data "
            "set that it was begun with"
        )
    steps = full_run["record_steps"]
    # The beginning agrees by itself.
    kept = (steps > 0) & (steps < source.experiment.num_steps)
    parts = [
        np.concatenate([full_run[f"record_{name}_prediction"][kept], full_run[f"{name}_prediction"][None]])
        for name in ("train", "val")
    ]
    linearised = linearised_training.Linearised(
        problem, config.training, continuous=config.scoring.dynamics == "continuous"
    )
    times = [*map(int, steps[kept]), source.experiment.num_steps]
    return linearised_training.followed(linearised, times, *parts)

"""Kernel or features of a network, kept in a folder for all that is asked of them; imports TensorFlow."""

from collections.abc import Callable
import functools
import pathlib
import time
from typing import Any

import numpy as np

from estimators import ntk
from scripts.unique_information import (
    array_store,
    linearised_networks,
    linearised_problem,
    scoring_config,
    tangent_matrices,
)
from zoo import errors, files

# (stage, done, all)
Progress = Callable[[str, int, int], None]
_NUM_SAMPLE = 16
# Copies of [N, N] or [D, D] in float64: the matrix, its eigenvectors, and what decomposing takes.
_COPIES = 5


def made_of(network: linearised_networks.Network, config: scoring_config.LinearisationConfig) -> dict[str, Any]:
    """What decides kernel or features, as JSON."""
    # Which weights the name of the checkpoint stands for is said by their digest.
    settings = {name: value for name, value in config.to_json().items() if name != "checkpoint"}
    return {"linearisation": settings, **network.identity}


def problem(
    network: linearised_networks.Network,
    config: scoring_config.LinearisationConfig,
    folder: pathlib.Path,
    memory_limit_mb: float,
    progress: Progress,
) -> linearised_problem.Problem:
    """The linearised network as arrays, from the folder as far as they are there.

    Args:
        network: at w0.
        config: how it is linearised.
        folder: of the arrays.
        memory_limit_mb: of what is computed, and of what scores will take.
        progress: hears of the parts.

    Raises:
        InvalidValueError: it would take more than the memory limit.
        EstimatorError: the network cannot be differentiated.
        DiskSpaceError: the arrays would fill the disk.
        DamagedFileError: arrays that are there are not what was written.
    """
    of = made_of(network, config)
    is_there = array_store.is_complete(folder, of)
    if not is_there:
        form = chosen_form(network, config)
        check_memory(network, config, form, memory_limit_mb)
        _make(network, config, form, array_store.Draft(folder, of), memory_limit_mb, progress)
    return linearised_problem.read(folder, verify=is_there)


def chosen_form(network: linearised_networks.Network, config: scoring_config.LinearisationConfig) -> str:
    """Whichever of "dual" and "primal" has the smaller matrix, unless the settings name one."""
    if config.form != "auto":
        return config.form
    num_features = tangent_matrices.num_features(network.target, _projection(config))
    return "primal" if num_features < len(network.train) * network.num_outputs else "dual"


def check_memory(
    network: linearised_networks.Network,
    config: scoring_config.LinearisationConfig,
    form: str,
    memory_limit_mb: float,
) -> None:
    """Refuses what scores of it could not be computed of.

    Raises:
        InvalidValueError: it would take more than the limit.
    """
    num_train, num_val = (len(data) * network.num_outputs for data in (network.train, network.val))
    width = num_train if form == "dual" else tangent_matrices.num_features(network.target, _projection(config))
    needed = 8 * (_COPIES * width**2 + (len(network.train) + num_val) * width)
    if needed > memory_limit_mb * 1e6:
        what = "rows of the kernel" if form == "dual" else "features"
        raise errors.InvalidValueError(
            f"--memory_limit_mb={memory_limit_mb:g}: {width} {what} ({len(network.train)} training examples, "
            f"{network.num_outputs} outputs, {form} form) take {files.size_text(needed)}; raise the limit, take fewer "
            "examples, or features with --projection=sparse_signs --num_features=2000, or those of the last layer "
            "with --head"
        )


def _projection(config: scoring_config.LinearisationConfig) -> ntk.Projection | None:
    if config.projection == "none":
        return None
    return ntk.Projection(config.projection, config.num_features, config.projection_seed)


def _make(
    network: linearised_networks.Network,
    config: scoring_config.LinearisationConfig,
    form: str,
    draft: array_store.Draft,
    memory_limit_mb: float,
    progress: Progress,
) -> None:
    began = time.monotonic()
    facts: dict[str, Any] = {"form": form, "num_outputs": network.num_outputs, "accuracy": network.epsilon}
    facts |= {"num_parameters": network.target.num_parameters, "projection_error": None, "projection_sample": 0}
    projection = _projection(config)
    if form == "dual" and projection is None:
        _kernels(network, config, draft, memory_limit_mb, progress)
    else:
        _features(network, projection, form, draft, memory_limit_mb, progress)
    if projection is not None:
        facts["projection_error"], facts["projection_sample"] = tangent_matrices.projection_error(
            network.target, network.train, projection, _NUM_SAMPLE, memory_limit_mb / 2
        )
    for name, data in (("train", network.train), ("val", network.val)):
        draft.put(f"{name}_index", data.ids)
        draft.put(f"{name}_label", getattr(network, f"{name}_label"))
        draft.put(f"{name}_output", network.outputs(data))
        draft.put(f"{name}_target", np.asarray(data.labels, np.float64))
    draft.finish(facts | {"seconds": round(time.monotonic() - began, 3)})


def _kernels(
    network: linearised_networks.Network,
    config: scoring_config.LinearisationConfig,
    draft: array_store.Draft,
    memory_limit_mb: float,
    progress: Progress,
) -> None:
    dtype = None if config.kernel_dtype == "auto" else config.kernel_dtype
    tangent = tangent_matrices.kernel(network.target, network.train, dtype=dtype, memory_limit_mb=memory_limit_mb / 2)
    sides = ((linearised_problem.TRAIN_NAME, network.train, None), (linearised_problem.VAL_NAME, network.val, True))
    for name, first, is_cross in sides:
        second = network.train if is_cross else None
        tangent_matrices.fill(
            draft,
            name,
            tangent,
            "full",
            first,
            second,
            functools.partial(progress, f"kernel, {name}"),
        )


def _features(
    network: linearised_networks.Network,
    projection: ntk.Projection | None,
    form: str,
    draft: array_store.Draft,
    memory_limit_mb: float,
    progress: Progress,
) -> None:
    found = {}
    for name, data in ((linearised_problem.TRAIN_NAME, network.train), (linearised_problem.VAL_NAME, network.val)):
        found[name] = tangent_matrices.fill_features(
            draft,
            name if form == "primal" else f"{name}_features",
            network.target,
            data,
            projection,
            network.num_outputs,
            memory_limit_mb / 2,
            functools.partial(progress, f"features, {name}"),
        )
    if form == "dual":
        train = found[linearised_problem.TRAIN_NAME]
        for name, rows in found.items():
            draft.put(name, np.asarray(rows, np.float64) @ np.asarray(train, np.float64).T)

"""All of a computation of `compute_ntk` that is not there yet; imports TensorFlow."""

from collections.abc import Callable
import functools
import pathlib
import time
from typing import Any

import numpy as np

from estimators import examples, ntk
from estimators.linearized import spectra
from scripts.unique_information import (
    array_store,
    file_digests,
    information_config,
    kernel_config,
    kernel_figures,
    linearised_networks,
    linearised_problem,
    tangent_matrices,
)
from zoo import errors, files, npz

SCHEMA_VERSION = 1
RESULTS_NAME, SPECTRUM_NAME = "ntk.json", "spectrum.npz"
_RESULTS = (RESULTS_NAME, SPECTRUM_NAME, *kernel_figures.NAMES)
VALUES_NAME, FEATURES_NAME = "values", "features"
_NUM_SAMPLE = 16
# Copies of [N, N] in float64 that a decomposition takes.
_COPIES = 4
# (stage, done, all)
Progress = Callable[[str, int, int], None]


def run(
    config: kernel_config.KernelConfig,
    network: linearised_networks.Network,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Computes and writes what is missing.

    Args:
        config: what is asked.
        network: at its weights.
        progress: hears of stages.
        overwrite: take the place of results of other settings.

    Returns:
        What ntk.json holds, with "up_to_date": whether all was there.

    Raises:
        MismatchError: the folder holds results of other settings.
        InvalidValueError: places that are not there.
        EstimatorError: the network cannot be differentiated.
    """
    folder = config.directory
    of = {**config.decisive(), **network.identity}
    keeps_arrays = not array_store.differences(config.kernel_directory, of)
    information_config.adopt(folder, config.decisive(), _RESULTS, keeps_arrays=keeps_arrays, overwrite=overwrite)
    found = _finished(folder, config, of)
    if found is not None:
        return found | {"up_to_date": True}
    is_there = array_store.is_complete(config.kernel_directory, of)
    if not is_there:
        _make(config, network, of, progress)
    stored = array_store.read(config.kernel_directory, verify=is_there)
    information_config.replace(folder, config.decisive(), _RESULTS)
    results = _looked_at(config, stored, progress)
    files.write_json(folder / RESULTS_NAME, {"schema_version": SCHEMA_VERSION, **results})
    return results | {"up_to_date": False}


def _finished(folder: pathlib.Path, config: kernel_config.KernelConfig, of: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / RESULTS_NAME
    if not path.is_file() or not array_store.is_complete(config.kernel_directory, of):
        return None
    found = files.read_json(path)
    if found.get("schema_version") != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {found.get('schema_version')!r}, expected {SCHEMA_VERSION}; delete it and run the "
            "command again"
        )
    if found.get("identity_sha256") != information_config.digest(of) or not file_digests.are_there(path, found):
        return None
    array_store.read(config.kernel_directory, verify=True)
    return found


def _side(
    network: linearised_networks.Network, side: str, places: tuple[int, ...] | None, flag: str
) -> tuple[examples.Examples, np.ndarray]:
    """Examples of a side, and their labels."""
    data, labels = getattr(network, side), getattr(network, f"{side}_label")
    if places is None:
        return data, labels
    chosen = np.array(places)
    if chosen.max() >= len(data):
        raise errors.InvalidValueError(
            f"--{flag}: expected places among the {len(data)} {side} examples, from 0 to {len(data) - 1}, not "
            f"{chosen.max()}"
        )
    return data.take(chosen), np.asarray(labels)[chosen]


def _make(
    config: kernel_config.KernelConfig,
    network: linearised_networks.Network,
    of: dict[str, Any],
    progress: Progress,
) -> None:
    """Computes the arrays; what the folder holds of other settings goes when all that can be refused has been."""
    began = time.monotonic()
    rows, row_label = _side(network, config.rows, config.row_places, "row_ids")
    columns, column_label = rows, row_label
    if not config.is_square:
        columns, column_label = _side(network, config.columns or config.rows, config.column_places, "column_ids")
    facts: dict[str, Any] = {
        "kind": config.kind if config.projection == "none" else FEATURES_NAME,
        "num_rows": len(rows),
        "num_columns": len(columns),
        "num_outputs": network.num_outputs,
        "num_parameters": network.target.num_parameters,
        "accuracy": network.epsilon,
    }
    if config.projection == "none":
        tangent = _tangent(config, network, rows)
        draft = _begun(config, of)
        second = None if config.is_square else columns
        part = functools.partial(progress, "kernel")
        tangent_matrices.fill(draft, VALUES_NAME, tangent, config.kind, rows, second, part)
        facts |= {"contractions": tangent.describe(rows).splitlines()}
    else:
        draft = _begun(config, of)
        facts |= _features(config, network, draft, rows, functools.partial(progress, "features"))
    sides = [("row", rows, row_label)] + ([] if config.is_square else [("column", columns, column_label)])
    for name, data, label in sides:
        draft.put(f"{name}_index", data.ids)
        draft.put(f"{name}_label", label)
    draft.finish(facts | {"seconds": round(time.monotonic() - began, 3)})


def _tangent(
    config: kernel_config.KernelConfig, network: linearised_networks.Network, rows: examples.Examples
) -> ntk.TangentKernel:
    dtype = None if config.kernel_dtype == "auto" else config.kernel_dtype
    return tangent_matrices.kernel(network.target, rows, dtype=dtype, memory_limit_mb=config.memory_limit_mb)


def _begun(config: kernel_config.KernelConfig, of: dict[str, Any]) -> array_store.Draft:
    """The folder of the arrays; pictures and spectrum of other arrays go with these."""
    information_config.replace(config.directory, config.decisive(), _RESULTS)
    return array_store.Draft(config.kernel_directory, of)


def _features(
    config: kernel_config.KernelConfig,
    network: linearised_networks.Network,
    draft: array_store.Draft,
    rows: examples.Examples,
    progress: tangent_matrices.Progress,
) -> dict[str, Any]:
    projection = ntk.Projection(config.projection, config.num_features, config.projection_seed)
    limit = config.memory_limit_mb
    tangent_matrices.fill_features(
        draft, FEATURES_NAME, network.target, rows, projection, network.num_outputs, limit, progress
    )
    error, count = tangent_matrices.projection_error(network.target, rows, projection, _NUM_SAMPLE, limit)
    return {"projection_error": error, "projection_sample": count}


def _looked_at(config: kernel_config.KernelConfig, stored: array_store.Stored, progress: Progress) -> dict[str, Any]:
    """Pictures and the spectrum, and what ntk.json says."""
    progress("spectrum", 0, 1)
    written: list[pathlib.Path] = []
    spectrum = _spectrum(config, stored)
    if spectrum is not None:
        path = config.directory / SPECTRUM_NAME
        npz.write(path, {"eigenvalues": spectrum.eigenvalues[::-1]})
        written += [path, kernel_figures.write_spectrum(config.directory, spectrum, config.source.name)]
    if stored.facts["kind"] in ("full", "trace", "mean_trace"):
        written.append(kernel_figures.write_kernel(config.directory, stored, VALUES_NAME, config.source.name))
    progress("spectrum", 1, 1)
    name = VALUES_NAME if VALUES_NAME in stored.arrays else FEATURES_NAME
    array = stored.arrays[name]
    return {
        "identity_sha256": information_config.digest(stored.made_of),
        "config": config.decisive(),
        "network": config.source.name,
        **stored.facts,
        "array": f"{kernel_config.KERNEL_NAME}/{name}.npy",
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "spectrum": None if spectrum is None else _spectrum_facts(spectrum),
        **file_digests.described(written),
    }


def _spectrum(config: kernel_config.KernelConfig, stored: array_store.Stored) -> spectra.Spectrum | None:
    """Of a square kernel, or of what features give; None where there is none, or no memory for it."""
    if config.kind in kernel_config.BY_EXAMPLE or not config.is_square:
        return None
    array = stored.arrays.get(VALUES_NAME)
    size = len(array) if array is not None else min(stored.arrays[FEATURES_NAME].shape)
    if 8 * _COPIES * size**2 > config.memory_limit_mb * 1e6:
        return None
    if array is not None:
        return spectra.decompose(array, accuracy=stored.facts["accuracy"])
    features = stored.arrays[FEATURES_NAME]
    is_wide = features.shape[1] > features.shape[0]
    return spectra.decompose(linearised_problem.gram(features.T if is_wide else features))


def _spectrum_facts(spectrum: spectra.Spectrum) -> dict[str, Any]:
    return {
        "largest": spectrum.largest,
        "smallest": float(spectrum.eigenvalues[0]),
        "rank": spectrum.rank,
        "tolerance": spectrum.tolerance,
        "clipped": spectrum.clipped,
        "trace": float(spectrum.eigenvalues.sum()),
    }

"""Hands the linearisation of networks to a worker process, so that programs need no TensorFlow.

source = network_source.NetworkSource(experiment=config, folder=folder_or_none, data_dir=data_dir)
how = scoring_config.LinearisationConfig()
for message in linearisation_dispatch.linearise(source, how, kernel_folder, device="cpu"):
    ...                                                # {"progress": [stage, done, all]}
problem = linearised_problem.read(kernel_folder)       # then linearised_scores.compute(problem, ...)
"""

from collections.abc import Generator
import dataclasses
import os
from typing import Any

from heldout.running import dispatch, runners
from scripts.unique_information import information_config, kernel_config, network_source, scoring_config
from zoo import files

_WORKER = "scripts.unique_information.linearisation_worker"
MEMORY_LIMIT_MB = 4096.0


def linearise(
    source: network_source.NetworkSource,
    config: scoring_config.LinearisationConfig,
    folder: files.PathLike,
    *,
    device: str = "cpu",
    memory_limit_mb: float = MEMORY_LIMIT_MB,
) -> Generator[dispatch.Message, None, None]:
    """Computes kernel or features into a folder, as far as they are not there; `linearised_problem.read` reads them.

    Args:
        source: which network.
        config: how it is linearised.
        folder: of the arrays. What it holds of another network or linearisation is deleted.
        device: "cpu", "gpu" or "tpu".
        memory_limit_mb: of what is computed, and of what scores will take.

    Yields:
        {"progress": [stage, done, all]}, and at the end {"finished": ...}.

    Raises:
        HeldoutError: what the worker reports.
    """
    task = {
        "do": "linearise",
        "source": source.to_json(),
        "linearisation": dataclasses.asdict(config),
        "folder": os.path.abspath(folder),
        "memory_limit_mb": memory_limit_mb,
    }
    yield from _run(task, device)


def information(
    config: information_config.InformationConfig, device: str, *, overwrite: bool
) -> Generator[dispatch.Message, None, None]:
    """Computes the scores of `compute_unique_information`, as far as they are not there.

    Args:
        config: what is asked.
        device: "cpu", "gpu" or "tpu".
        overwrite: take the place of results of other settings.

    Yields:
        {"progress": [stage, done, all]}, and at the end {"finished": ...} of `information_run.run`.

    Raises:
        HeldoutError: what the worker reports.
    """
    yield from _run(_task("information", config, overwrite), device)


def kernel(
    config: kernel_config.KernelConfig, device: str, *, overwrite: bool
) -> Generator[dispatch.Message, None, None]:
    """Computes the kernel of `compute_ntk`, as far as it is not there; see `information`."""
    yield from _run(_task("kernel", config, overwrite), device)


def _task(
    do: str, config: information_config.InformationConfig | kernel_config.KernelConfig, overwrite: bool
) -> dict[str, Any]:
    stored = config.to_json()
    return {"do": do, "config": stored | {"outdir": os.path.abspath(stored["outdir"])}, "overwrite": overwrite}


def _run(task: dict[str, Any], device: str) -> Generator[dispatch.Message, None, None]:
    with runners.opened(runners.Runner(), device, 1) as opened:
        setup = {"device": device, "num_threads": opened.num_threads(1) if device == "cpu" else None}
        yield from opened.run_tasks(_WORKER, setup, [task], num_workers=1)

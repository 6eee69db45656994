"""Worker process that linearises networks, for `compute_unique_information`, `compute_ntk` and others."""

from collections.abc import Callable
import pathlib

import tensorflow as tf

from heldout import devices
from heldout.running import workers
from scripts.attribution import named_errors
from scripts.unique_information import (
    information_config,
    information_run,
    kernel_config,
    kernel_run,
    linearisation,
    linearised_networks,
    network_source,
    scoring_config,
)


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Prepares the device; returns the function that performs a task.

    Tasks are {"do": "information"} and {"do": "kernel"} with the config of a program and whether it may overwrite, and
    {"do": "linearise"} with a source, a linearisation and the folder for its arrays. Each is answered by
    {"progress": [stage, done, all]} on the way and {"finished": ...} at the end.
    """
    device = devices.configure(setup["device"], setup["num_threads"])
    # Small changes of weights would drown in it.
    tf.config.experimental.enable_tensor_float_32_execution(False)

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        def advance(stage: str, done: int, total: int) -> None:
            send({"progress": [stage, done, total]})

        with device, named_errors.translated():
            send({"finished": _PERFORMED[task["do"]](task, advance)})

    return perform, {}


def _information(task: workers.Message, advance: information_run.Progress) -> workers.Message:
    config = information_config.InformationConfig.from_json(task["config"])
    network = linearised_networks.load(config.source, config.linearisation)
    return information_run.run(config, network, advance, overwrite=task["overwrite"])


def _kernel(task: workers.Message, advance: information_run.Progress) -> workers.Message:
    config = kernel_config.KernelConfig.from_json(task["config"])
    network = linearised_networks.load(config.source, config.linearisation())
    return kernel_run.run(config, network, advance, overwrite=task["overwrite"])


def _linearise(task: workers.Message, advance: information_run.Progress) -> workers.Message:
    source = network_source.NetworkSource.from_json(task["source"])
    config = scoring_config.LinearisationConfig(**task["linearisation"])
    network = linearised_networks.load(source, config)
    found = linearisation.problem(network, config, pathlib.Path(task["folder"]), task["memory_limit_mb"], advance)
    return {"form": found.form, "num_train": found.num_train}


_PERFORMED = {"information": _information, "kernel": _kernel, "linearise": _linearise}


if __name__ == "__main__":
    workers.serve(start)

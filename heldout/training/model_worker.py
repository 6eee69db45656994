"""Worker process of `train_model` and `train_sweep`: trains networks of one setting at a time.

A task is {"task": its number, "settings": as stored, "networks": [{"seed": ..., "folder": ...}, ...]} and is answered
by {"progress": ...} after every epoch and {"results": [what each result.json holds]} at the end; both name task and
seed.
"""

from collections.abc import Callable
import dataclasses
import pathlib
import shutil
from typing import Any

import tensorflow as tf

from heldout import devices
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry
from heldout.running import workers
from heldout.training import model_data, model_files, model_settings, model_training
from zoo import errors


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Prepares the device; returns the function that trains the networks of one task."""
    device = devices.configure(setup["device"], setup["num_threads"])
    # A resumed training must give the same bits as an undisturbed one.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(
        0
    )  # for values that are overwritten before they are used: TensorFlow now refuses to draw without
    if setup.get("seen_by_all"):
        workers.check_shared(setup["seen_by_all"], "save_dir")
    options = model_training.Options(
        resume_minutes=setup["resume_minutes"],
        tensorboard=setup["tensorboard"],
        side_by_side=setup["side_by_side"],
        device=setup["device"],
        num_workers=setup["num_workers"],
    )
    loaded: dict[str, dataset_lib.Dataset] = {}

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        settings = model_settings.ModelSettings.from_json(task["settings"], "settings of the task")
        requests = [
            model_training.Request(dataclasses.replace(settings, seed=network["seed"]), pathlib.Path(network["folder"]))
            for network in task["networks"]
        ]
        with device:
            results = _train(
                settings,
                requests,
                options,
                loaded,
                setup,
                lambda told: send({"progress": told | {"task": task["task"]}}),
            )
        seeds = [network["seed"] for network in task["networks"]]
        own = [{"task": task["task"], "seed": seed} for seed in seeds]
        send({"results": [result | of for result, of in zip(results, own, strict=True)]})

    return perform, {}


def _train(
    settings: model_settings.ModelSettings,
    requests: list[model_training.Request],
    options: model_training.Options,
    loaded: dict[str, dataset_lib.Dataset],
    setup: workers.Message,
    report: model_training.Report,
) -> list[dict[str, Any]]:
    if settings.dataset not in loaded:
        loaded.clear()  # one at a time is what memory may hold
        loaded[settings.dataset] = registry.load(settings.dataset, setup["data_dir"])
    data = model_data.of_dataset(settings, loaded[settings.dataset])
    trainer = model_training.ModelTrainer(settings, data, options)
    if setup["overwrite"]:
        for request in requests:
            _delete(request.folder)
    return trainer.train(requests, report)


def _delete(folder: pathlib.Path) -> None:
    """Deletes a network; nothing else."""
    if folder.exists() and not model_files.is_model_run(folder) and any(folder.iterdir()):
        raise errors.InvalidValueError(
            f"--overwrite: {folder} is not the folder of a network; delete it by hand, or choose another --save_dir"
        )
    # The settings go last, so that a kill leaves what is still known as a network.
    for path in sorted(folder.glob("*"), key=lambda path: path.name == model_files.SETTINGS_NAME):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    workers.serve(start)

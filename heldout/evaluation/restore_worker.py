"""Worker process of `restore_check`: restores checkpoints into one model, again and again."""

from collections.abc import Callable

import tensorflow as tf

from heldout import devices
from heldout.datasets import registry as datasets
from heldout.models import registry as models
from heldout.running import workers
from zoo import checkpoints, errors


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Builds the model of a `restore_check.Blueprint`; a task names the prefix of one checkpoint."""
    device = devices.configure(setup["device"])
    with device:
        module = _build(setup["blueprint"])

    def restore(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        fault = None
        try:
            with device:
                checkpoints.restore(module, task["prefix"])
        except (errors.HeldoutError, OSError) as error:
            fault = errors.explain(error)
        send({"prefix": task["prefix"], "fault": fault})

    return restore, {}


def _build(plan: workers.Message) -> tf.Module:
    num_classes, image_shape = plan["num_classes"], plan["image_shape"]
    if plan["dataset"] is not None:
        data = datasets.load(plan["dataset"], plan["data_dir"])
        num_classes, image_shape = data.num_classes, data.image_shape
    dtype = tf.as_dtype(plan["dtype"])
    return models.build(plan["architecture"], num_classes, tuple(image_shape), plan["options"], dtype=dtype)


if __name__ == "__main__":
    workers.serve(start)

"""Worker process of `animate_unique_information`: the kernels of the network, and all frames; imports TensorFlow."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from estimators import ntk, targets
from estimators.linearized import descents
from heldout import devices
from heldout.datasets import registry
from heldout.running import workers
from heldout.training import leave_out_config, leave_out_data, leave_out_networks
from scripts.unique_information import synthetic_frames


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Prepares the device; returns the function that performs a task.

    The only task has a config, data_dir, steps, grid_size and the path of the frames; it is answered by
    {"written": path}.
    """
    device = devices.configure(setup["device"], setup["num_threads"])

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        config = leave_out_config.LeaveOutConfig.from_json(task["experiment"], "config of the task")
        with device:
            found = frames(config, task["data_dir"], task["steps"], task["grid_size"])
        synthetic_frames.write(task["path"], found)
        send({"written": task["path"]})

    return perform, {}


def frames(
    config: leave_out_config.LeaveOutConfig, data_dir: str | None, steps: list[int], grid_size: int
) -> synthetic_frames.Frames:
    """All that is drawn.

    Args:
        config: of the experiment.
        data_dir: of prepared data sets.
        steps: of the frames.
        grid_size: see `synthetic_config.AnimationConfig`.

    Raises:
        InvalidValueError: the data are no points, or the steps diverge.
    """
    data = leave_out_data.of_dataset(config, registry.load(config.dataset, data_dir))
    point = synthetic_frames.points(data)
    grid = synthetic_frames.grid_around(point, grid_size)
    # Points are few: float64 costs nothing, and late in training their kernel needs it.
    module = leave_out_networks.cast(leave_out_networks.initialised(config, data), config, data, "float64")
    target = targets.of(module, loss="squared_error")
    shape = data.image_shape
    inputs = {
        "train": data.train_inputs.astype(np.float64),
        "val": data.val_inputs.astype(np.float64),
        "grid": np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, *shape),
    }
    kernel = {name: ntk.ntk_full(target, one, inputs["train"], dtype="float64") for name, one in inputs.items()}
    kernel["train"] = (kernel["train"] + kernel["train"].T) / 2
    output = {name: np.asarray(target.predict(tf.constant(one)), np.float64) for name, one in inputs.items()}
    descent = descents.GradientDescent(config.learning_rate, config.l2)
    residuals = output["train"] - data.targets(data.train_label)
    scores, trained = synthetic_frames.compute(kernel["train"], residuals, kernel["val"], descent, steps)
    drawn = [trained.test_predictions(output["grid"], kernel["grid"], step) for step in steps]
    return synthetic_frames.Frames(
        step=np.array(steps, np.int64),
        train_index=data.train_index,
        point=point,
        train_label=data.train_label,
        clean_train_label=data.clean_train_label,
        grid=grid,
        grid_prediction=np.stack(drawn).reshape(len(steps), grid_size, grid_size),
        train_prediction=np.stack([trained.train_predictions(output["train"], step)[:, 0] for step in steps]),
        **scores,
    )


if __name__ == "__main__":
    workers.serve(start)

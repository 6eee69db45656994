"""Worker process of `ground_truth_effects`: the full network, or a block of networks without some examples.

A task is {"task": "full"} or {"task": a number, "groups": positions that each network is trained without}; it is
answered by {"progress": [steps done, all]} on the way and {"written": path} at the end, both with the task.
"""

from collections.abc import Callable

import tensorflow as tf

from heldout import devices
from heldout.datasets import registry
from heldout.running import workers
from heldout.training import leave_out_config, leave_out_data, leave_out_files, leave_out_training


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Prepares device, data and network; returns the function that performs one task."""
    device = devices.configure(setup["device"], setup["num_threads"])
    # A run that goes on must give the same bits as an undisturbed one; and TF32 would drown small changes of weights.
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    folder = setup["folder"]
    workers.check_shared(f"{folder}/{leave_out_config.CONFIG_NAME}", "outdir")
    config = leave_out_config.LeaveOutConfig.from_json(setup["config"], "config of the task")
    data = leave_out_data.of_dataset(config, registry.load(config.dataset, setup["data_dir"]))
    with device:
        trainer = leave_out_training.LeaveOutTrainer(
            config,
            data,
            runs_per_group=setup["runs_per_group"],
            device=setup["device"],
            num_workers=setup["num_workers"],
        )

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        def report(done: int) -> None:
            send({"progress": [done, config.num_steps], "task": task["task"]})

        with device:
            if task["task"] == "full":
                trainer.train_full(folder, report)
                path = f"{folder}/{leave_out_files.FULL_RUN_NAME}"
            else:
                path = str(trainer.train_block(folder, [tuple(group) for group in task["groups"]], report))
        send({"written": path, "task": task["task"]})

    return perform, {}


if __name__ == "__main__":
    workers.serve(start)

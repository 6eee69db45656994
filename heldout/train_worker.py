"""Worker process of `train_runs`: trains groups of runs as heldout/zoo_training.py hands them out."""

from collections.abc import Callable

from heldout import devices, recipes, run_training, workers
from heldout.datasets import dataset as dataset_lib
from zoo import layout


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Builds the trainer of this process; returns the function that trains one group, and the bytes a run will take."""
    device = devices.configure(setup["device"], setup["num_threads"])
    recipe = recipes.Recipe.from_json(setup["recipe"], "recipe of the training")
    with device:
        trainer = run_training.RunTrainer(recipe, dataset_lib.Dataset.open(setup["dataset"]))
    largest_group = trainer.largest_group(setup["runs_per_group"])

    def train(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        runs = [layout.Run(setup["zoo"], recipe.experiment, task["subset_ratio"], i) for i in task["run_ids"]]
        for first in range(0, len(runs), largest_group):
            group = runs[first : first + largest_group]
            with device:
                results = trainer.train_group(group, lambda _, losses: send({"run_epochs": len(losses)}))
            for result in results:
                send({"result": result.to_json()})

    return train, {"bytes_per_run": trainer.bytes_per_run()}


if __name__ == "__main__":
    workers.serve(start)

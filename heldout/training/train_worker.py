"""Worker process of `train_runs`: trains groups of runs as zoo_training.py hands them out.

Whatever follows from a run's name may be done twice, by two workers or two programs at once, without harm: files appear
whole and are the same whoever writes them. A run that has become complete meanwhile is not trained again.
"""

from collections.abc import Callable
import os
import pathlib
import shutil
import socket
import tempfile

import numpy as np
import tensorflow as tf

from heldout import devices
from heldout.datasets import registry as datasets
from heldout.experiments import recipes, subset_rankings
from heldout.running import workers
from heldout.training import replicas, run_training
from zoo import errors, files, layout, stores

Send = Callable[[workers.Message], None]


class MemoryLackError(errors.HeldoutError, MemoryError):
    """There is too little memory to train a single run."""


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Builds the trainer of this process; returns the function that trains one group, and the bytes a run will take."""
    device = devices.configure(setup["device"], setup["num_threads"], setup["num_replicas"] or 1)
    recipe = recipes.Recipe.from_json(setup["recipe"], "recipe of the training")
    store, zoo, ranking = None, setup["zoo"], None
    if setup["store"] is None:
        workers.check_shared(layout.recipe_path(zoo, recipe.experiment))
        if recipe.ranking_sha256 is not None:
            ranking = subset_rankings.read(layout.ranking_path(zoo, recipe.experiment), recipe.ranking_sha256)
    else:
        # In the temporary folder that this process was given, which its parent deletes.
        store, zoo = stores.Store(setup["store"]), tempfile.mkdtemp(prefix="heldout-runs-")
    with device:
        data = datasets.open_saved(setup["dataset"])
        strategy = replicas.make_strategy(setup["strategy"], setup["device"])
        trainer = run_training.RunTrainer(
            recipe, data, margins=setup["margins"], strategy=strategy, device=setup["device"], ranking=ranking
        )
    largest = trainer.largest_group(setup["runs_per_group"], setup["num_workers"])
    if (setup["runs_per_group"] or 1) > largest:
        raise errors.InvalidValueError(
            f"--runs_per_group={setup['runs_per_group']}: architecture {recipe.architecture} has no batched form and "
            "trains one run at a time; leave the flag out"
        )
    groups = Groups(trainer, largest, zoo, recipe, store)

    def train(task: workers.Message, send: Send) -> None:
        runs = [layout.Run(pathlib.Path(zoo), recipe.experiment, task["subset_ratio"], i) for i in task["run_ids"]]
        with device:
            groups.train(runs, send)

    return train, {"bytes_per_run": trainer.bytes_per_run()}


class Groups:
    """Trains runs in groups.

    Args:
        trainer: of the recipe.
        largest: runs in a group.
        zoo: folder of the runs.
        recipe: of the trainer.
        store: where finished runs go; None where they stay in their folders.
    """

    def __init__(
        self,
        trainer: run_training.RunTrainer,
        largest: int,
        zoo: str,
        recipe: recipes.Recipe,
        store: stores.Store | None = None,
    ) -> None:
        self._trainer = trainer
        self._largest = largest
        self._zoo = zoo
        self._recipe = recipe
        self._store = store

    def train(self, runs: list[layout.Run], send: Send) -> None:
        """Trains what is not complete and sends a "result" for each run, or "appeared" with its id.

        Raises:
            MismatchError: the experiment has another recipe by now; nothing is written of the runs that are left.
            MemoryLackError: memory does not suffice for one run.
            MemoryError: it does not for several; a new process can train fewer, where this one has no way of giving
                back all that it took.
        """
        for first in range(0, len(runs), self._largest):
            group = runs[first : first + self._largest]
            missing = [run for run in group if not self._is_complete(run)]
            for run in group:
                if run not in missing:
                    send({"appeared": run.run_id})
            if missing:
                self._train_group(missing, send)

    def _is_complete(self, run: layout.Run) -> bool:
        if self._store is not None:
            return self._store.has(stores.object_name(run, run.aux_arrays_path))
        return run.aux_arrays_path.exists()

    def _check_recipe(self) -> None:
        """As `recipes.check_kept`, also for a recipe in a store."""
        shown = None
        if self._store is not None:
            name = f"{self._recipe.experiment}/{layout.RECIPE_NAME}"
            shown = f"{self._store.address}/{name}"
            self._store.fetch(name, layout.recipe_path(self._zoo, self._recipe.experiment))
        recipes.check_kept(self._zoo, self._recipe, shown)

    def _train_group(self, group: list[layout.Run], send: Send) -> None:
        def ended(epoch: int, losses: np.ndarray) -> None:
            if epoch == self._recipe.training.num_epochs - 1:
                self._check_recipe()  # the files are written next
            send({"run_epochs": len(losses)})

        self._check_recipe()
        send({"began": _place() | {"subset_ratio": group[0].subset_ratio, "run_ids": [run.run_id for run in group]}})
        try:
            results = self._trainer.train_group(group, ended, batched=self._largest > 1)
        except Exception as error:
            if not _is_lack_of_memory(error):
                raise
            if len(group) > 1:
                raise MemoryError(f"a group of {files.count_text(len(group), 'run')}: {_first_line(error)}") from error
            raise MemoryLackError(
                f"{group[0].directory}: memory does not suffice to train a single run ({_first_line(error)}); use a "
                "smaller --batch_size, fewer --workers, or a machine with more"
            ) from error
        for result in results:
            if self._store is not None and result.failure is None:
                stores.put_run(self._store, result.run)
                shutil.rmtree(result.run.directory)
            send({"result": result.to_json()})


def _place() -> workers.Message:
    """Where this is, for those who watch."""
    return {"host": socket.gethostname(), "process": os.getpid()}


def _is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one behind it, is that of an allocation. TensorFlow says the same of a full disk."""
    while error is not None and not isinstance(error, OSError):
        if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
            return True
        error = error.__cause__
    return False


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:300] or type(error).__name__


if __name__ == "__main__":
    workers.serve(start)

"""Trains a zoo that lies in a store, such as gs://bucket/zoo, as zoo_training.py trains one in a folder.

A temporary folder stands for the zoo while the program works: what is small is fetched into it (recipe, run table,
records that the table does not know yet), and what changed is put back. Checkpoints are never fetched. Workers train in
folders of their own and put whole runs into the store, the record last.
"""

import dataclasses
import pathlib

from heldout.experiments import recipes
from heldout.running import scratch
from heldout.training import run_results, train_runs_config, zoo_training
from zoo import errors, files, layout, run_table, stores

# In the order in which they are put: the table last, which is made of all else.
_SMALL_FILES = (layout.RECIPE_NAME, layout.LABELS_NAME, layout.FAILURES_NAME, layout.RUN_TABLE_NAME)


def train_runs(
    config: train_runs_config.TrainRunsConfig, progress: zoo_training.Progress
) -> zoo_training.TrainRunsSummary:
    """Trains what is missing in a store.

    Args:
        config: its zoo is an address.
        progress: hears of the training.

    Raises:
        InvalidValueError: damaged runs are to be trained anew, which must be deleted from a store by hand.
        NetworkError: the store cannot be read or written.
        MismatchError: as `Mirror.push`.
        As `zoo_training.train_runs`.
    """
    if config.redo_damaged:
        raise errors.InvalidValueError(
            f"--redo_damaged: nothing is deleted from {config.zoo}; delete the damaged runs there and leave it out"
        )
    store = stores.Store(config.zoo)
    with scratch.folder() as folder:
        mirror = Mirror(store, folder, config.experiment_name)
        mirror.pull()
        local = dataclasses.replace(config, zoo=folder, store=store.address)
        try:
            return zoo_training.train_runs(local, _Putting(progress, mirror))
        finally:
            mirror.push()


class Mirror:
    """What a temporary folder has of an experiment in a store.

    Args:
        store: the zoo.
        folder: stands for it.
        experiment: name of the experiment.
    """

    def __init__(self, store: stores.Store, folder: str, experiment: str) -> None:
        self._store = store
        self._folder = pathlib.Path(folder)
        self._experiment = experiment
        self._known: dict[str, str] = {}

    def pull(self) -> None:
        """Fetches the small files, once, and the records that no run table or earlier call knows."""
        sizes = self._store.sizes(self._experiment)
        for name in _SMALL_FILES:
            path = self._folder / self._experiment / name
            if f"{self._experiment}/{name}" in sizes and not path.exists():
                self._store.fetch(f"{self._experiment}/{name}", path)
                self._known[name] = files.sha256_of_file(path)
        packed = self._packed()
        for run in stores.recorded_runs(self._folder, self._experiment, sizes):
            if (run.subset_ratio, run.run_id) not in packed and not run.aux_arrays_path.exists():
                self._store.fetch(stores.object_name(run, run.aux_arrays_path), run.aux_arrays_path)

    def _packed(self) -> set[tuple[float, int]]:
        path = layout.run_table_path(self._folder, self._experiment)
        if not path.exists():
            return set()
        table = run_table.read(path)
        return set(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))

    def push(self) -> None:
        """Puts the small files that have changed.

        Raises:
            MismatchError: another program has put another recipe since `pull`; nothing is put.
        """
        self._check_recipe()
        for name in _SMALL_FILES:
            path = self._folder / self._experiment / name
            if not path.exists() or self._known.get(name) == files.sha256_of_file(path):
                continue
            if name == layout.FAILURES_NAME:
                self._add_failures_of_others(path)
            self._store.put(path, f"{self._experiment}/{name}")
            self._known[name] = files.sha256_of_file(path)

    def _check_recipe(self) -> None:
        """The recipe may take the place of the one that was fetched, and of no other."""
        name = f"{self._experiment}/{layout.RECIPE_NAME}"
        ours = recipes.read(self._folder, self._experiment) if self._store.has(name) else None
        if ours is None:
            return
        with scratch.folder() as folder:
            path = layout.recipe_path(folder, self._experiment)
            self._store.fetch(name, path)
            if files.sha256_of_file(path) != self._known.get(layout.RECIPE_NAME):
                recipes.check_kept(folder, ours, f"{self._store.address}/{name}")

    def _add_failures_of_others(self, path: pathlib.Path) -> None:
        """Puts the lines that other programs have put meanwhile before those that only we have."""
        name = f"{self._experiment}/{layout.FAILURES_NAME}"
        if not self._store.has(name):
            return
        ours = path.read_bytes().split(b"\n")
        self._store.fetch(name, path)
        lines = dict.fromkeys(line for line in path.read_bytes().split(b"\n") + ours if line)
        with files.write_whole(path) as whole:
            whole.write_bytes(b"".join(line + b"\n" for line in lines))


class _Putting(zoo_training.Progress):
    """Passes everything on; puts the recipe before the first run, and fetches records when the workers are done."""

    def __init__(self, progress: zoo_training.Progress, mirror: Mirror) -> None:
        self._progress = progress
        self._mirror = mirror

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Puts what the first run must not be without."""
        self._mirror.push()
        self._progress.starting(num_pending, num_skipped, num_epochs)

    def began(self, subset_ratio: float, run_ids: list[int], host: str, process: int) -> None:
        """Passed on."""
        self._progress.began(subset_ratio, run_ids, host, process)

    def appeared(self) -> None:
        """Passed on."""
        self._progress.appeared()

    def run_epochs(self, count: int) -> None:
        """Passed on."""
        self._progress.run_epochs(count)

    def result(self, result: run_results.RunResult) -> None:
        """Passed on."""
        self._progress.result(result)

    def note(self, text: str) -> None:
        """Passed on."""
        self._progress.note(text)

    def ended(self) -> None:
        """Fetches the records of what was trained."""
        self._mirror.pull()
        self._progress.ended()

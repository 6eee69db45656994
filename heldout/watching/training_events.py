"""Scalars of a training for TensorBoard, in `<zoo>/<experiment>/tensorboard`."""

from types import TracebackType
from typing import Self

from heldout.training import run_results, train_runs_config, zoo_training
from heldout.watching import event_files, training_rate
from zoo import layout


class TrainingEvents(zoo_training.Progress):
    """Writes what becomes of every run, those of each ratio in a folder of its own. To be used as a context.

    The steps count complete runs, those of earlier calls included, so that a training that continues continues its
    curves. For a run there are `loss`, `accuracy/in`, `accuracy/held_out` and `accuracy/test`, in the folder of its
    ratio; for the training `runs/done`, `runs/failed` (of this call) and `runs/per_hour`, in the folder above.

    Args:
        config: of the training.
    """

    def __init__(self, config: train_runs_config.TrainRunsConfig) -> None:
        self._folder = layout.tensorboard_directory(config.zoo, config.experiment_name)
        self._of_training = event_files.EventWriter(self._folder)
        self._of_ratios: dict[float, event_files.EventWriter] = {}
        self._rate = training_rate.Rate(config.training.num_epochs)
        self._num_done = 0
        self._num_failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for writer in (self._of_training, *self._of_ratios.values()):
            writer.close()

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Begins to count where the last call ended."""
        self._num_done = num_skipped

    def appeared(self) -> None:
        """Counts a run."""
        self._num_done += 1

    def run_epochs(self, count: int) -> None:
        """Counts towards the rate."""
        self._rate.run_epochs(count)

    def result(self, result: run_results.RunResult) -> None:
        """Writes the scalars of a run, and of the training so far."""
        if result.failure is None:
            self._num_done += 1
            self._write_run(result)
        else:
            self._num_failed += 1
        scalars: dict[str, float] = {"runs/done": self._num_done, "runs/failed": self._num_failed}
        runs_per_hour = self._rate.runs_per_hour()
        if runs_per_hour is not None:
            scalars["runs/per_hour"] = runs_per_hour
        self._of_training.write(self._num_done, scalars)

    def _write_run(self, result: run_results.RunResult) -> None:
        ratio = result.run.subset_ratio
        if ratio not in self._of_ratios:
            self._of_ratios[ratio] = event_files.EventWriter(self._folder / layout.ratio_name(ratio))
        scalars = {
            "loss": result.loss,
            "accuracy/in": result.accuracy_in,
            "accuracy/held_out": result.accuracy_heldout,
            "accuracy/test": result.accuracy_test,
        }
        self._of_ratios[ratio].write(self._num_done, scalars)

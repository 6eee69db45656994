"""Trains single networks, or several that differ in their seed only side by side, and keeps what their folders hold.

The loop is that of training_loop.py. After an epoch a network may be evaluated, get a checkpoint, end early, or save
what it goes on from after a kill. Files appear whole and in this order: settings, checkpoints and history, result. A
training that was killed and goes on gives the same files to the last bit as one that was not, on the same kind of
machine with as many threads; side by side with others a network gives the same up to rounding.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib
import shutil
import time
from typing import Any

import numpy as np
import tensorflow as tf

from heldout import subsets
from heldout.evaluation import judging
from heldout.training import (
    batches,
    ensemble,
    ensemble_rules,
    group_size,
    learners,
    model_data,
    model_evaluation,
    model_files,
    model_runs,
    model_settings,
    model_state,
    schedules,
    training_loop,
)
from zoo import checkpoints, errors, files

# Called after every epoch with what there is to tell of it.
Report = Callable[[dict[str, Any]], None]

_REPAIR = "a smaller --learning_rate may help"
_COLUMNS = model_files.HISTORY_COLUMNS


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not decide a network.

    Attributes:
        resume_minutes: least time between two savings of what a killed training goes on from; 0 for every epoch.
        tensorboard: whether to write event files.
        side_by_side: most networks to train as one batched computation; None for what their size, the device and its
            memory suggest; 1 for one after the other.
        device: "cpu", "gpu" or "tpu".
        num_workers: processes that share the memory.
    """

    resume_minutes: float = 1.0
    tensorboard: bool = False
    side_by_side: int | None = 1
    device: str = "cpu"
    num_workers: int = 1


@dataclasses.dataclass(frozen=True)
class Request:
    """A network to train.

    Attributes:
        settings: with or without a fingerprint.
        folder: where its files go.
    """

    settings: model_settings.ModelSettings
    folder: pathlib.Path


def name_of(seed: int) -> tuple[str, float, int]:
    """What all draws of a network follow from (heldout/subsets.py); the ratio means nothing."""
    return ("train_model", 0.5, seed)


def initial_values(
    settings: model_settings.ModelSettings, num_classes: int, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """The variables before the first step, by checkpoint key: the architecture's own initialisers under the seed."""
    tf.random.set_seed(subsets.seed(name_of(settings.seed), "initialisation") % (1 << 31))
    return learners.read_values(model_runs.build(settings, num_classes, image_shape))


class ModelTrainer:
    """Trains networks of one setting.

    Args:
        settings: of all of them; their seed does not count.
        data: theirs.
        options: what does not decide them.

    Raises:
        InvalidValueError: the architecture cannot be built for these data.
    """

    def __init__(
        self, settings: model_settings.ModelSettings, data: model_data.ModelData, options: Options | None = None
    ) -> None:
        self._settings, self._data, self._options = settings, data, options or Options()
        self._module = model_runs.build(settings, data.num_classes, data.image_shape)
        self._evaluator = model_evaluation.Evaluator(self._module, data, settings.training.dtype)
        self._supports = ensemble_rules.supports(self._module)
        config = settings.training
        batch_size = min(config.batch_size, len(data.train))
        self._cost = group_size.step_cost(self._module, data.image_shape, batch_size, config.dtype)
        self._batched = self._largest_group() > 1 or config.mixed_precision != "none"
        if self._batched and not self._supports:
            raise errors.InvalidValueError(
                f"--model={settings.architecture}: has no batched form, which --mixed_precision needs; leave it out"
            )

    def train(self, requests: Sequence[Request], report: Report) -> list[dict[str, Any]]:
        """Trains what is not done yet.

        Args:
            requests: networks of the setting with different seeds.
            report: hears of every epoch.

        Returns:
            What each result.json holds.

        Raises:
            MismatchError: a folder holds other settings.
            DamagedFileError: a file to go on from is unsound.
        """
        pending: dict[int, list[_Training]] = {}
        for request in requests:
            training = _Training(request, self._data, self._module, self._evaluator, self._options)
            if not training.is_done:
                pending.setdefault(training.start(self._initial_values(request)), []).append(training)
        for epoch, trainings in pending.items():
            size = self._largest_group() or 1
            for first in range(0, len(trainings), size):
                self._train_group(trainings[first : first + size], epoch, report)
        return [model_files.read_result(request.folder) or {} for request in requests]

    def _initial_values(self, request: Request) -> dict[str, np.ndarray]:
        return initial_values(request.settings, self._data.num_classes, self._data.image_shape)

    def _largest_group(self) -> int:
        options, config = self._options, self._settings.training
        if not self._supports or options.side_by_side == 1:
            return 1
        if options.side_by_side is not None:
            return options.side_by_side
        if config.mixed_precision != "none":
            return 1
        free = group_size.free_memory(options.device, options.num_workers)
        return group_size.choose(self._cost, options.device, free)

    def _train_group(self, trainings: list["_Training"], epoch: int, report: Report) -> None:
        learner, loop = self._loop(len(trainings))
        draws = [batches.RunDraw(name_of(training.seed), np.arange(len(self._data.train))) for training in trainings]

        def on_epoch(index: int, losses: np.ndarray) -> bool:
            for position, training in enumerate(trainings):
                if training.is_done:
                    continue
                copy = functools.partial(learner.copy_to, position, self._module)
                training.after_epoch(index + 1, float(losses[position]), copy)
                if training.is_due():
                    copy()
                    training.save_state(index + 1, _of_run(loop.rule_state(), position, self._batched))
            report(
                {
                    "epoch": index + 1,
                    "num_epochs": self._settings.training.num_epochs,
                    "networks": [training.report() for training in trainings],
                }
            )
            return all(training.is_done for training in trainings)

        values = [training.first_values for training in trainings]
        rules = [training.first_rule for training in trainings]
        loop.train(draws, values, on_epoch, num_done=epoch, rule_state=_joined(rules, self._batched))

    def _loop(self, num_runs: int) -> tuple[learners.Learner, training_loop.Loop]:
        config, data = self._settings.training, self._data
        learner: learners.Learner
        if self._batched:
            mixed = config.mixed_precision
            dtype = None if mixed == "none" else tf.as_dtype(mixed)
            learner = ensemble.EnsembleLearner(self._module, num_runs, dtype)
        else:
            learner = learners.SingleLearner(model_runs.build(self._settings, data.num_classes, data.image_shape))
        loop = training_loop.Trainer(
            learner,
            data.train.images,
            data.train.label,
            judging.normaliser(data.dataset, config.dtype),
            config,
            jit_compile=self._supports and group_size.xla_wins(self._cost, self._options.device),
        )
        return learner, loop


class _Training:
    """One network on its way: what its folder holds so far."""

    def __init__(
        self,
        request: Request,
        data: model_data.ModelData,
        module: tf.Module,
        evaluator: model_evaluation.Evaluator,
        options: Options,
    ) -> None:
        self._settings = dataclasses.replace(request.settings, fingerprint=data.fingerprint())
        self._folder, self._module, self._evaluator, self._options = request.folder, module, evaluator, options
        self._steps = batches.steps_per_epoch(self._settings.training, len(data.train))
        self._rows: list[np.ndarray] = []
        self._saved = time.monotonic()
        self._events: Any = None
        self.seed = self._settings.seed
        model_files.adopt_settings(self._folder, self._settings)
        self.is_done = model_files.read_result(self._folder) is not None
        if self.is_done:
            model_state.delete(self._folder)  # a kill may have come before it was

    def start(self, values: learners.ModelValues) -> int:
        """Takes up the training where it was left, or begins it; the epochs that are done."""
        for folder in (self._folder, self._folder / model_files.CHECKPOINTS_NAME):
            files.remove_stale_temporaries(folder)
        state = model_state.read(self._folder)
        if state is None:
            self.first_values, self.first_rule = values, []
            self._begin_events()
            learners.assign(self._module, values)
            if 0 in self._settings.checkpoint_epochs:
                self._write_checkpoint(0)
            self._evaluate(0, float("nan"))
            return 0
        model_state.check(self._folder, state, values)
        self.first_values, self.first_rule = state.values, list(state.rule)
        self._rows = list(state.history)
        self._begin_events()
        return state.epoch

    def after_epoch(self, epoch: int, loss: float, copy: Callable[[], None]) -> None:
        """Evaluates, keeps a checkpoint, and ends the training, where it is time to.

        Args:
            epoch: epochs done.
            loss: mean training loss of the last one, in nats.
            copy: brings the weights into the module.
        """
        config = self._settings.training
        if not np.isfinite(loss):
            self._add_row(epoch, loss, {})
            self._finish(model_files.DIVERGED, f"the training loss is {loss} in epoch {epoch}: {_REPAIR}")
            return
        low = config.stop_loss > 0 and loss <= config.stop_loss
        if not low and not self._settings.is_evaluated(epoch):
            return
        copy()
        measured = self._evaluate(epoch, loss)
        if not np.isfinite(measured["train_loss"]):
            self._finish(model_files.DIVERGED, f"some logits are not finite after epoch {epoch}: {_REPAIR}")
            return
        accuracy = 1 - measured["train_error"]
        high = 0 < config.stop_accuracy <= accuracy
        is_last = epoch == config.num_epochs
        if low or high or is_last or epoch in self._settings.checkpoint_epochs:
            self._write_checkpoint(epoch)
        if low or high:
            what = f"the training loss is {loss:.6g}" if low else f"the training accuracy is {accuracy:.6g}"
            self._finish(model_files.STOPPED, f"{what} after epoch {epoch}")
        elif is_last:
            self._finish(model_files.FINISHED, f"{files.count_text(epoch, 'epoch')} done")

    def is_due(self) -> bool:
        """Whether the state is to be saved now."""
        return not self.is_done and time.monotonic() - self._saved >= 60 * self._options.resume_minutes

    def save_state(self, epoch: int, rule: Sequence[np.ndarray]) -> None:
        """Saves what the training goes on from; the weights are in the module."""
        values = learners.read_values(self._module)
        model_state.write(self._folder, model_state.State(epoch, values, rule, np.stack(self._rows)))
        self._saved = time.monotonic()

    def report(self) -> dict[str, Any]:
        """The last evaluation, for people."""
        row = dict(zip(_COLUMNS, self._rows[-1].tolist(), strict=True))
        members = {name: value if np.isfinite(value) else None for name, value in row.items()}
        return members | {"epoch": int(row["epoch"]), "seed": self.seed, "done": self.is_done}

    def _evaluate(self, epoch: int, loss: float) -> dict[str, float]:
        measured = self._evaluator.measure()
        self._add_row(epoch, loss, measured)
        return measured

    def _add_row(self, epoch: int, loss: float, measured: dict[str, float]) -> None:
        rate = float("nan")
        if epoch:
            rate = float(schedules.learning_rates(self._settings.training, self._steps, epoch - 1)[-1])
        values = {"epoch": epoch, "step": epoch * self._steps, "learning_rate": rate, "running_loss": loss} | measured
        self._rows.append(np.array([values.get(name, float("nan")) for name in _COLUMNS]))
        model_files.write_history(self._folder, np.stack(self._rows))
        self._write_events(self._rows[-1])

    def _write_checkpoint(self, epoch: int) -> None:
        prefix = model_files.checkpoint_prefix(self._folder, epoch)
        checkpoints.write(self._module, prefix, epoch, epoch * self._steps)

    def _finish(self, outcome: str, reason: str) -> None:
        result = model_files.result_of(outcome, reason, self._rows[-1])
        files.write_json(self._folder / model_files.RESULT_NAME, result)
        model_state.delete(self._folder)
        if self._events is not None:
            self._events.close()
        self.is_done = True

    def _begin_events(self) -> None:
        """All rows so far are written again, so that those that an interrupted training wrote do not come twice."""
        if not self._options.tensorboard:
            return
        folder = self._folder / model_files.TENSORBOARD_NAME
        shutil.rmtree(folder, ignore_errors=True)
        self._events = tf.summary.create_file_writer(str(folder))
        for row in self._rows:
            self._write_events(row)

    def _write_events(self, row: np.ndarray) -> None:
        if self._events is None:
            return
        values = dict(zip(_COLUMNS, row.tolist(), strict=True))
        with self._events.as_default(step=int(values["epoch"])):
            for name, value in values.items():
                if name not in ("epoch", "step") and np.isfinite(value):
                    tf.summary.scalar(name.replace("_", "/", 1) if name != "learning_rate" else name, value)
        self._events.flush()


def _of_run(state: Sequence[np.ndarray], position: int, batched: bool) -> list[np.ndarray]:
    """The part of one network of the state of an update rule; a count of steps is that of all."""
    return [array[position] if batched and array.ndim else array for array in state]


def _joined(states: Sequence[Sequence[np.ndarray]], batched: bool) -> list[np.ndarray]:
    """The inverse of `_of_run`."""
    if not batched:
        return list(states[0])
    return [parts[0] if parts[0].ndim == 0 else np.stack(parts) for parts in zip(*states, strict=True)]

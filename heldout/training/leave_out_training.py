"""Networks trained with and without some training examples, many of them as one batched computation.

All networks begin with the same weights and see the same inputs; what each is trained on is said by weights of the
examples in its loss, [R, n]: 1 / (n - g) for those that are left, 0 for the g that are left out. So a network is
exactly that of gradient descent on the mean loss of what is left (convention `mean`), up to rounding:

    w_r <- w_r - lr (sum_i weight[r, i] (f(x_i; w_r) - y_i) df(x_i; w_r)/dw + l2 (w_r - w0))

The network is a function of its weights and one input: batch normalisation uses stored averages, as in evaluation.

Where one step of one network would take much memory, its gradient is summed over parts of the examples. How large they
are follows from the network alone, so that a run that goes on elsewhere rounds as it did before.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow as tf

from heldout.training import (
    ensemble,
    ensemble_rules,
    group_size,
    learners,
    leave_out_config,
    leave_out_data,
    leave_out_files,
    leave_out_networks,
)
from zoo import checkpoints, errors, files

# Between two words about how far a training is.
_STEPS_A_CALL = 20
_EXAMPLES_A_CALL = 512
# What the gradient of one part of the examples may take.
_PART_BYTES = 4 << 30
# Called with the number of steps done.
Report = Callable[[int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Trained:
    """R networks after their training: predictions float [R, n, k] and [R, m, k]."""

    train_prediction: np.ndarray
    val_prediction: np.ndarray


class LeaveOutTrainer:
    """Trains the networks of one experiment.

    Args:
        config: of it.
        data: its data.
        runs_per_group: networks to train as one computation; None for what the size of the network, the device and
            its memory suggest. 1 for one after the other, as where an architecture has no batched form.
        device: "cpu", "gpu" or "tpu".
        num_workers: processes that share the memory.

    Raises:
        InvalidValueError: the architecture cannot be built, or has batch normalisation and no checkpoint to begin with.
        MissingFileError, DamagedFileError, MismatchError: as `zoo.checkpoints.restore`, of that checkpoint.
    """

    def __init__(
        self,
        config: leave_out_config.LeaveOutConfig,
        data: leave_out_data.LeaveOutData,
        *,
        runs_per_group: int | None = None,
        device: str = "cpu",
        num_workers: int = 1,
    ) -> None:
        self._config, self._data = config, data
        self._module = leave_out_networks.initialised(config, data)
        self._initial = learners.read_values(self._module)
        self._targets = data.targets(data.train_label)
        self.runs_per_group = self._members(runs_per_group, device, num_workers)
        self._learners: dict[int, tuple[learners.Learner, Callable[..., None], Callable[..., tf.Tensor]]] = {}

    def _members(self, wanted: int | None, device: str, num_workers: int) -> int:
        if not ensemble_rules.supports(self._module):
            return 1
        if wanted is not None:
            return wanted
        return group_size.choose(self._step_cost, device, group_size.free_memory(device, num_workers))

    @functools.cached_property
    def _step_cost(self) -> group_size.StepCost:
        """Of one network and all examples."""
        return group_size.step_cost(self._module, self._data.image_shape, self._config.num_train, self._config.dtype)

    @functools.cached_property
    def examples_per_part(self) -> int:
        """Of how many examples the gradient of a network that is trained alone is formed at a time."""
        cost, num_train = self._step_cost, self._config.num_train
        activations = cost.memory_of_activations
        return num_train if activations <= _PART_BYTES else max(1, num_train * _PART_BYTES // activations)

    def train_full(self, folder: files.PathLike, report: Report | None = None) -> None:
        """Trains on all examples; writes both checkpoints and, last, full_run.npz.

        Args:
            folder: of the experiment.
            report: hears of the steps.

        Raises:
            InvalidValueError: the training diverged.
        """
        config, data = self._config, self._data
        checkpoints.write(self._module, leave_out_files.checkpoint_prefix(folder, 0), 0, 0)
        recorded: dict[int, _Trained] = {}
        trained = self._train([()], report, recorded)
        self._learner(1)[0].copy_to(0, self._module)
        checkpoints.write(
            self._module,
            leave_out_files.checkpoint_prefix(folder, config.num_steps),
            config.num_steps,
            config.num_steps,
        )
        losses = {
            "train_loss": _loss(trained.train_prediction[0], self._targets),
            "val_loss": _loss(trained.val_prediction[0], data.targets(data.val_label)),
        }
        shapes = {"train": (0, *trained.train_prediction.shape[1:]), "val": (0, *trained.val_prediction.shape[1:])}
        kept = {
            f"record_{name}_prediction": np.concatenate(
                [np.zeros(shape, config.dtype), *(getattr(one, f"{name}_prediction") for one in recorded.values())]
            )
            for name, shape in shapes.items()
        }
        members = {
            **{name: getattr(data, name) for name in leave_out_files.FULL_RUN_MEMBERS if hasattr(data, name)},
            **{name: np.asarray(value) for name, value in losses.items()},
            **kept,
            "train_prediction": trained.train_prediction[0],
            "val_prediction": trained.val_prediction[0],
            "runs_per_group": np.asarray(self.runs_per_group),
            "record_steps": np.array(list(recorded), np.int64),
        }
        leave_out_files.write_full_run(folder, members, config.sha256)

    def train_block(
        self, folder: files.PathLike, groups: Sequence[leave_out_files.Group], report: Report | None = None
    ) -> pathlib.Path:
        """Trains without each of some groups, compares with the full network, and writes a block.

        Args:
            folder: of the experiment, with its full network.
            groups: positions that are left out, of 1 to `runs_per_group` groups; stored in ascending order.
            report: hears of the steps.

        Returns:
            The path of the block.

        Raises:
            MissingFileError: the full network is not there.
            InvalidValueError: no groups or too many, a group names examples that were not drawn, or leaves none; a
                training diverged.
        """
        config = self._config
        if not 1 <= len(groups) <= self.runs_per_group:
            raise errors.InvalidValueError(
                f"{len(groups)} groups in a block: expected 1 to {self.runs_per_group}, the networks that are trained "
                "as one computation"
            )
        groups = [tuple(sorted(map(int, group))) for group in groups]
        full_run = leave_out_files.read_full_run(folder, config.sha256)
        if full_run is None:
            raise errors.MissingFileError(f"{folder}: has no full network yet; run ground_truth_effects for it")
        checkpoints.restore(self._module, leave_out_files.checkpoint_prefix(folder, config.num_steps))
        places = [self._places(group) for group in groups]
        trained = self._train(places, report)
        change = {
            "train": trained.train_prediction.astype(np.float64) - full_run["train_prediction"],
            "val": trained.val_prediction.astype(np.float64) - full_run["val_prediction"],
        }
        squared = {name: np.mean(np.sum(one**2, axis=2), axis=1) for name, one in change.items()}
        own = np.stack([of[place].mean(axis=0) for of, place in zip(change["train"], places, strict=True)])
        effects = leave_out_files.Effects(
            groups=tuple(groups),
            squared_weight_change=self._squared_weight_change(len(groups)),
            squared_prediction_change=squared["val"],
            squared_train_prediction_change=squared["train"],
            self_effect=own.astype(np.float32),
            prediction_change=change["val"].astype(np.float32),
        )
        path = leave_out_files.block_path(folder, groups)
        leave_out_files.write_effects(path, effects, config.sha256)
        return path

    def _places(self, group: leave_out_files.Group) -> np.ndarray:
        """Where the examples of a group stand among those drawn."""
        index = np.asarray(group, np.int64)
        places = np.searchsorted(self._data.train_index, index)
        known = places < len(self._data.train_index)
        known[known] = self._data.train_index[places[known]] == index[known]
        if not known.all() or not 0 < len(group) < len(self._data.train_index) or len(set(group)) < len(group):
            raise errors.InvalidValueError(
                f"group {', '.join(map(str, group))}: expected some, not all, of the {len(self._data.train_index)} "
                "training examples that were drawn, each once"
            )
        return places

    def _train(
        self,
        places: Sequence[Sequence[int] | np.ndarray],
        report: Report | None,
        recorded: dict[int, _Trained] | None = None,
    ) -> _Trained:
        """Trains without each of some groups; leaves the weights in the learner."""
        config, num_train = self._config, self._config.num_train
        weight = np.zeros([len(places), num_train], config.dtype)
        for row, left_out in zip(weight, places, strict=True):
            row[:] = 1 / (num_train - len(left_out))
            row[list(left_out)] = 0
        learner, advance, _ = self._learner(len(places))
        learner.assign([self._initial] * len(places))
        done, stops = 0, [*config.record_steps] if recorded is not None else []
        while True:
            if recorded is not None and done in stops:
                recorded[done] = self._predictions(len(places))
            if done == config.num_steps:
                break
            stop = min([config.num_steps, done + _STEPS_A_CALL, *(one for one in stops if one > done)])
            advance(tf.constant(weight), tf.constant(stop - done))
            done = stop
            if report is not None:
                report(done)
        trained = self._predictions(len(places))
        self._check_finite(trained)
        return trained

    def _check_finite(self, trained: _Trained) -> None:
        if not (np.isfinite(trained.train_prediction).all() and np.isfinite(trained.val_prediction).all()):
            raise errors.InvalidValueError(
                f"--learning_rate={self._config.learning_rate}: the training diverged within {self._config.num_steps} "
                "steps; a smaller rate may help"
            )

    def _learner(self, num_runs: int) -> tuple[learners.Learner, Callable[..., None], Callable[..., tf.Tensor]]:
        """The networks, with compiled functions that train them and predict by them."""
        if num_runs not in self._learners:
            self._learners.clear()  # the last block may be smaller than the others, whose memory it gets
            if self.runs_per_group > 1:
                # Also for one network alone, so that all are computed alike. A dense network then rounds as it would
                # among others; convolutions of another number of networks may round otherwise in the last digit.
                learner: learners.Learner = ensemble.EnsembleLearner(self._module, num_runs)
            else:
                learner = learners.SingleLearner(leave_out_networks.build(self._config, self._data, self._config.dtype))
            self._learners[num_runs] = (learner, self._make_advance(learner), _make_predict(learner))
        return self._learners[num_runs]

    def _make_advance(self, learner: learners.Learner) -> Callable[..., None]:
        config = self._config
        variables = list(learner.trainable_variables)
        initial = [tf.constant(self._initial[key]) for key in self._trained_keys()]
        inputs, targets = tf.constant(self._data.train_inputs), tf.constant(self._targets)
        rate, l2 = (tf.constant(value, config.dtype) for value in (config.learning_rate, config.l2))

        def gradient_of(images: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                residual = learner.logits(images, is_training=False) - label
                loss = tf.reduce_sum(weight[:, :, None] * tf.square(residual)) / 2
            return list(tape.gradient(loss, variables, unconnected_gradients="zero"))

        size = self.examples_per_part if learner.num_runs == 1 else len(inputs)

        def summed(images: tf.Tensor, weight: tf.Tensor) -> list[tf.Tensor]:
            if size >= len(inputs):
                return gradient_of(images, targets, weight)

            def add(start: tf.Tensor, total: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
                rows = slice(start, start + size)
                part = gradient_of(images[:, rows], targets[rows], weight[:, rows])
                return start + size, [one + other for one, other in zip(total, part, strict=True)]

            zeros = [tf.zeros_like(variable) for variable in variables]
            starts = tf.constant(0), zeros
            return tf.while_loop(lambda start, _: start < len(inputs), add, starts, parallel_iterations=1)[1]

        @tf.function
        def advance(weight: tf.Tensor, num_steps: tf.Tensor) -> None:
            images = tf.broadcast_to(inputs, [learner.num_runs, *inputs.shape])
            for _ in tf.range(num_steps):
                gradients = summed(images, weight)
                for variable, gradient, start in zip(variables, gradients, initial, strict=True):
                    pull = gradient + l2 * (variable - start) if config.l2 else gradient
                    variable.assign_sub(rate * pull)

        return advance

    def _trained_keys(self) -> list[str]:
        """Checkpoint keys of the trained variables, in the order of the learners."""
        keys = {variable.ref(): key for key, variable in checkpoints.model_variables(self._module).items()}
        return [keys[variable.ref()] for variable in self._module.trainable_variables]

    def _predictions(self, num_runs: int) -> _Trained:
        predict = self._learner(num_runs)[2]

        def of(inputs: np.ndarray) -> np.ndarray:
            size = self.examples_per_part if self.examples_per_part < self._config.num_train else _EXAMPLES_A_CALL
            parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            return np.concatenate([predict(tf.constant(part)).numpy() for part in parts], axis=1)

        return _Trained(of(self._data.train_inputs), of(self._data.val_inputs))

    def _squared_weight_change(self, num_runs: int) -> np.ndarray:
        """|w_r - w|^2 of the networks in the learner and the one in the module, float64 [R]."""
        total = np.zeros(num_runs)
        learner = self._learner(num_runs)[0]
        for variable, full in zip(learner.trainable_variables, self._module.trainable_variables, strict=True):
            change = tf.cast(variable, tf.float64) - tf.cast(full, tf.float64)
            total += tf.reduce_sum(tf.square(tf.reshape(change, [num_runs, -1])), axis=1).numpy()
        return total


def _make_predict(learner: learners.Learner) -> Callable[..., tf.Tensor]:
    @tf.function(reduce_retracing=True)
    def predict(inputs: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[learner.num_runs], tf.shape(inputs)], axis=0)
        images = tf.ensure_shape(tf.broadcast_to(inputs, shape), [learner.num_runs, *inputs.shape])
        return learner.logits(images, is_training=False)

    return predict


def _loss(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean of 1/2 |f - y|^2."""
    return float(np.mean(np.sum((prediction.astype(np.float64) - target) ** 2, axis=1)) / 2)

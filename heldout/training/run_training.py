"""From names to files: trains the runs of a zoo in groups and writes each in the published format.

A run is (experiment, subset ratio, run id). Its subset, initialisation and batch order follow from that name
(heldout/subsets.py). Its files appear whole: the checkpoint first, `aux_arrays.npz` last, so a run with aux arrays is
complete.
"""

import functools

import numpy as np
import tensorflow as tf

from heldout import subsets
from heldout.datasets import indexed_records
from heldout.datasets import registry as datasets
from heldout.evaluation import judging
from heldout.experiments import recipes, subset_rankings
from heldout.models import registry as models
from heldout.training import (
    batches,
    ensemble,
    ensemble_rules,
    group_size,
    learners,
    replicas,
    run_results,
    streamed_training,
    training_loop,
)
from zoo import aux_arrays, checkpoints, errors, layout

_REPAIR = "a smaller --learning_rate may help"


class RunTrainer:
    """Trains groups of runs of one recipe; compiled functions are kept for the next group of the same size.

    Args:
        recipe: what all runs share.
        dataset: the data set of the recipe, with the labels to train with; image records are read as they are needed.
        margins: whether the records are to hold margins.
        strategy: of several replicas, each of which trains a run; None for a single device.
        device: "cpu", "gpu" or "tpu".
        ranking: what subsets follow, where the recipe says that they follow one.

    Raises:
        InvalidValueError: the architecture cannot be built, or does not begin with the same values again.
        MismatchError: the ranking is not that of the recipe.
    """

    def __init__(
        self,
        recipe: recipes.Recipe,
        dataset: datasets.AnyDataset,
        *,
        margins: bool = False,
        strategy: tf.distribute.Strategy | None = None,
        device: str = "cpu",
        ranking: subset_rankings.SubsetRanking | None = None,
    ) -> None:
        given = None if ranking is None else ranking.sha256()
        if given != recipe.ranking_sha256:
            raise errors.MismatchError(
                f"experiment {recipe.experiment}: its recipe has a ranking of digest {recipe.ranking_sha256}, but the "
                f"one to train with has {given}; give the ranking of the recipe"
            )
        self._ranking = ranking
        self._device = device
        self._strategy = strategy or tf.distribute.get_strategy()
        self._num_replicas = len(replicas.local_replicas(self._strategy))
        self._recipe = recipe
        self._dataset = dataset
        self._margins = margins
        self._module = self._build()
        if not models.is_known(recipe.architecture):
            self._check_initial_values()
        self._evaluator = judging.Evaluator(self._module, dataset, recipe.training.dtype)
        self._trainers: dict[tuple[int, bool], tuple[learners.Learner, training_loop.Loop]] = {}

    def _build(self) -> tf.Module:
        return models.build(
            self._recipe.architecture,
            self._dataset.num_classes,
            self._dataset.image_shape,
            self._recipe.architecture_options,
            dtype=tf.as_dtype(self._recipe.training.dtype),
        )

    def largest_group(self, wanted: int | None = None, num_workers: int = 1) -> int:
        """How many runs to train side by side.

        One on every replica where there are several; 1 for an architecture without a batched form; else what is wanted.

        Args:
            wanted: None leaves the choice to group_size.py.
            num_workers: processes that share the memory.
        """
        if self._num_replicas > 1:
            return self._num_replicas
        if not ensemble_rules.supports(self._module):
            return 1
        return wanted or group_size.choose(
            self._step_cost, self._device, group_size.free_memory(self._device, num_workers)
        )

    @functools.cached_property
    def _step_cost(self) -> group_size.StepCost:
        config = self._recipe.training
        batch_size = min(config.batch_size, len(self._dataset.train))
        return group_size.step_cost(self._module, self._dataset.image_shape, batch_size, config.dtype)

    def _variable_bytes(self) -> int:
        variables = checkpoints.model_variables(self._module).values()
        return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)

    def bytes_per_run(self) -> int:
        """What the files of one run will take on disk, roughly: its variables, int64 indices, float16 margins."""
        num_train, num_test = len(self._dataset.train), len(self._dataset.test)
        return self._variable_bytes() + 8 * (3 * num_train + 2 * num_test) + 2 * self._margins * (num_train + num_test)

    def train_group(
        self,
        runs: list[layout.Run],
        on_epoch: training_loop.OnEpoch | None = None,
        *,
        batched: bool | None = None,
    ) -> list[run_results.RunResult]:
        """Trains runs of one subset ratio in step and writes their files.

        Args:
            runs: at most `largest_group` runs.
            on_epoch: called after each epoch with (epoch, losses [R]).
            batched: whether to use the batched form of the architecture; None where there are several runs. A single
                run that is left over of others in groups rounds as they do only if it is batched too.
        """
        draws = [self._draw(run) for run in runs]
        if self._num_replicas > 1:
            # No replica stands idle: what the last group lacks is filled up and forgotten.
            draws += draws[-1:] * (self._num_replicas - len(draws))
        learner, trainer = self._trainer(len(draws), len(draws) > 1 if batched is None else batched)
        losses = trainer.train(draws, [self.initial_values(draw.name) for draw in draws], _until_all_failed(on_epoch))
        return [self._finish(run, draws[i], learner, i, losses[:, i]) for i, run in enumerate(runs)]

    def _draw(self, run: layout.Run) -> batches.RunDraw:
        name = (run.experiment, run.subset_ratio, run.run_id)
        if self._ranking is not None:
            return batches.RunDraw(name, self._ranking.subset_indices(name, len(self._dataset.train)))
        return batches.RunDraw(name, subsets.draw(self._recipe.subset_sampling, name, self._dataset.train.label))

    def initial_values(self, name: tuple[str, float, int]) -> dict[str, np.ndarray]:
        """The variables of a run before its first step: the architecture's own initialisers under the run's seed."""
        name = name if self._ranking is None else subset_rankings.seed_name(name)
        tf.random.set_seed(subsets.seed(name, "initialisation") % (1 << 31))
        return learners.read_values(self._build())

    def _check_initial_values(self) -> None:
        """Refuses a model of one's own that no run could begin with again."""
        first, again = (self.initial_values((self._recipe.experiment, 0.5, 0)) for _ in range(2))
        if any(value.tobytes() != again[key].tobytes() for key, value in first.items()):
            raise errors.InvalidValueError(
                f"architecture {self._recipe.architecture!r}: built twice under one TensorFlow seed, it began with "
                "other values, so its runs could not be repeated; expected values that follow from tf.random.set_seed: "
                "draw them with tf.random.normal and the like or with Sonnet's initialisers, not with NumPy"
            )

    def _trainer(self, num_runs: int, batched: bool) -> tuple[learners.Learner, training_loop.Loop]:
        if (num_runs, batched) not in self._trainers:
            learner = self._learner(num_runs, batched)
            self._trainers[num_runs, batched] = (learner, self._trainer_of(learner))
        return self._trainers[num_runs, batched]

    def _trainer_of(self, learner: learners.Learner) -> training_loop.Loop:
        config, data = self._recipe.training, self._dataset
        if isinstance(data, indexed_records.IndexedRecords):
            return streamed_training.StreamedTrainer(learner, data, config, self._strategy)
        normalise = judging.normaliser(data, config.dtype)
        jit_compile = ensemble_rules.supports(self._module) and group_size.xla_wins(self._step_cost, self._device)
        return training_loop.Trainer(
            learner,
            data.train.images,
            data.train.label,
            normalise,
            config,
            self._strategy,
            jit_compile=jit_compile and self._num_replicas == 1,
        )

    def _learner(self, num_runs: int, batched: bool) -> learners.Learner:
        mixed_precision = self._recipe.training.mixed_precision
        if self._num_replicas > 1:
            if mixed_precision != "none":
                raise errors.InvalidValueError("--mixed_precision and a --strategy do not go together; leave one out")
            return replicas.ReplicaLearner(self._build, self._strategy, replicas.trained_keys(self._module))
        if not batched and mixed_precision == "none":
            return learners.SingleLearner(self._build())
        if not ensemble_rules.supports(self._module):
            what = f"trains one run at a time, not {num_runs}" if num_runs > 1 else "knows no --mixed_precision"
            raise errors.InvalidValueError(f"architecture {self._recipe.architecture} {what}; leave the flag out")
        return ensemble.EnsembleLearner(
            self._module, num_runs, None if mixed_precision == "none" else tf.as_dtype(mixed_precision)
        )

    def _finish(
        self, run: layout.Run, draw: batches.RunDraw, learner: learners.Learner, position: int, losses: np.ndarray
    ) -> run_results.RunResult:
        loss = float(losses[-1])
        if not np.isfinite(loss):
            epoch = int(np.argmin(np.isfinite(losses))) + 1
            return run_results.RunResult(run, f"the training loss is {loss}: {_REPAIR}", loss, epoch=epoch)
        learner.copy_to(position, self._module)
        train, test = self._evaluator.judge("train"), self._evaluator.judge("test")
        if not (train.finite and test.finite):
            # The loss is that before the update: the last step may have been the one too far.
            return run_results.RunResult(run, f"some logits are not finite: {_REPAIR}", loss, epoch=len(losses))
        margins = (train.margin, test.margin) if self._margins else None
        mask = np.zeros(len(self._dataset.train), bool)
        mask[draw.subset_indices] = True
        config = self._recipe.training
        num_steps = config.num_epochs * batches.steps_per_epoch(config, len(draw.subset_indices))
        # Another program may have finished the run meanwhile; what is complete is never touched.
        if not run.aux_arrays_path.exists():
            checkpoints.write(self._module, run.checkpoint_prefix(config.num_epochs), config.num_epochs, num_steps)
            aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, train.correct, test.correct, margins))
        accuracy_in, accuracy_heldout, accuracy_test = (
            float(np.mean(part)) if part.size else float("nan")  # a run on all examples holds none out
            for part in (train.correct[mask], train.correct[~mask], test.correct)
        )
        return run_results.RunResult(run, None, loss, accuracy_in, accuracy_heldout, accuracy_test)


def _until_all_failed(on_epoch: training_loop.OnEpoch | None) -> training_loop.OnEpoch:
    """Ends a training early when no run of the group has a loss that is a number: none of them can recover."""

    def ends(epoch: int, losses: np.ndarray) -> bool:
        wanted = on_epoch is not None and on_epoch(epoch, losses)
        return bool(wanted) or bool(np.isnan(losses).all())

    return ends

"""From names to files: trains the runs of a zoo in groups and writes each in the published format.

A run is (experiment, subset ratio, run id). Its subset, initialisation and batch order follow from that name
(heldout/subsets.py). Its files appear whole: the checkpoint first, `aux_arrays.npz` last, so a run with aux arrays is
complete.
"""

import numpy as np
import tensorflow as tf

from heldout import batches, ensemble, evaluation, learners, recipes, run_results, subsets, training
from heldout.datasets import dataset as dataset_lib
from heldout.models import registry as models
from zoo import aux_arrays, checkpoints, errors, layout

# Four networks of the MNIST demonstration, 2.1 MB each; `benchmark_training --runs_per_group` compares other groups.
# Small networks gain most from a group, because starting each operation costs as much as computing it.
_CACHE_BYTES = 9 << 20
_MOST_RUNS = 8
_REPAIR = "a smaller --learning_rate may help"


class RunTrainer:
    """Trains groups of runs of one recipe; compiled functions are kept for the next group of the same size.

    Args:
        recipe: what all runs share.
        dataset: the loaded data set of the recipe.
    """

    def __init__(self, recipe: recipes.Recipe, dataset: dataset_lib.Dataset) -> None:
        self._recipe = recipe
        self._dataset = dataset
        self._normalise = evaluation.normaliser(dataset, recipe.training.dtype)
        self._module = self._build()
        self._evaluator = evaluation.Evaluator(self._module, self._normalise)
        self._trainers: dict[int, tuple[learners.Learner, training.Trainer]] = {}

    def _build(self) -> tf.Module:
        return models.build(
            self._recipe.architecture,
            self._dataset.num_classes,
            self._dataset.image_shape,
            self._recipe.architecture_options,
            dtype=tf.as_dtype(self._recipe.training.dtype),
        )

    def largest_group(self, wanted: int | None = None) -> int:
        """How many runs to train as one batch: 1 for an architecture that cannot, else what is wanted.

        If nothing is wanted, as many as keep their weights in a processor's cache: a small model's step waits for
        memory, and the weights pass through it several times a step.
        """
        if not ensemble.supports(self._module):
            return 1
        return wanted or max(1, min(_MOST_RUNS, _CACHE_BYTES // self._variable_bytes()))

    def _variable_bytes(self) -> int:
        variables = checkpoints.model_variables(self._module).values()
        return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)

    def bytes_per_run(self) -> int:
        """What the files of one run will take on disk, roughly: its variables, and int64 indices."""
        return self._variable_bytes() + 8 * (3 * len(self._dataset.train) + 2 * len(self._dataset.test))

    def train_group(
        self, runs: list[layout.Run], on_epoch: training.OnEpoch | None = None
    ) -> list[run_results.RunResult]:
        """Trains runs of one subset ratio in step and writes their files.

        Args:
            runs: at most `largest_group` runs.
            on_epoch: called after each epoch with (epoch, losses [R]).
        """
        draws = [self._draw(run) for run in runs]
        learner, trainer = self._trainer(len(runs))
        losses = trainer.train(draws, [self.initial_values(draw.name) for draw in draws], on_epoch)
        return [self._finish(run, draws[i], learner, i, losses[-1, i]) for i, run in enumerate(runs)]

    def _draw(self, run: layout.Run) -> batches.RunDraw:
        name = (run.experiment, run.subset_ratio, run.run_id)
        return batches.RunDraw(name, subsets.subset_indices(*name, len(self._dataset.train)))

    def initial_values(self, name: tuple[str, float, int]) -> dict[str, np.ndarray]:
        """The variables of a run before its first step: the architecture's own initialisers under the run's seed."""
        tf.random.set_seed(subsets.seed(name, "initialisation") % (1 << 31))
        return learners.read_values(self._build())

    def _trainer(self, num_runs: int) -> tuple[learners.Learner, training.Trainer]:
        if num_runs not in self._trainers:
            learner = self._learner(num_runs)
            train = self._dataset.train
            trainer = training.Trainer(learner, train.images, train.label, self._normalise, self._recipe.training)
            self._trainers[num_runs] = (learner, trainer)
        return self._trainers[num_runs]

    def _learner(self, num_runs: int) -> learners.Learner:
        if num_runs == 1:
            return learners.SingleLearner(self._build())
        if not ensemble.supports(self._module):
            raise errors.InvalidValueError(f"{self._recipe.architecture} trains one run at a time, not {num_runs}")
        return ensemble.EnsembleLearner(self._module, num_runs)

    def _finish(
        self, run: layout.Run, draw: batches.RunDraw, learner: learners.Learner, position: int, loss: float
    ) -> run_results.RunResult:
        if not np.isfinite(loss):
            return run_results.RunResult(run, f"the training loss is {loss}: {_REPAIR}", float(loss))
        learner.copy_to(position, self._module)
        logits = [self._evaluator.logits(split.images) for split in (self._dataset.train, self._dataset.test)]
        if not all(np.isfinite(values).all() for values in logits):
            # The loss is that before the update: the last step may have been the one too far.
            return run_results.RunResult(run, f"some logits are not finite: {_REPAIR}", float(loss))
        correct_train = evaluation.correct(logits[0], self._dataset.train.label)
        correct_test = evaluation.correct(logits[1], self._dataset.test.label)
        mask = np.zeros(len(self._dataset.train), bool)
        mask[draw.subset_indices] = True
        config = self._recipe.training
        num_steps = config.num_epochs * batches.steps_per_epoch(config, len(draw.subset_indices))
        checkpoints.write(self._module, run.checkpoint_prefix(config.num_epochs), config.num_epochs, num_steps)
        aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, correct_train, correct_test))
        means = [float(np.mean(part)) for part in (correct_train[mask], correct_train[~mask], correct_test)]
        return run_results.RunResult(run, None, float(loss), *means)

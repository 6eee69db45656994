"""The steps of `summarize_dataset`: orders of dropping, trainings, results; needs no TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import pathlib

import numpy as np

from heldout.training import leave_out_config
from scripts.model_training import progress
from scripts.unique_information import (
    dropping_orders,
    linearisation_dispatch,
    linearised_problem,
    linearised_scores,
    network_source,
    scoring_config,
    summary_config,
    summary_files,
    summary_results,
    training_flags,
    truth_dispatch,
)
from zoo import files

_KERNEL_NAME = "kernel"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked for, besides what decides the results.

    Attributes:
        outdir: folder of the results.
        ways: of dropping, some of `dropping_orders.WAYS`.
        counts: of dropped examples, ascending.
        num_seeds: trainings of each selection.
        how: what does not decide the networks.
        memory_limit_mb: of kernels.
    """

    outdir: str
    ways: tuple[str, ...]
    counts: tuple[int, ...]
    num_seeds: int
    how: truth_dispatch.HowToTrain
    memory_limit_mb: float

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the results."""
        return pathlib.Path(self.outdir)


def orders(
    config: summary_config.SummaryConfig,
    plan: Plan,
    train_index: np.ndarray,
    score: np.ndarray | None,
    line: progress.Line,
) -> dict[str, np.ndarray]:
    """The order of dropping of each way but "random", int64 [n], from the folder as far as it is there.

    Args:
        config: of the summary.
        plan: what is asked.
        train_index: int64 [n], ascending positions.
        score: float64 [n] for one-shot ways; None for linearised scores.
        line: of progress.

    Raises:
        HeldoutError: of the linearisation.
        InvalidValueError: an example has no score.
    """
    linearised = functools.cache(lambda: _problem(config, plan, train_index, line))
    found = {}
    for way in plan.ways:
        if way in dropping_orders.ITERATIVE:
            found[way] = _rescored(config, plan, train_index, way, linearised, line)
        elif way != dropping_orders.RANDOM and score is not None:
            found[way] = dropping_orders.by_score(train_index, score, way)
        elif way != dropping_orders.RANDOM:
            found[way] = _one_shot(config, plan, train_index, way, linearised)
    return found


def of_random(plan: Plan, train_index: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The order of a random way under a seed; none where that way is not asked for."""
    if dropping_orders.RANDOM not in plan.ways:
        return {}
    return {dropping_orders.RANDOM: dropping_orders.by_chance(train_index, seed)}


def _problem(
    config: summary_config.SummaryConfig, plan: Plan, train_index: np.ndarray, line: progress.Line
) -> linearised_problem.Problem:
    """The linearised network of the first initialisation, on all examples."""
    source = network_source.NetworkSource(experiment=config.experiment, data_dir=plan.how.data_dir)
    kernel = plan.folder / _KERNEL_NAME
    messages = linearisation_dispatch.linearise(
        source,
        config.linearisation,
        kernel,
        device=plan.how.device,
        memory_limit_mb=plan.memory_limit_mb,
    )
    with contextlib.closing(messages):
        for message in messages:
            if "progress" in message:
                stage, done, total = message["progress"]
                line.show(f"linearised network: {stage}, {done} of {total}")
    line.close()
    problem = linearised_problem.read(kernel)
    assert np.array_equal(problem.train_index, train_index)
    return problem


def _scores_of(
    config: summary_config.SummaryConfig, problem: linearised_problem.Problem, places: np.ndarray
) -> np.ndarray:
    """Scores of the examples at some places, as if there were no others."""
    kept = problem if len(places) == problem.num_train else problem.take(places)
    experiment = config.experiment
    training = scoring_config.Training(experiment.learning_rate, experiment.num_steps, experiment.l2)
    return linearised_scores.compute(kept, training, config.scoring).columns[config.measure]


def _one_shot(
    config: summary_config.SummaryConfig,
    plan: Plan,
    train_index: np.ndarray,
    way: str,
    linearised: Callable[[], linearised_problem.Problem],
) -> np.ndarray:
    found = summary_files.read_order(plan.folder, way, train_index)
    if len(found) < len(train_index):
        score = _scores_of(config, linearised(), np.arange(len(train_index)))
        found = dropping_orders.by_score(train_index, score, way)
        summary_files.write_order(plan.folder, way, found)
    return found


def _rescored(
    config: summary_config.SummaryConfig,
    plan: Plan,
    train_index: np.ndarray,
    way: str,
    linearised: Callable[[], linearised_problem.Problem],
    line: progress.Line,
) -> np.ndarray:
    """The order of an iterative way; each part is kept when it is known."""
    found = summary_files.read_order(plan.folder, way, train_index)
    parts = dropping_orders.rescored(
        train_index,
        lambda places: _scores_of(config, linearised(), places),
        way,
        config.rescore_share,
        found.tolist(),
    )
    for part in parts:
        found = np.concatenate([found, part])
        summary_files.write_order(plan.folder, way, found)
        line.show(f"{way}: scored again, {len(found)} of {len(train_index)} examples in order")
    line.close()
    return found


def train(
    config: summary_config.SummaryConfig, plan: Plan, by_way: Mapping[str, np.ndarray], train_index: np.ndarray
) -> tuple[list[summary_results.Row], int]:
    """Trains what is not there yet, under each seed.

    Args:
        config: of the summary.
        plan: what is asked.
        by_way: orders of dropping, but of random ones.
        train_index: int64 [n].

    Returns:
        All trainings that were asked for, and how many of the seeds had something to train.
    """
    rows: list[summary_results.Row] = []
    trained = 0
    for number in range(plan.num_seeds):
        experiment = config.of_seed(number)
        folder = summary_files.seed_folder(plan.folder, experiment.seed)
        leave_out_config.adopt(folder, experiment)
        dropped = summary_files.groups({**by_way, **of_random(plan, train_index, experiment.seed)}, plan.counts)
        groups = [group for group in dict.fromkeys(dropped.values()) if group]
        text = functools.partial(_text, f"seed {experiment.seed}", len(groups))
        trained += training_flags.train(experiment, str(folder), groups, plan.how, text)
        rows += summary_results.read_rows(folder, experiment.sha256, experiment.seed, dropped)
    return rows, trained


def _text(of: str, num_groups: int, before: int | None, at: str) -> str:
    if before is None:
        return f"{of}, all examples: {at}"
    return f"{of}, {before} of {files.count_text(num_groups, 'training')} begun or done, {at}"


def write_subsets(plan: Plan, by_way: Mapping[str, np.ndarray], train_index: np.ndarray, seeds: Sequence[int]) -> None:
    """Writes what each way leaves at each ratio; of random ones a file for each seed."""
    for way, order in by_way.items():
        summary_files.write_subsets(summary_files.subset_path(plan.folder, way), order, plan.counts)
    for seed in seeds:
        for way, order in of_random(plan, train_index, seed).items():
            summary_files.write_subsets(summary_files.subset_path(plan.folder, f"{way}-{seed}"), order, plan.counts)

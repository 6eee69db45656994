"""What `train_runs` is asked for: which runs, of what, and on which workers."""

import collections
import dataclasses
import pathlib
from typing import Any

from heldout import subsets
from heldout.experiments import label_noise, subset_rankings, training_config
from heldout.running import runners, shares
from zoo import errors

# Of tf.distribute, by our names; `replicas.make_strategy` makes them. Here, where no TensorFlow is needed to name them.
STRATEGIES = ("none", "mirrored", "tpu", "multi_worker")


@dataclasses.dataclass(frozen=True)
class TrainRunsConfig:
    """What to train and where.

    Attributes:
        zoo: folder of experiments.
        experiment: name; None makes it from data set and architecture.
        dataset: name known to heldout/datasets/registry.py.
        data_dir: where the data set lies; None for the default.
        architecture: name known to heldout/models/registry.py, or "module:callable".
        architecture_options: its keyword arguments.
        subset_ratios: each in (0, 1).
        run_ids: run ids to have at every ratio, each once.
        training: optimisation.
        workers: processes; None means one for each core on a CPU, one on other devices, and as many as there is room
            for on a cluster.
        runs_per_group: runs trained as one batch where the architecture allows; None leaves the choice to
            `run_training.RunTrainer.largest_group`.
        device: "cpu", "gpu" or "tpu".
        redo_damaged: whether to train damaged runs anew, replacing their files.
        strategy: one of `STRATEGIES`.
        num_replicas: on a CPU, how many logical devices the strategy gets; None elsewhere, where it takes all.
        noise: which training labels are wrong on purpose; None for none.
        subset_sampling: "uniform", "class_balanced", or "ranked" with a ranking.
        ranking: what subsets follow; None where they are drawn at random.
        margins: whether the records tell how sure each run was.
        max_failures: the training stops when so many runs in a row have failed; 0 never stops it.
        grace_s: seconds that runs which are being trained have after Ctrl-C or SIGTERM; then they are given up.
        runner: where the workers run.
        share: which part of the wanted runs this call trains; others are for other machines.
        store: address of the zoo that the folder stands for (store_training.py); None for a folder of its own.
    """

    zoo: str
    experiment: str | None
    dataset: str
    data_dir: str | None
    architecture: str
    architecture_options: dict[str, Any]
    subset_ratios: tuple[float, ...]
    run_ids: tuple[int, ...]
    training: training_config.TrainingConfig
    workers: int | None = None
    runs_per_group: int | None = None
    device: str = "cpu"
    redo_damaged: bool = False
    strategy: str = "none"
    num_replicas: int | None = None
    noise: label_noise.LabelNoise | None = None
    subset_sampling: str = subsets.UNIFORM
    ranking: subset_rankings.SubsetRanking | None = None
    margins: bool = False
    max_failures: int = 5
    grace_s: float = 0.0
    runner: runners.Runner = dataclasses.field(default_factory=runners.Runner)
    share: shares.Share = dataclasses.field(default_factory=shares.Share)
    store: str | None = None

    @property
    def wanted(self) -> list[tuple[float, int]]:
        """Subset ratio and run id of every run of this call's share."""
        return self.share.of([(ratio, run_id) for ratio in self.subset_ratios for run_id in self.run_ids])

    @property
    def experiment_name(self) -> str:
        """The given name, or <dataset>-<architecture> with characters unfit for a folder replaced."""
        if self.experiment is not None:
            return self.experiment
        name = f"{pathlib.Path(self.dataset.removeprefix('npz:')).stem}-{self.architecture}"
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def check(config: TrainRunsConfig) -> None:
    """Refuses what cannot be trained, before anything is read or written.

    Raises:
        InvalidValueError: ratios, run ids or options outside what is allowed.
    """
    if not config.run_ids or not config.subset_ratios:
        raise errors.InvalidValueError("nothing to train: give at least one of --run_ids and one --subset_ratio")
    for name, values in (("run_ids", config.run_ids), ("subset_ratio", config.subset_ratios)):
        twice = [value for value, count in collections.Counter(values).items() if count > 1]
        if twice:
            raise errors.InvalidValueError(f"--{name}: {min(twice)} is given twice; name each once")
    if min(config.run_ids) < 0:
        raise errors.InvalidValueError(f"--run_ids: {min(config.run_ids)} is negative; run ids start at 0")
    for name, value in (("workers", config.workers), ("runs_per_group", config.runs_per_group)):
        if value is not None and value < 1:
            raise errors.InvalidValueError(f"--{name}={value}: expected at least 1")
    runners.check(config.runner, config.device)
    if config.strategy not in STRATEGIES:
        raise errors.InvalidValueError(f"--strategy={config.strategy}: expected one of {', '.join(STRATEGIES)}")
    if config.strategy != "none" and config.workers not in (None, 1):
        raise errors.InvalidValueError(
            f"--strategy={config.strategy} with --workers={config.workers}: one process has all replicas; leave "
            "--workers out"
        )
    on_logical_devices = config.device == "cpu" and config.strategy in ("mirrored", "multi_worker")
    if (config.num_replicas is not None) != on_logical_devices:
        raise errors.InvalidValueError(
            f"--num_replicas={config.num_replicas}: goes with --strategy=mirrored or multi_worker on --device=cpu, and "
            "those need it; other devices are counted"
        )
    if config.strategy != "none" and config.runs_per_group is not None:
        raise errors.InvalidValueError(
            f"--strategy={config.strategy} with --runs_per_group={config.runs_per_group}: each replica trains one run "
            "at a time; leave --runs_per_group out"
        )
    if not config.wanted:
        raise errors.InvalidValueError(
            f"share {config.share.index + 1} of {config.share.count} of the runs is empty; ask for more --run_ids, or "
            "use fewer machines"
        )
    if config.max_failures < 0:
        raise errors.InvalidValueError(f"--max_failures={config.max_failures}: expected 0, for no limit, or more")
    if config.subset_sampling not in (subsets.SAMPLINGS if config.ranking is None else (subsets.RANKED,)):
        raise errors.InvalidValueError(
            f"--subset_sampling={config.subset_sampling}: expected one of {', '.join(subsets.SAMPLINGS)}, or "
            f"{subsets.RANKED} with a ranking"
        )
    if config.ranking is not None and config.store is not None:
        raise errors.InvalidValueError(
            f"--zoo={config.store}: subsets follow a ranking in a folder only; give a folder and copy it when all is "
            "trained"
        )

"""What `heldout.scoring.score_files` is to compute: one frozen configuration, stored beside its results."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.datasets import registry
from heldout.experiments import recipes
from heldout.running import runners
from heldout.scoring import score_tables
from zoo import errors, layout

# The weights of the draws take 4 bytes per draw and run.
_MAX_DRAWS = 1_000_000
# Bytes of a matrix that is kept without being asked for.
_LARGEST_MATRIX = 1 << 33
MATRIX_CHOICES = ("auto", "yes", "no")


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What to compute and where to.

    Attributes:
        zoo: folder that holds the experiments.
        experiment: name of one.
        subset_ratios: which ratios; None for all that have runs.
        output: folder of the score files; None for <zoo>/<experiment>/scores.
        memory_limit_mb: MiB that influence in the making may take beside the run table and the margins; these, the
            other scores and the tables are not bounded by it.
        matrix: "yes" or "no": whether to keep the matrix of subset influence, 4 N M bytes a ratio; "auto" for yes where
            it is at most 8 GiB.
        top_k: entries in the lists of the strongest influence of each example.
        table_format: "parquet" or "csv".
        dataset: name of the data set whose labels the scores are to carry; None for those in the run table, and
            where it has none for those of the data set in the experiment's recipe.
        data_dir: where that data set is.
        num_draws: bootstrap draws behind the interval of the number of memorized examples.
        pairs_influence: least subset influence of a high-influence pair.
        pairs_memorization: least memorization of its training example.
        shrinkage: whether the examples table has posterior means of memorization.
        margins: whether it has memorization of margins, which the runs must have.
        cross_class: whether to write the mean influence of every class on every other.
        margin_influence: whether to write influence on margins, which the runs must have.
        overwrite: replace the scores of another configuration.
        runner: where the tiles of subset influence are computed.
        device: "cpu", "gpu" or "tpu", on which the counts of runs are computed; they are the same.
    """

    zoo: str
    experiment: str
    subset_ratios: tuple[float, ...] | None = None
    output: str | None = None
    memory_limit_mb: int = 2048
    matrix: str = "auto"
    top_k: int = 10
    table_format: str = "parquet"
    dataset: str | None = None
    data_dir: str | None = None
    num_draws: int = 1000
    pairs_influence: float = 0.15
    pairs_memorization: float = 0.25
    shrinkage: bool = False
    margins: bool = False
    cross_class: bool = False
    margin_influence: bool = False
    overwrite: bool = False
    runner: runners.Runner = dataclasses.field(default_factory=runners.Runner)
    device: str = "cpu"

    def keeps_matrix(self, num_train: int, num_test: int) -> bool:
        """Whether the matrices of subset influence are kept."""
        return self.matrix == "yes" or (self.matrix == "auto" and 4 * num_train * num_test <= _LARGEST_MATRIX)

    @property
    def directory(self) -> pathlib.Path:
        """The folder of the score files."""
        return pathlib.Path(self.output) if self.output else layout.scores_directory(self.zoo, self.experiment)

    def identity(self) -> dict[str, Any]:
        """The part of the configuration that results depend on, as JSON has it.

        Where things lie and how much memory they may take does not change them; the zoo counts only where the
        output is not inside it. Of the data set its name and version count, whether it was named or is known from
        the recipe. What was not asked for is not named, where older folders do not know of it.

        Raises:
            InvalidValueError: the data set is unknown.
            MissingFileError: its npz file is not there.
        """
        identity = dataclasses.asdict(self)
        for name in ("zoo", "output", "memory_limit_mb", "data_dir", "overwrite", "runner", "device"):
            del identity[name]
        for name in ("cross_class", "margin_influence"):
            if not identity[name]:
                del identity[name]
        identity["subset_ratios"] = None if self.subset_ratios is None else sorted(self.subset_ratios)
        identity["dataset"] = self._dataset_identity()
        identity["zoo"] = None if self.output is None else str(pathlib.Path(self.zoo).absolute())
        return identity

    def _dataset_identity(self) -> str | None:
        """Name and version of the data set behind the scores, without loading it; None where it is not known."""
        if self.dataset is not None:
            return " ".join(registry.identify(self.dataset))
        recipe = recipes.read(self.zoo, self.experiment)
        return None if recipe is None else f"{recipe.dataset['name']} {recipe.dataset['version']}"


def check(config: ScoreConfig) -> None:
    """Refuses values that cannot be meant, as far as they can be judged without the zoo.

    Raises:
        InvalidValueError: a value is out of range; the message names it.
    """
    score_tables.check_format(config.table_format)
    taken = [pathlib.Path(config.zoo), pathlib.Path(config.zoo) / config.experiment]
    if config.output is not None and pathlib.Path(config.output).absolute() in [path.absolute() for path in taken]:
        raise errors.InvalidValueError(
            f"output: {config.output} holds runs; give a folder of its own, such as {taken[1] / 'scores'}"
        )
    runners.check(config.runner, "cpu")
    for name, low, high in (("memory_limit_mb", 1, np.inf), ("num_draws", 1, _MAX_DRAWS), ("top_k", 1, 1000)):
        _check_range(name, getattr(config, name), low, high)
    if config.matrix not in MATRIX_CHOICES:
        raise errors.InvalidValueError(f"matrix: got {config.matrix!r}, expected one of {', '.join(MATRIX_CHOICES)}")
    for name in ("pairs_influence", "pairs_memorization"):
        _check_range(name, getattr(config, name), -1, 1)
    ratios = config.subset_ratios
    if ratios is not None and (not ratios or len(set(ratios)) != len(ratios)):
        raise errors.InvalidValueError(f"subset_ratios: got {ratios}, expected at least one ratio, each once")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise errors.InvalidValueError(f"{name}: got {value}, expected a number from {low:g} to {high:g}")

"""Where the parts of a zoo lie on disk.

    <zoo>/<experiment>/<subset_ratio>/<run_id>/aux_arrays.npz
    <zoo>/<experiment>/<subset_ratio>/<run_id>/checkpoints/ckpt-<epoch>.index, .data-00000-of-00001
    <zoo>/<experiment>/recipe.json, labels.npz, failures.jsonl, run_table.npz
    <zoo>/<experiment>/scores/, report/, evaluation/, tensorboard/

The first two lines are the layout of the published zoos. How many ratios and runs there are differs between
experiments, so they are found by looking. A folder counts as a run if its name and its parent's are exactly what
`Run` would write: the ratio in its shortest decimal form, the id without leading zeros.
"""

import contextlib
import dataclasses
import os
import pathlib
import re

import numpy as np

from zoo import errors, files

_RATIO = re.compile(r"0\.[0-9]+")
_RUN_ID = re.compile(r"0|[1-9][0-9]{0,17}")
AUX_ARRAYS_NAME = "aux_arrays.npz"
CHECKPOINTS_NAME = "checkpoints"
RECIPE_NAME = "recipe.json"
RUN_TABLE_NAME = "run_table.npz"
LABELS_NAME = "labels.npz"
RANKING_NAME = "subset_ranking.npz"
FAILURES_NAME = "failures.jsonl"
TENSORBOARD_NAME = "tensorboard"
ARCHIVE_INDEX_SUFFIX = ".index.sqlite"
ARCHIVE_INDEX_NAME = f"archive{ARCHIVE_INDEX_SUFFIX}"
PUBLISHED_INDEX_NAME = f"published{ARCHIVE_INDEX_SUFFIX}"
CHECKPOINT_INDEX_SUFFIX = ".index"
CHECKPOINT_DATA_SUFFIX = ".data-00000-of-00001"
_CHECKPOINT_FILE = re.compile(
    r"ckpt-(?P<epoch>0|[1-9][0-9]{0,17})"
    rf"(?P<suffix>{re.escape(CHECKPOINT_INDEX_SUFFIX)}|{re.escape(CHECKPOINT_DATA_SUFFIX)})"
)


def ratio_name(subset_ratio: float) -> str:
    """The folder name of a subset ratio: its shortest decimal form, as in "0.7".

    Args:
        subset_ratio: share of the training set that a run is trained on, in (0, 1).

    Raises:
        InvalidValueError: the ratio lies outside (0, 1).
    """
    ratio = float(subset_ratio)
    if not 0 < ratio < 1:
        raise errors.InvalidValueError(f"subset_ratio is {subset_ratio}, expected a number above 0 and below 1")
    return np.format_float_positional(ratio, trim="-")


def parse_ratio(name: str) -> float | None:
    """The ratio that a folder name stands for; None unless it is written as `ratio_name` writes it."""
    if not _RATIO.fullmatch(name):
        return None
    ratio = float(name)
    return ratio if 0 < ratio < 1 and ratio_name(ratio) == name else None


def parse_run_id(name: str) -> int | None:
    """The run id that a folder name stands for; None where it is no number, or has a sign or leading zeros."""
    return int(name) if _RUN_ID.fullmatch(name) else None


def parse_checkpoint_file(name: str) -> tuple[int, str] | None:
    """Epoch and suffix (`CHECKPOINT_INDEX_SUFFIX` or `CHECKPOINT_DATA_SUFFIX`) of a checkpoint's file; else None."""
    match = _CHECKPOINT_FILE.fullmatch(name)
    return (int(match["epoch"]), match["suffix"]) if match else None


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained on one random subset, by where it lies.

    Attributes:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        subset_ratio: share of the training set, in (0, 1).
        run_id: number of the run, from 0.
    """

    zoo: pathlib.Path
    experiment: str
    subset_ratio: float
    run_id: int

    def __post_init__(self) -> None:
        check_experiment_name(self.experiment)
        ratio_name(self.subset_ratio)
        if self.run_id < 0:
            raise errors.InvalidValueError(f"run_id is {self.run_id}, expected 0 or more")

    @property
    def directory(self) -> pathlib.Path:
        """The run's folder."""
        return experiment_directory(self.zoo, self.experiment) / ratio_name(self.subset_ratio) / str(self.run_id)

    @property
    def aux_arrays_path(self) -> pathlib.Path:
        """What the finished model got right; see `zoo.aux_arrays`."""
        return self.directory / AUX_ARRAYS_NAME

    @property
    def checkpoints_directory(self) -> pathlib.Path:
        """The folder of the run's checkpoints; see `zoo.checkpoints`."""
        return self.directory / CHECKPOINTS_NAME

    def checkpoint_prefix(self, epoch: int) -> pathlib.Path:
        """What the file names of one checkpoint begin with.

        Raises:
            InvalidValueError: the epoch is negative.
        """
        if epoch < 0:
            raise errors.InvalidValueError(f"epoch is {epoch}, expected 0 or more")
        return self.checkpoints_directory / f"ckpt-{epoch}"


def check_experiment_name(experiment: str) -> None:
    """Refuses names that are no single visible folder.

    Raises:
        InvalidValueError: the name is empty, begins with a dot, or holds a path separator or a NUL.
    """
    if not experiment or experiment.startswith(".") or any(sign in experiment for sign in "/\\\0"):
        raise errors.InvalidValueError(
            f"experiment is {experiment!r}, expected the name of one folder, without separators or a leading dot"
        )


def experiment_directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The folder of one experiment."""
    check_experiment_name(experiment)
    return pathlib.Path(zoo) / experiment


def recipe_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The file that says how all runs of the experiment are trained."""
    return experiment_directory(zoo, experiment) / RECIPE_NAME


def labels_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The labels of an experiment that was trained on wrong ones on purpose; see `heldout.experiments.label_noise`."""
    return experiment_directory(zoo, experiment) / LABELS_NAME


def ranking_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """What the subsets of an experiment follow from, where they follow a ranking of the training examples."""
    return experiment_directory(zoo, experiment) / RANKING_NAME


def failures_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The runs that failed, one a line; see `heldout.training.failures`."""
    return experiment_directory(zoo, experiment) / FAILURES_NAME


def run_table_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The packed summary of all runs; see `zoo.run_table`."""
    return experiment_directory(zoo, experiment) / RUN_TABLE_NAME


def archive_index_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The index of the archive that the experiment comes from; see `zoo.archive.index`."""
    return experiment_directory(zoo, experiment) / ARCHIVE_INDEX_NAME


def published_index_path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """An index of that archive as somebody else made it: downloaded, not from a pass made here."""
    return experiment_directory(zoo, experiment) / PUBLISHED_INDEX_NAME


def scores_directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The folder of the memorization, influence and consistency scores."""
    return experiment_directory(zoo, experiment) / "scores"


def report_directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The folder of the report."""
    return experiment_directory(zoo, experiment) / "report"


def evaluation_directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The folder of what rebuilt runs predict; see `heldout.evaluation.evaluation_files`."""
    return experiment_directory(zoo, experiment) / "evaluation"


def tensorboard_directory(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The folder of TensorBoard's event files; see `heldout.watching.training_events`."""
    return experiment_directory(zoo, experiment) / TENSORBOARD_NAME


def experiments(zoo: files.PathLike) -> list[str]:
    """Names of the experiments in a zoo, sorted: folders with a recipe, a run table or a folder of runs.

    Raises:
        MissingFileError: there is no such folder.
    """
    if "://" in str(zoo):
        raise errors.MissingFileError(
            f"{zoo}: only train_runs works on zoos in a store; copy it into a folder first, as in "
            f"`gcloud storage cp -r {zoo} .`, and give that"
        )
    if not pathlib.Path(zoo).is_dir():
        raise errors.MissingFileError(f"{zoo}: no such folder; give the folder that holds the experiments")
    return [
        name
        for name in _folders(pathlib.Path(zoo))
        if not name.startswith(".") and "\\" not in name and _is_experiment(pathlib.Path(zoo), name)
    ]


def _is_experiment(zoo: pathlib.Path, name: str) -> bool:
    if recipe_path(zoo, name).is_file() or run_table_path(zoo, name).is_file():
        return True
    return any(parse_ratio(child) is not None for child in _folders(zoo / name))


def runs(zoo: files.PathLike, experiment: str, subset_ratio: float | None = None) -> list[Run]:
    """The run folders of an experiment, sorted by ratio and id, finished or not.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        subset_ratio: only the runs at this ratio, in (0, 1); None for all.

    Returns:
        The runs; an empty list where the experiment or the ratio has none. Folders whose names are not those of a
        run are ignored.
    """
    wanted = None if subset_ratio is None else ratio_name(subset_ratio)
    found = []
    directory = experiment_directory(zoo, experiment)
    for ratio_folder in _folders(directory):
        ratio = parse_ratio(ratio_folder)
        if ratio is None or wanted not in (None, ratio_folder):
            continue
        for run_folder in _folders(directory / ratio_folder):
            run_id = parse_run_id(run_folder)
            if run_id is not None:
                found.append(Run(pathlib.Path(zoo), experiment, ratio, run_id))
    return sorted(found, key=lambda run: (run.subset_ratio, run.run_id))


def run_from_directory(path: files.PathLike) -> Run:
    """The run whose folder this is, from the last three parts of the path; the folder need not exist.

    Raises:
        InvalidValueError: the path does not end in <experiment>/<subset_ratio>/<run_id>.
    """
    directory = pathlib.Path(path)
    if len(directory.parts) < 3 or ".." in directory.parts:
        directory = pathlib.Path(os.path.abspath(directory))
    ratio = parse_ratio(directory.parent.name)
    run_id = parse_run_id(directory.name)
    if ratio is None or run_id is None or not directory.parent.parent.name:
        raise errors.InvalidValueError(f"{path}: expected a run folder <zoo>/<experiment>/<subset_ratio>/<run_id>")
    return Run(directory.parents[2], directory.parent.parent.name, ratio, run_id)


def checkpoint_epochs(run: Run) -> list[int]:
    """Epochs of the run's complete checkpoints (index and data file both there), ascending."""
    index_sizes, data_sizes = checkpoint_sizes(run)
    return sorted(index_sizes.keys() & data_sizes.keys())


def checkpoint_sizes(run: Run) -> tuple[dict[int, int], dict[int, int]]:
    """Sizes in bytes of the run's index files, and of its data files, by epoch; nothing is opened."""
    sizes: dict[str, dict[int, int]] = {CHECKPOINT_INDEX_SUFFIX: {}, CHECKPOINT_DATA_SUFFIX: {}}
    try:
        with os.scandir(run.checkpoints_directory) as entries:
            for entry in entries:
                parsed = parse_checkpoint_file(entry.name)
                # A file that is being replaced can be gone between the listing and the look at it.
                with contextlib.suppress(FileNotFoundError):
                    if parsed and entry.is_file():
                        epoch, suffix = parsed
                        sizes[suffix][epoch] = entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        pass
    return sizes[CHECKPOINT_INDEX_SUFFIX], sizes[CHECKPOINT_DATA_SUFFIX]


def latest_checkpoint(run: Run) -> pathlib.Path:
    """Prefix of the run's checkpoint of the highest epoch.

    Raises:
        MissingFileError: the run has no complete checkpoint.
    """
    epochs = checkpoint_epochs(run)
    if not epochs:
        raise errors.MissingFileError(
            f"{run.checkpoints_directory}: no complete checkpoint, expected ckpt-<epoch>{CHECKPOINT_INDEX_SUFFIX} and "
            f"ckpt-<epoch>{CHECKPOINT_DATA_SUFFIX}; fetch the run or train it with checkpoints"
        )
    return run.checkpoint_prefix(epochs[-1])


def _folders(directory: pathlib.Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no such folder."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []

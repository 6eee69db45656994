"""The labels that scores carry: from the run table, else from the data set that was named or that the recipe names.

The run table is a cache. Where it was deleted and built again, it has no labels; those of an experiment that was
trained here are found again through its recipe. Labels are stored only after the data set has been held against the
recipe, and labels that are stored already are never replaced.
"""

from collections.abc import Callable, Sequence
import dataclasses

from heldout.datasets import registry as datasets
from heldout.experiments import recipes
from heldout.scoring import score_config
from zoo import errors, layout, run_scan, run_table, run_table_update


@dataclasses.dataclass(frozen=True)
class LabelledTable:
    """A run table with labels, as far as they could be found.

    Attributes:
        table: brought up to date with the run folders.
        problems: runs that were left out, with the reason.
        notes: why there are no labels, for the user; empty where there are, or where none are to be expected.
        is_checked: the labels have just been taken from the data set that was named.
    """

    table: run_table.RunTable
    problems: Sequence[run_scan.RunProblem]
    notes: tuple[str, ...] = ()
    is_checked: bool = False


def has_labels(table: run_table.RunTable) -> bool:
    """Whether the labels of both splits are known."""
    return table.train_label is not None and table.test_label is not None


def updated_table(config: score_config.ScoreConfig, progress: Callable[[int, int], None]) -> LabelledTable:
    """The run table, up to date; if it has no labels, with those of the data set that is named or that is the recipe's.

    Args:
        config: names the experiment, and perhaps the data set.
        progress: called with runs looked at and runs in all.

    Raises:
        MissingFileError: there is no finished run, or the data set that was named is not there.
        MismatchError: the data set is not the one behind the runs, or runs do not fit the table.
    """
    table, problems = run_table_update.update(config.zoo, config.experiment, progress=progress)
    if has_labels(table):
        return LabelledTable(table, problems)
    dataset, notes = _find(config)
    if dataset is None:
        return LabelledTable(table, problems, notes)
    _check(config, table, dataset)
    table, problems = run_table_update.update(
        config.zoo, config.experiment, train_label=dataset.train.label, test_label=dataset.test.label
    )
    return LabelledTable(table, problems, is_checked=True)


def check_given(config: score_config.ScoreConfig, labelled: LabelledTable) -> None:
    """Holds stored labels against the data set that was named, unless they have just come from it.

    Raises:
        MissingFileError: it is not there.
        MismatchError: it is another data set, or its labels contradict those stored.
    """
    if config.dataset is not None and not labelled.is_checked:
        _check(config, labelled.table, _load(config, config.dataset))


def _find(config: score_config.ScoreConfig) -> tuple[datasets.AnyDataset | None, tuple[str, ...]]:
    """The data set to take labels from, or None and the reason."""
    if config.dataset is not None:
        return _load(config, config.dataset), ()
    recipe = recipes.read(config.zoo, config.experiment)
    if recipe is None:
        return None, ()
    name = recipes.default_dataset(config.zoo, config.experiment)
    reason = f"{recipe.dataset_flag.removeprefix('npz:')}: no such file; give its new place as --dataset"
    if name is not None:
        try:
            return _load(config, name), ()
        except errors.MissingFileError as error:
            reason = str(error)
    return None, (
        f"The scores carry no labels: {config.experiment} was trained on {recipe.dataset['name']}, which is not on "
        f"this machine ({reason}).",
    )


def _load(config: score_config.ScoreConfig, name: str) -> datasets.AnyDataset:
    return recipes.open_dataset(config.zoo, config.experiment, name, config.data_dir)


def _check(config: score_config.ScoreConfig, table: run_table.RunTable, dataset: datasets.AnyDataset) -> None:
    """Refuses a data set that is not the one behind the runs, or whose labels contradict those stored."""
    recipes.check_dataset(config.zoo, config.experiment, dataset)
    try:
        table.with_labels(dataset.train.label, dataset.test.label)
    except errors.MismatchError as error:
        if (len(dataset.train), len(dataset.test)) != (table.num_train, table.num_test):
            raise
        raise errors.MismatchError(f"{error}. {_recovery(config, table)}") from error


def _recovery(config: score_config.ScoreConfig, table: run_table.RunTable) -> str:
    """How to get rid of wrong labels without losing the rows whose run folders are gone."""
    path = layout.run_table_path(config.zoo, config.experiment)
    runs = [run for run in layout.runs(config.zoo, config.experiment) if run.aux_arrays_path.exists()]
    there = {(run.subset_ratio, run.run_id) for run in runs}
    if there.issuperset(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True)):
        return f"If the stored labels are the wrong ones, delete {path} and run the same command again"
    return (
        f"If the stored labels are the wrong ones, fetch {path} again from where it came: it is the only copy of some "
        "runs, so do not delete it"
    )

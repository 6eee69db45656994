r"""Whether some groups of training examples score higher than others: classes, subclasses, sources, or any groups.

    python -m scripts.compare_groups --scores=/tmp/ui/unique_information.npz --experiment=/tmp/truth --by=label \
        --outdir=/tmp/groups

reads scores as detect_mislabeled does, and groups: with --experiment, a folder of ground_truth_effects, by its classes
(label, clean_label), by the labels of the data set, of which a class of --coarse_labels has several (subclass), or by
where examples come from (source: member train__source of an npz data set); or --groups, a file with train_index and a
column. To make a class or subclass rare, train with --class_counts. It writes

    /tmp/groups/groups.json      per group: mean, standard error, median, quartiles, share above the median of all; per
                                 pair of groups the chance that one scores higher than the other, with its interval
    /tmp/groups/groups.csv       the groups
    /tmp/groups/pairs.csv        the pairs
    /tmp/groups/groups_*.png     a picture of each column

A healthy run prints lines such as

    unique_information.npz: predictions, by subclass
      0  mean 0.00178 +- 0.00021  median 0.00129  above the median of all 42.0%  (100 examples)
      2  mean 0.00612 +- 0.0011   median 0.00510  above the median of all 90.0%  (10 examples)
      2 scores higher than 0 with probability 0.861 [0.701, 0.944]

Examples without a score are left out and counted. A folder with results of other flags is refused without --overwrite.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from heldout.training import leave_out_config
from scripts import choices, cli, common_flags, terminal
from scripts.unique_information import (
    changed_labels,
    example_groups,
    group_comparison,
    group_figure,
    result_tables,
    separation,
)

_SHARED_FLAGS = ("data_dir", "device")

_SCORES = flags.DEFINE_list("scores", None, "Files of scores: .npz, .parquet or .csv, with commas between them.")
_COLUMN = flags.DEFINE_list("column", ["all"], "Columns of the scores, with commas between them, or all.")
# The shared flag of this name says an experiment of a zoo.
_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "Folder of ground_truth_effects, whose examples --by groups.", allow_override=True
)
_BY = flags.DEFINE_enum("by", None, list(example_groups.BY), "What groups its examples.")
_GROUPS = flags.DEFINE_string("groups", None, "Instead: npz, Parquet or CSV with train_index and a column of groups.")
_GROUP_COLUMN = flags.DEFINE_string("group_column", None, "Column of --groups, where there are several.")
_METHOD = flags.DEFINE_enum("method", separation.METHODS[0], list(separation.METHODS), "How intervals are made.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", separation.DEFAULT_NUM_DRAWS, "Draws of the bootstrap.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random draws.", 0)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a comparison that was made with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> comparison -> files."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    columns = tuple(choices.required_list("column", _COLUMN.value))
    config = group_comparison.GroupsConfig(
        scores=tuple(choices.required_path("scores", path) for path in choices.required_list("scores", _SCORES.value)),
        outdir=choices.required_path("outdir", _OUTDIR.value),
        experiment=choices.path(_EXPERIMENT.value),
        by=_BY.value,
        groups=choices.path(_GROUPS.value),
        group_column=_GROUP_COLUMN.value,
        columns=() if columns == ("all",) else columns,
        method=_METHOD.value,
        num_draws=_NUM_DRAWS.value,
        seed=_SEED.value,
    )
    folder, settings = pathlib.Path(config.outdir), result_tables.settings(config)
    result_tables.check(folder / group_comparison.RESULTS_NAME, settings, overwrite=_OVERWRITE.value)
    known = None if config.experiment is None else changed_labels.of_experiment(config.experiment)
    found = group_comparison.compare(config, _groups(config), known)
    result_tables.clear_pictures(folder / group_comparison.RESULTS_NAME)
    rows = [row for one in found for row in one.group_rows()]
    pairs = [row for one in found for row in one.pair_rows()]
    result_tables.write_csv(folder / group_comparison.TABLE_NAME, rows)
    result_tables.write_csv(folder / group_comparison.PAIRS_NAME, pairs)
    pictures = group_figure.write(folder, found)
    result_tables.write(folder / group_comparison.RESULTS_NAME, settings, {"groups": rows, "pairs": pairs})
    result_tables.list_pictures(folder / group_comparison.RESULTS_NAME, pictures)
    for line in group_comparison.lines(found):
        print(line)
    names = (group_comparison.RESULTS_NAME, group_comparison.TABLE_NAME, group_comparison.PAIRS_NAME)
    for path in (*(folder / name for name in names), *pictures):
        print(f"written: {path}")
    return 0


def _groups(config: group_comparison.GroupsConfig) -> example_groups.ExampleGroups:
    if config.groups is not None:
        return example_groups.of_file(pathlib.Path(config.groups), config.group_column)
    assert config.experiment is not None
    assert config.by is not None
    terminal.quiet_tensorflow(leave_out_config.read(config.experiment).dataset)
    return example_groups.of_experiment(config.experiment, config.by, choices.path(common_flags.DATA_DIR.value))


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

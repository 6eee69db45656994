"""Computes memorization, subset influence and consistency from the runs of a zoo, with counts and standard errors.

    python -m scripts.compute_scores --zoo=/tmp/zoo

reads the aux_arrays.npz of every run (or run_table.npz, where they are packed) and writes into
<zoo>/<experiment>/scores, for every subset ratio apart,

    scores-0.7.npz            per training example: memorization, standard error, counts, accuracy in and held out
    influence-0.7.npz         its strongest test examples for each training example and the reverse; pairs; distribution
    subset_influence-0.7.npy  [num_train, num_test] influence of each training on each test example (--matrix)
    consistency.npz           held-out accuracy per ratio, and its mean over ratios
    examples.parquet          one row per ratio and example;  high_influence_pairs.parquet
    reliability.json          split-half correlations of all three, as runs grow
    cross_class-0.7.npz, .png, cross_class.parquet   mean influence between classes, with --cross_class
    margin_influence-0.7.npz  influence on margins (--margin_influence), of runs of train_runs --margins
    published/                the same in the file formats of the papers

A healthy run ends with "memorized (memorization >= 0.25): 51 examples, interval 47 to 55 ..." and the folder. The same
command again does nothing unless runs were added. Labels come from the zoo; for a published one, which carries none,
name the data set: --dataset=cifar100. A kill loses a tile of some thousand rows at most; --runner=ray has a cluster
compute the tiles, into a folder that all its machines share. Next: render_report --zoo=/tmp/zoo
"""

from collections.abc import Sequence
import pathlib

from absl import flags
import numpy as np

from heldout import report
from heldout.experiments import recipes
from heldout.report import cross_class_map
from heldout.scoring import class_means, margin_influence_files, score_config, score_files
from scripts import choices, cli, common_flags, runner_flags, terminal
from zoo import files

# Standard errors beyond which a mean over two classes is called more than noise, and how often noise alone gets there.
_SURE, _BY_NOISE = 3.0, 0.0027
_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)

_DEFAULTS = score_config.ScoreConfig(zoo="", experiment="")

_SUBSET_RATIO = flags.DEFINE_multi_float(
    "subset_ratio", None, "Ratios to score; without it all that have runs, each apart."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the scores; without it <zoo>/<experiment>/scores.")
_MEMORY_LIMIT_MB = flags.DEFINE_integer(
    "memory_limit_mb",
    _DEFAULTS.memory_limit_mb,
    "MiB for influence in the making, beside the run table and the margins; nothing else is bounded by it.",
)
_MATRIX = flags.DEFINE_enum(
    "matrix",
    _DEFAULTS.matrix,
    score_config.MATRIX_CHOICES,
    "Keep the matrix of subset influence, 4 bytes for each pair; auto: where it takes at most 8 GiB. All other results "
    "are the same without it.",
)
_TOP_K = flags.DEFINE_integer(
    "top_k",
    _DEFAULTS.top_k,
    "How many of the strongest test examples to keep for each training example, and the reverse.",
)
_FORMAT = flags.DEFINE_enum("format", _DEFAULTS.table_format, ["parquet", "csv"], "Format of the tables.")
_NUM_DRAWS = flags.DEFINE_integer(
    "num_draws", _DEFAULTS.num_draws, "Bootstrap draws behind the interval of the number of memorized examples."
)
_PAIRS_INFLUENCE = flags.DEFINE_float(
    "pairs_influence", _DEFAULTS.pairs_influence, "Least subset influence of a high-influence pair."
)
_PAIRS_MEMORIZATION = flags.DEFINE_float(
    "pairs_memorization", _DEFAULTS.pairs_memorization, "Least memorization of its training example."
)
_SHRINKAGE = flags.DEFINE_bool(
    "shrinkage", False, "Add to the table of examples what memorization probably is, given that of all others."
)
_MARGINS = flags.DEFINE_bool(
    "margins", False, "Add to it memorization and held-out means of margins, which runs of train_runs --margins have."
)
_CROSS_CLASS = flags.DEFINE_bool(
    "cross_class", False, "Write the mean influence of every training class on every test class, and a heat map of it."
)
_MARGIN_INFLUENCE = flags.DEFINE_bool(
    "margin_influence", False, "Write influence on margins, which runs of train_runs --margins have; on this machine."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace scores that were computed with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> scores. Status 1 if damaged runs were left out."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    config = score_config.ScoreConfig(
        zoo=zoo,
        experiment=choices.experiment(zoo, common_flags.EXPERIMENT.value),
        subset_ratios=tuple(_SUBSET_RATIO.value) if _SUBSET_RATIO.value else None,
        output=choices.path(_OUTPUT.value),
        memory_limit_mb=_MEMORY_LIMIT_MB.value,
        matrix=_MATRIX.value,
        top_k=_TOP_K.value,
        table_format=_FORMAT.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        num_draws=_NUM_DRAWS.value,
        pairs_influence=_PAIRS_INFLUENCE.value,
        pairs_memorization=_PAIRS_MEMORIZATION.value,
        shrinkage=_SHRINKAGE.value,
        margins=_MARGINS.value,
        cross_class=_CROSS_CLASS.value,
        margin_influence=_MARGIN_INFLUENCE.value,
        overwrite=_OVERWRITE.value,
        runner=runner_flags.runner(),
        device=common_flags.DEVICE.value,
    )
    terminal.quiet_tensorflow(config.dataset or recipes.default_dataset(zoo, config.experiment))
    summary = terminal.compute_scores(config)
    if config.cross_class:  # before anything is printed: a reader such as `head` may end the program there
        pictures = {ratio: cross_class_map.update(summary.directory, ratio) for ratio in summary.subset_ratios}
    saved = score_files.load_scores(summary.directory)
    for ratio in summary.subset_ratios:
        print("\n" + report.text_summary(saved, subset_ratio=ratio))
        if config.cross_class:
            _report_classes(summary.directory, ratio, pictures[ratio])
        if config.margin_influence:
            _report_margins(summary.directory, ratio)
    return 1 if any(problem.state == "damaged" for problem in summary.problems) else 0


def _report_classes(directory: pathlib.Path, ratio: float, picture: pathlib.Path) -> None:
    """Names the heat map, and says how much of it is more than noise."""
    means = class_means.read(directory / class_means.file_name(ratio))
    same = np.eye(means.num_classes, dtype=bool)
    for place, chosen in (("within a class", same), ("between two classes", ~same)):
        mean, error = means.mean[chosen], means.standard_error[chosen]
        known = error > 0
        beyond = np.count_nonzero(np.abs(mean[known]) > _SURE * error[known])
        average = np.mean(mean[known]) if known.any() else np.nan
        by_noise = np.count_nonzero(known) * _BY_NOISE
        print(
            f"mean influence {place} {average:+.2g}: {beyond} of {np.count_nonzero(known)} beyond {_SURE:g} standard "
            f"errors, {by_noise:.1g} by noise alone"
        )
    print(f"heat map: {picture}")


def _report_margins(directory: pathlib.Path, ratio: float) -> None:
    found = margin_influence_files.read(directory / f"{margin_influence_files.matrix_name(ratio)}.npz")
    left_out = f", {files.count_text(found.num_runs_without, 'run')} without left out" if found.num_runs_without else ""
    print(f"influence on margins from {files.count_text(found.num_runs, 'run')}{left_out}: largest on a test example")
    largest = found.largest_per_test[~np.isnan(found.largest_per_test)]
    if largest.size:
        print(f"  {np.median(largest):.2f} nats in the middle, {largest.max():.2f} at most")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

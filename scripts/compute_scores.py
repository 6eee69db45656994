"""Computes memorization, subset influence and consistency from the runs of a zoo, with counts and standard errors.

    python -m scripts.compute_scores --zoo=/tmp/zoo

reads the aux_arrays.npz of every run (or run_table.npz, where they are packed) and writes into
<zoo>/<experiment>/scores, for every subset ratio apart,

    scores-0.7.npz            per training example: memorization, standard error, counts, accuracy in and held out
    influence-0.7.npz         its strongest test examples for each training example and the reverse; pairs; distribution
    subset_influence-0.7.npy  [num_train, num_test] influence of each training on each test example (--matrix)
    consistency.npz           held-out accuracy per ratio, and its mean over ratios
    examples.parquet          one row per ratio and example;  high_influence_pairs.parquet
    published/                the same in the file formats of the papers

A healthy run ends with "memorized (memorization >= 0.25): 51 examples, interval 47 to 55 ..." and the folder. The same
command again does nothing unless runs were added. Labels come from the zoo; for a published one, which carries none,
name the data set: --dataset=cifar100. A kill loses a tile of some thousand rows at most; --runner=ray has a cluster
compute the tiles, into a folder that all its machines share. Next: render_report --zoo=/tmp/zoo
"""

from collections.abc import Sequence

from absl import flags

from heldout import report
from heldout.experiments import recipes
from heldout.scoring import score_config, score_files
from scripts import choices, cli, common_flags, runner_flags, terminal

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)

_DEFAULTS = score_config.ScoreConfig(zoo="", experiment="")

_SUBSET_RATIO = flags.DEFINE_multi_float(
    "subset_ratio", None, "Ratios to score; without it all that have runs, each apart."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the scores; without it <zoo>/<experiment>/scores.")
_MEMORY_LIMIT_MB = flags.DEFINE_integer(
    "memory_limit_mb",
    _DEFAULTS.memory_limit_mb,
    "MiB for subset influence in the making, beside the run table; nothing else is bounded by it.",
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
        overwrite=_OVERWRITE.value,
        runner=runner_flags.runner(),
        device=common_flags.DEVICE.value,
    )
    terminal.quiet_tensorflow(config.dataset or recipes.default_dataset(zoo, config.experiment))
    summary = terminal.compute_scores(config)
    saved = score_files.load_scores(summary.directory)
    for ratio in summary.subset_ratios:
        print("\n" + report.text_summary(saved, subset_ratio=ratio))
    return 1 if any(problem.state == "damaged" for problem in summary.problems) else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

"""Compares two sets of scores of the same examples: of two zoos, two architectures, or a zoo and a published file.

    python -m scripts.compare_scores --scores=/tmp/a/scores --scores=/tmp/b/scores --output=/tmp/compare

Each of the two is a folder that compute_scores wrote, or a published file: C-scores (npz; MNIST's npy), class-wise
influence, high-influence pairs, the ImageNet index. --statistic says what to compare; without it, the first of
memorization, consistency and influence that both have. It prints, with 95 % intervals over examples, Pearson's,
Spearman's and Kendall's correlation, and how far the most memorized (or least consistent) examples, or the pairs of
high influence, are the same, beside what chance would give; and writes into --output, where it is given,

    compare.json    all figures and options
    scatter.png     one score against the other

Where both carry labels these must agree: the message tells where they part, and whether the same examples in another
order could explain it. A healthy run prints lines such as

    order of the training examples: labels agree, so it is proved up to exchanges in a class
    spearman +0.871, 95 % interval +0.862 to +0.879 (bootstrap)
    144 most memorized: 144 and 144, 96 in both; Jaccard 0.500, 95 % interval 0.430 to 0.570, by chance 0.053

The same command again writes the same files.
"""

from collections.abc import Sequence

from absl import flags

from heldout.report import comparison
from heldout.scoring import agreement, score_sources
from scripts import choices, cli, common_flags
from zoo import errors

_SHARED_FLAGS = ("device",)

_DEFAULTS = comparison.CompareConfig(scores=("", ""))

_SCORES = flags.DEFINE_multi_string("scores", None, "The two to compare: give the flag twice, or a comma between.")
_STATISTIC = flags.DEFINE_enum(
    "statistic", None, list(score_sources.STATISTICS), "What to compare; without it the first that both have."
)
_SUBSET_RATIO = flags.DEFINE_float(
    "subset_ratio", None, "Ratio of memorization and influence in score folders; without it their only one."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of compare.json and scatter.png; without it none is written.")
_METHOD = flags.DEFINE_enum("method", _DEFAULTS.method, list(agreement.METHODS), "How intervals are made.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", _DEFAULTS.num_draws, "Bootstrap draws behind the intervals.", 1)
_TOP = flags.DEFINE_list(
    "top", None, "Sizes of the selections of extreme examples to overlap; without it 1 and 10 % of the examples."
)
_RELIABILITY = flags.DEFINE_list(
    "reliability", None, "Split-half reliabilities of the two, as 0.9,0.8, for correlations without noise."
)
_PAIRS_INFLUENCE = flags.DEFINE_float(
    "pairs_influence", _DEFAULTS.pairs_influence, "Least subset influence of a high-influence pair."
)
_PAIRS_MEMORIZATION = flags.DEFINE_float(
    "pairs_memorization", _DEFAULTS.pairs_memorization, "Least memorization of its training example."
)
_NUM_PAIRS = flags.DEFINE_integer(
    "num_pairs", _DEFAULTS.num_pairs, "Random pairs behind the correlation of two influence matrices.", 1
)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "Of all random draws.", 0)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a comparison that was made with other flags.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> comparison."""
    del argv
    choices.only_cpu(common_flags.DEVICE.value)
    config = comparison.CompareConfig(
        scores=_two_paths(choices.required_list("scores", _SCORES.value)),
        statistic=_STATISTIC.value,
        subset_ratio=_SUBSET_RATIO.value,
        output=choices.path(_OUTPUT.value),
        method=_METHOD.value,
        num_draws=_NUM_DRAWS.value,
        top=choices.integers("top", _TOP.value) if _TOP.value else None,
        reliability=_two_numbers(_RELIABILITY.value),
        pairs_influence=_PAIRS_INFLUENCE.value,
        pairs_memorization=_PAIRS_MEMORIZATION.value,
        num_pairs=_NUM_PAIRS.value,
        seed=_SEED.value,
        overwrite=_OVERWRITE.value,
    )
    found = comparison.compare(config)
    for line in comparison.lines(found):
        print(line)
    if config.output is not None:
        print(f"written: {config.output}")
    return 0


def _two_paths(texts: list[str]) -> tuple[str, str]:
    paths = texts[0].split(",") if len(texts) == 1 else texts
    if len(paths) != 2 or not all(paths):
        raise errors.UsageError(f"--scores={','.join(texts)}: expected two paths, as in --scores=A --scores=B")
    first, second = (choices.required_path("scores", path) for path in paths)
    return first, second


def _two_numbers(texts: list[str] | None) -> tuple[float, float] | None:
    if not texts:
        return None
    try:
        first, second = (float(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidValueError(
            f"--reliability={','.join(texts)}: expected two numbers above 0, at most 1, as in 0.9,0.8"
        ) from error
    return first, second


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()

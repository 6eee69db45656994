"""Two sets of scores of the same examples, side by side: what is compared, what is found, and how it is told.

Files in the output folder, where one is given:

    compare.json    every figure, the options, and whether labels proved the order of the examples
    scatter.png     one score against the other
"""

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from heldout.report import figures
from heldout.scoring import agreement, influence_sources, score_sources
from zoo import errors, files, layout

SCHEMA_VERSION = 1
JSON_NAME, CHART_NAME = "compare.json", "scatter.png"
# Memorization from which an example counts as memorized, as in Feldman & Zhang (2020).
_MEMORIZED = 0.25
_TOP_SHARES = (0.01, 0.1)
_CORRELATIONS = ("pearson", "spearman", "kendall")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """What to compare.

    Attributes:
        scores: the two paths, of any kind that `score_sources.read` reads.
        statistic: memorization, consistency or influence; None for the first that both have.
        subset_ratio: of memorization and influence in score folders; None for their only one.
        output: folder of the files; None for none.
        method: of the intervals, "bootstrap" or "fisher".
        num_draws: bootstrap draws.
        top: sizes of the selections of extreme examples whose overlap is told; None for 1 and 10 % of the examples.
        reliability: split-half reliabilities of the two scores; None where they are not known.
        pairs_influence: least subset influence of a high-influence pair.
        pairs_memorization: least memorization of its training example.
        num_pairs: random pairs behind the correlation of two matrices.
        seed: of all draws.
        overwrite: replace the files of other options.
    """

    scores: tuple[str, str]
    statistic: str | None = None
    subset_ratio: float | None = None
    output: str | None = None
    method: str = "bootstrap"
    num_draws: int = agreement.DEFAULT_NUM_DRAWS
    top: tuple[int, ...] | None = None
    reliability: tuple[float, float] | None = None
    pairs_influence: float = 0.15
    pairs_memorization: float = 0.25
    num_pairs: int = 100_000
    seed: int = 0
    overwrite: bool = False

    def options(self) -> dict[str, Any]:
        """What results depend on, as JSON has it; of the paths, zoo, experiment and folder at most."""
        value = {k: v for k, v in dataclasses.asdict(self).items() if k not in ("output", "overwrite", "scores")}
        value = {name: list(part) if isinstance(part, tuple) else part for name, part in value.items()}
        return {"scores": ["/".join(pathlib.Path(path).parts[-3:]) for path in self.scores], **value}


@dataclasses.dataclass(frozen=True)
class PairComparison:
    """High-influence pairs of one file as the other sees them.

    Attributes:
        num_pairs: pairs of the one that reach the thresholds there.
        num_known: of these, pairs that the other has a value for.
        mean: their mean influence in the one.
        other_mean: and in the other; NaN where it knows none of them.
        share_positive: of the known ones, those that help in the other too.
        share_high: of the known ones, those that reach the threshold of influence in the other.
    """

    num_pairs: int
    num_known: int
    mean: float
    other_mean: float
    share_positive: float
    share_high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        statistic: what was compared.
        sources: the two.
        proved: for "train", and for influence "test", whether labels prove the order.
        points: float64 [2, n], the values behind the correlations: of examples, or of pairs for influence.
        drawn: whether the points are a random draw of all pairs.
        correlations: of the points.
        corrected: Pearson and Spearman without noise, by name; empty where no reliabilities were given.
        overlaps: by what was selected.
        pairs: for influence, the pairs of the first in the second, and those of the second in the first; empty
            otherwise.
    """

    statistic: str
    sources: tuple[score_sources.Source, score_sources.Source]
    proved: Mapping[str, bool]
    points: np.ndarray
    drawn: bool
    correlations: agreement.Agreement
    corrected: Mapping[str, agreement.Estimate]
    overlaps: Mapping[str, agreement.Overlap]
    pairs: tuple[PairComparison, ...] = ()


def compare(config: CompareConfig) -> Comparison:
    """Reads two sets of scores and compares them; writes the files where an output folder is given.

    Args:
        config: what to compare.

    Raises:
        MissingFileError, DamagedFileError: scores cannot be read.
        MismatchError: the labels differ, or the numbers of examples do; or the output folder holds a comparison with
            other options.
        InvalidValueError: an option is not what it must be, or the two have no statistic in common.
    """
    first, second = (score_sources.read(path, config.subset_ratio) for path in config.scores)
    statistic = score_sources.common_statistic(first, second, config.statistic)
    _check_output(config)
    proved = score_sources.check_order(first, second, statistic)
    if statistic == "influence":
        found = of_pairs(config, first, second, proved)
    else:
        found = _of_examples(config, first, second, statistic, proved)
    if config.output is not None:
        write(pathlib.Path(config.output), config, found)
    return found


def _check_output(config: CompareConfig) -> None:
    """Refuses a folder with the results of other options, unless they may be replaced."""
    if config.output is None or config.overwrite:
        return
    path = pathlib.Path(config.output) / JSON_NAME
    try:
        stored = files.read_json(path)
    except errors.MissingFileError:
        return
    if stored.get("options") != config.options():
        raise errors.MismatchError(
            f"{path}: is a comparison with other options:\n  stored {stored.get('options')}\n  asked for "
            f"{config.options()}\nGive another --output, or --overwrite to replace it"
        )


def _of_examples(
    config: CompareConfig,
    first: score_sources.Source,
    second: score_sources.Source,
    statistic: str,
    proved: Mapping[str, bool],
) -> Comparison:
    x, y = score_sources.aligned(first, second, statistic)
    # The extreme end: what is memorized most, or least consistent.
    sign, word = (1, "most memorized") if statistic == "memorization" else (-1, "least consistent")
    num_known = int(np.count_nonzero(~(np.isnan(x) | np.isnan(y))))
    sizes = config.top or sorted({max(1, round(share * num_known)) for share in _TOP_SHARES})
    overlaps = {
        f"{size} {word}": agreement.overlap_of_top(sign * x, sign * y, size, seed=config.seed) for size in sizes
    }
    if statistic == "memorization":
        overlaps[f"memorization >= {_MEMORIZED:g}"] = agreement.overlap_above(x, y, _MEMORIZED)
    found = _agreement(config, x, y)
    points = np.stack([x, y])
    corrected = _corrected(config, found)
    return Comparison(statistic, (first, second), proved, points, False, found, corrected, overlaps)


def _agreement(config: CompareConfig, x: np.ndarray, y: np.ndarray) -> agreement.Agreement:
    return agreement.agreement(x, y, method=config.method, num_draws=config.num_draws, seed=config.seed)


def _corrected(config: CompareConfig, found: agreement.Agreement) -> dict[str, agreement.Estimate]:
    if config.reliability is None:
        return {}
    return {
        name: agreement.attenuation_corrected(getattr(found, name), *config.reliability)
        for name in ("pearson", "spearman")
    }


def of_pairs(
    config: CompareConfig,
    first: score_sources.Source,
    second: score_sources.Source,
    proved: Mapping[str, bool],
) -> Comparison:
    """Subset influence of two sources that have it.

    Correlations are those of all pairs listed where one of the two is a list, so of a selection by the value itself,
    which makes them smaller than those of all pairs; of two matrices, those of pairs drawn at random, most of which
    are noise in both.

    Args:
        config: options.
        first: has influence.
        second: has it too.
        proved: from `score_sources.check_order`.

    Raises:
        MismatchError: they are of different numbers of examples.
    """
    one, other = first.influence, second.influence
    assert one is not None
    assert other is not None
    if one.shape is not None and other.shape is not None and one.shape != other.shape:
        raise errors.MismatchError(
            f"{one.path} is of {one.shape[0]} training and {one.shape[1]} test examples, {other.path} of "
            f"{other.shape[0]} and {other.shape[1]}: they are of different data sets"
        )
    thresholds = config.pairs_influence, config.pairs_memorization
    high = [_covered(source.high_pairs(*thresholds), (one, other)) for source in (one, other)]
    index, drawn = _points(config, one, other)
    points = np.stack([one.values(*index), other.values(*index)])
    found = _agreement(config, *points)
    overlap = _pair_overlap(high, one, other)
    return Comparison(
        "influence",
        (first, second),
        proved,
        points,
        drawn,
        found,
        _corrected(config, found),
        {f"pairs of influence >= {thresholds[0]:g} and memorization >= {thresholds[1]:g}": overlap},
        (
            _seen_by(high[0], one, other, thresholds[0]),
            _seen_by(high[1], other, one, thresholds[0]),
        ),
    )


def _covered(pairs: np.ndarray, sources: tuple[influence_sources.InfluenceSource, ...]) -> np.ndarray:
    """Those pairs of which both files tell whether they are high."""
    return pairs[:, np.all([source.covers(*pairs) for source in sources], axis=0)]


def _points(
    config: CompareConfig, one: influence_sources.InfluenceSource, other: influence_sources.InfluenceSource
) -> tuple[np.ndarray, bool]:
    """The pairs to correlate: all that are listed, and of two matrices a random draw from the one that has fewer."""
    listed = [source.high_pairs(-math.inf, -math.inf) for source in (one, other) if source.shape is None]
    if listed:
        return np.unique(np.concatenate(listed, axis=1), axis=1), False
    drawn = min((one, other), key=lambda source: source.num_pairs).draw(
        config.num_pairs, np.random.default_rng(config.seed)
    )
    assert drawn is not None
    return drawn, True


def _pair_overlap(
    high: list[np.ndarray], one: influence_sources.InfluenceSource, other: influence_sources.InfluenceSource
) -> agreement.Overlap:
    selected = [set(zip(*pairs.tolist(), strict=True)) for pairs in high]
    # With a list alone, nobody knows how many pairs there are to choose from.
    sizes = [source.num_pairs for source in (one, other) if source.shape is not None]
    return agreement.overlap_of_counts(
        len(selected[0]), len(selected[1]), len(selected[0] & selected[1]), min(sizes, default=0)
    )


def _seen_by(
    pairs: np.ndarray,
    own: influence_sources.InfluenceSource,
    other: influence_sources.InfluenceSource,
    least_influence: float,
) -> PairComparison:
    values, seen = own.values(*pairs), other.values(*pairs)
    known = ~np.isnan(seen)
    return PairComparison(
        num_pairs=len(values),
        num_known=int(np.count_nonzero(known)),
        mean=_mean(values),
        other_mean=_mean(seen[known]),
        share_positive=_mean(seen[known] > 0),
        share_high=_mean(seen[known] >= least_influence),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def write(directory: pathlib.Path, config: CompareConfig, found: Comparison) -> None:
    """Writes compare.json and scatter.png, the figures last."""
    names = [_axis(source, found.statistic) for source in found.sources]
    chart = figures.score_scatter(*found.points, *names)
    with files.write_whole(directory / CHART_NAME) as temporary:
        temporary.write_bytes(chart.png)
    files.write_json(directory / JSON_NAME, to_json(config, found))


def _axis(source: score_sources.Source, statistic: str) -> str:
    ratio = "" if source.subset_ratio is None or statistic == "consistency" else f" at ratio {source.subset_ratio:g}"
    return f"{statistic} in {source.name}{ratio}"


def to_json(config: CompareConfig, found: Comparison) -> dict[str, Any]:
    """The figures as JSON values; null for NaN."""
    value = {
        "schema_version": SCHEMA_VERSION,
        "options": config.options(),
        "statistic": found.statistic,
        "sources": [
            {"name": source.name, "kind": source.kind, "subset_ratio": source.subset_ratio} for source in found.sources
        ],
        "order_proved": dict(found.proved),
        "drawn": found.drawn,
        "correlations": dataclasses.asdict(found.correlations),
        "corrected": {name: dataclasses.asdict(estimate) for name, estimate in found.corrected.items()},
        "overlaps": {name: dataclasses.asdict(overlap) for name, overlap in found.overlaps.items()},
        "pairs": [dataclasses.asdict(pairs) for pairs in found.pairs],
    }
    cleaned: dict[str, Any] = _without_nan(value)
    return cleaned


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(found: Comparison) -> list[str]:
    """The findings for the terminal."""
    kinds = [f"{source.name} ({source.kind}{_ratio_text(source)})" for source in found.sources]
    texts = [f"{found.statistic}: {kinds[0]} beside {kinds[1]}"]
    for side, proved in found.proved.items():
        examples = {"train": "training", "test": "test"}[side]
        if proved:
            texts.append(f"order of the {examples} examples: labels agree, so it is proved up to exchanges in a class")
        else:
            texts.append(f"order of the {examples} examples: not proved, as not both carry labels")
    counts, noun = found.correlations, "pair" if found.pairs else "example"
    drawn = " drawn at random" if found.drawn else ""
    texts.append(
        f"{files.count_text(counts.num_examples, noun)}{drawn} with both values, {counts.num_first_only} with the "
        f"first alone, {counts.num_second_only} with the second alone"
    )
    for name in _CORRELATIONS:
        estimate = getattr(counts, name)
        few = f", of {estimate.num_examples} drawn" if estimate.num_examples < counts.num_examples else ""
        texts.append(f"{name:8} {_estimate_text(estimate)} ({counts.method}{few})")
    for name, estimate in found.corrected.items():
        texts.append(f"{name:8} {_estimate_text(estimate)} without noise, by the reliabilities given")
    texts += [_overlap_text(name, overlap) for name, overlap in found.overlaps.items()]
    return texts + [_pairs_text(*numbered) for numbered in enumerate(found.pairs)]


def _ratio_text(source: score_sources.Source) -> str:
    return "" if source.subset_ratio is None else f", ratio {layout.ratio_name(source.subset_ratio)}"


def _estimate_text(estimate: agreement.Estimate) -> str:
    if math.isnan(estimate.value):
        return "not defined: too few values, or all the same"
    if math.isnan(estimate.low):
        return f"{estimate.value:+.3f}, too few values for an interval"
    return f"{estimate.value:+.3f}, 95 % interval {estimate.low:+.3f} to {estimate.high:+.3f}"


def _overlap_text(name: str, overlap: agreement.Overlap) -> str:
    jaccard = overlap.jaccard
    text = f"{name}: {overlap.num_first} and {overlap.num_second}, {overlap.num_both} in both"
    if not math.isnan(jaccard.value):
        text += f"; Jaccard {jaccard.value:.3f}, 95 % interval {jaccard.low:.3f} to {jaccard.high:.3f}"
    if not math.isnan(overlap.expected_jaccard):
        text += f", by chance {overlap.expected_jaccard:.2g}"
    tied = overlap.num_tied_first, overlap.num_tied_second
    return f"{text}; {tied[0]} and {tied[1]} of them chosen at random among equals" if any(tied) else text


def _pairs_text(number: int, pairs: PairComparison) -> str:
    own, other = ("first", "second") if number == 0 else ("second", "first")
    high = f"the {files.count_text(pairs.num_pairs, 'high pair')} of the {own}"
    if not pairs.num_known:
        return f"{high}: the {other} has a value of none of them"
    return (
        f"{high}, of mean influence {pairs.mean:+.3f}: the {other} has values of {pairs.num_known}, of mean "
        f"{pairs.other_mean:+.3f}; {pairs.share_positive:.0%} help there too, "
        f"{pairs.share_high:.0%} are high there too"
    )

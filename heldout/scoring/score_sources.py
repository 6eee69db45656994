"""Scores to compare, from whatever holds them, with the labels that prove their order.

    a folder of score files                memorization, influence (of one subset ratio; of its listed pairs where the
                                           matrix was not kept), consistency; labels
    C-score npz                            consistency; labels
    MNIST's C-scores, npy                  consistency
    class-wise influence npz               memorization, influence within classes; labels
    high-influence pairs npz               influence of the pairs listed, memorization of their training examples
    ImageNet index npz                     memorization; labels

The published formats are those of Jiang et al. (2021) and Feldman & Zhang (2020); see published_formats.py.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np

from heldout.scoring import influence_sources, published_formats, saved_scores
from zoo import errors, files, layout, npz

STATISTICS = ("memorization", "consistency", "influence")
# A member that no other of the published npz files has -> its kind.
_MARKS = {
    "tr_idx": "high-influence pairs",
    "tr_filenames": "ImageNet index",
    "scores": "C-scores",
    "tt_labels": "class-wise influence",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Scores of one data set.

    Attributes:
        path: where they were read from.
        kind: what it is, for people.
        name: of the experiment, or of the file.
        subset_ratio: behind memorization and influence; None where the file does not tell.
        vectors: by statistic, float64 [N] by original index; NaN where there is no value.
        influence: None where there is none.
        train_label: int64 [N]; None where they are not known.
        test_label: int64 [M]; None where they are not known.
    """

    path: pathlib.Path
    kind: str
    name: str
    subset_ratio: float | None = None
    vectors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    influence: influence_sources.InfluenceSource | None = None
    train_label: np.ndarray | None = None
    test_label: np.ndarray | None = None

    @property
    def statistics(self) -> tuple[str, ...]:
        """What it has, in the order of `STATISTICS`."""
        has_influence = self.influence is not None
        return tuple(name for name in STATISTICS if name in self.vectors or (name == "influence" and has_influence))


def read(path: files.PathLike, subset_ratio: float | None = None) -> Source:
    """Reads scores of any kind.

    Args:
        path: a folder of score files, an npz or an npy.
        subset_ratio: of memorization and influence in a folder; None for its only one. In a folder of several, None
            leaves consistency alone.

    Raises:
        MissingFileError: there is nothing there.
        DamagedFileError: it is none of the kinds, or not sound.
        InvalidValueError: the folder has no scores of this ratio.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _folder(path, subset_ratio)
    if path.suffix == ".npy":
        score = published_formats.read_mnist_cscores(path)
        return Source(path, "MNIST C-scores", path.name, vectors={"consistency": score})
    kind = _kind(path)
    if kind == "C-scores":
        stored = published_formats.read_cscores(path)
        return Source(path, kind, path.name, vectors={"consistency": stored.score}, train_label=stored.label)
    if kind == "high-influence pairs":
        return _pairs(path)
    if kind == "ImageNet index":
        index = published_formats.read_imagenet_index(path)
        vectors = {"memorization": index.memorization}
        return Source(
            path, kind, path.name, vectors=vectors, train_label=index.train_label, test_label=index.test_label
        )
    classes = published_formats.read_class_influence(path)
    return Source(
        path,
        kind,
        path.name,
        vectors={"memorization": classes.memorization},
        influence=influence_sources.WithinClasses(path, classes),
        train_label=classes.train_label,
        test_label=classes.test_label,
    )


def _kind(path: pathlib.Path) -> str:
    found = npz.read(path, [], list(_MARKS))
    for mark, kind in _MARKS.items():
        if mark in found:
            return kind
    raise errors.DamagedFileError(
        f"{path}: holds none of the members {', '.join(_MARKS)}, by which published score files are known; give one of "
        "those, or the folder that compute_scores wrote"
    )


def _folder(path: pathlib.Path, subset_ratio: float | None) -> Source:
    saved = saved_scores.load(path)
    if subset_ratio is not None and subset_ratio not in saved.ratios:
        there = ", ".join(layout.ratio_name(ratio) for ratio in saved.ratios)
        raise errors.InvalidValueError(
            f"--subset_ratio={subset_ratio:g}: {path} has scores at {there}; choose of these"
        )
    vectors = {"consistency": saved.consistency.score}
    if subset_ratio is None and len(saved.ratios) == 1:
        (subset_ratio,) = saved.ratios
    influence: influence_sources.InfluenceSource | None = None
    if subset_ratio is not None:
        ratio = saved.ratios[subset_ratio]
        vectors["memorization"] = ratio.memorization.values
        influence = _influence(path, ratio)
    return Source(
        path, "score files", saved.experiment, subset_ratio, vectors, influence, saved.train_label, saved.test_label
    )


def _influence(path: pathlib.Path, ratio: saved_scores.RatioScores) -> influence_sources.InfluenceSource:
    """The matrix; where it was not kept, the helpful pairs above the thresholds of the scores."""
    memorization = ratio.memorization.values
    if ratio.subset_influence is not None:
        return influence_sources.WholeMatrix(path, memorization, ratio.subset_influence)
    kept = ratio.influence
    found = kept.pairs
    helpful = found.value > 0
    train_index = found.train_index[helpful].astype(np.int64)
    pairs = published_formats.HighInfluencePairs(
        train_index=train_index,
        test_index=found.test_index[helpful].astype(np.int64),
        subset_influence=found.value[helpful].astype(np.float64),
        memorization=memorization[train_index],
    )
    return influence_sources.ListedPairs(path, pairs, kept.least_influence, kept.least_memorization)


def _pairs(path: pathlib.Path) -> Source:
    """A list; memorization is known of the training examples in it, up to the last of them."""
    stored = published_formats.read_high_influence_pairs(path)
    memorization = np.full(stored.train_index.max(initial=-1) + 1, np.nan)
    memorization[stored.train_index] = stored.memorization
    influence = influence_sources.ListedPairs(path, stored)
    return Source(path, "high-influence pairs", path.name, vectors={"memorization": memorization}, influence=influence)


def common_statistic(first: Source, second: Source, wanted: str | None) -> str:
    """The statistic to compare: the wanted one, or the first that both have.

    Raises:
        InvalidValueError: one of the two does not have it, or they have none in common.
    """
    common = [name for name in first.statistics if name in second.statistics]
    if wanted is None and common:
        # Pairs tell memorization only of a selection of examples; what they are about is influence.
        return "influence" if "influence" in common and (_is_list(first) or _is_list(second)) else common[0]
    if wanted in common:
        assert wanted is not None
        return wanted
    texts = [f"{source.path} ({source.kind}) has {_offer(source)}" for source in (first, second)]
    asked = "nothing in common to compare" if wanted is None else f"--statistic={wanted}"
    raise errors.InvalidValueError(f"{asked}: {' and '.join(texts)}; choose one that both have, or other scores")


def _is_list(source: Source) -> bool:
    return source.kind == "high-influence pairs"


def _offer(source: Source) -> str:
    text = ", ".join(source.statistics)
    several = source.kind == "score files" and source.influence is None
    return f"{text} (and more where --subset_ratio chooses one of its ratios)" if several else text


def aligned(first: Source, second: Source, statistic: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of both, as vectors of one length.

    Args:
        first: has this statistic.
        second: has it too.
        statistic: "memorization" or "consistency".

    Raises:
        MismatchError: they are of different numbers of examples.
    """
    vectors = [source.vectors[statistic] for source in (first, second)]
    lengths = [len(vector) for vector in vectors]
    known = [length for source, length in zip((first, second), lengths, strict=True) if not _is_list(source)]
    if len(set(known)) > 1 or (known and max(lengths) > max(known)):
        raise errors.MismatchError(
            f"{first.path} has scores of {lengths[0]} examples, {second.path} of {lengths[1]}: they are of different "
            "data sets, or of parts of one"
        )
    # A list ends with the last example that it names.
    padded = [np.pad(vector, (0, max(lengths) - len(vector)), constant_values=np.nan) for vector in vectors]
    return padded[0], padded[1]


def check_order(first: Source, second: Source, statistic: str) -> dict[str, bool]:
    """Holds the labels of both against one another.

    Equal labels prove the order up to exchanges within a class.

    Args:
        first: scores.
        second: others.
        statistic: which is to be compared; test labels matter for influence only.

    Returns:
        For "train", and for influence "test", whether the order is proved: False where one of the two has no labels.

    Raises:
        MismatchError: the labels differ. The message tells where they part and how many differ, and whether another
            order of the same examples could explain it.
    """
    proved = {}
    for side in ("train", "test") if statistic == "influence" else ("train",):
        labels = [getattr(source, f"{side}_label") for source in (first, second)]
        proved[side] = all(label is not None for label in labels)
        if proved[side]:
            _check_labels(first, second, side, *labels)
    return proved


def _check_labels(first: Source, second: Source, side: str, label: np.ndarray, other: np.ndarray) -> None:
    where = f"{first.path} and {second.path}"
    if len(label) != len(other):
        raise errors.MismatchError(
            f"{where}: have {len(label)} and {len(other)} {side} labels; they are of different data sets"
        )
    differing = np.flatnonzero(label != other)
    if not len(differing):
        return
    index = differing[0]
    raise errors.MismatchError(
        f"{where}: the {side} labels part at index {index}, where the first has {label[index]} and the second "
        f"{other[index]}; {len(differing)} of {len(label)} differ. {_explanation(label, other)}"
    )


def _explanation(label: np.ndarray, other: np.ndarray) -> str:
    """Whether a permutation of examples could make the labels equal."""
    classes = np.union1d(label, other)
    counts = [np.bincount(np.searchsorted(classes, of), minlength=len(classes)) for of in (label, other)]
    unequal = np.flatnonzero(counts[0] != counts[1])
    if not len(unequal):
        return (
            "Every label is there equally often in both, so they may be the same examples in another order: bring one "
            "of the two into the order of the other"
        )
    which = unequal[0]
    return (
        f"No reordering explains that: label {classes[which]} is there {counts[0][which]} times in the first and "
        f"{counts[1][which]} times in the second. They are of different data sets, or labels were changed"
    )

"""Wrong labels on purpose: an exact number of training labels is changed, from a seed of its own.

Which examples are changed, and to what, follows from the label seed and the clean labels alone; no run, subset or
initialisation draws from it. The words of two purposes ("order", "offset") come from Philox generators whose keys are
the first 128 bits of

    SHA-256("heldout-labels-1/<seed>/<purpose>")

and the examples that are changed are the first ones of the permutation "order", among those whose class can change.
So a larger share with the same seed changes the same examples and further ones.

    symmetric    to another class, each as likely: (label + offset) mod K with a uniform offset in 1..K-1
    pair         to the next class: (label + 1) mod K
    asymmetric   by a map of classes; only examples of its classes change (Patrini et al. 2017 for the known maps)
    class_conditional   by a share for each pair of classes, of the examples of the first: the rows of a transition
                 matrix, of which exact numbers are drawn

The number of changed examples is a share of all N examples, also where a map leaves most classes alone; of
class-conditional noise it follows from the shares.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import re
import types
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from heldout import subsets
from zoo import errors, files, npz

CLASS_CONDITIONAL = "class_conditional"
KINDS = ("symmetric", "asymmetric", "pair", CLASS_CONDITIONAL)
SCHEMA_VERSION = 1
_SCHEME = "heldout-labels-1"
_MOST = 10**15
_DIGITS = ((2, 7), (3, 8), (5, 6), (6, 5), (7, 1))
# Truck to automobile, bird to airplane, deer to horse, cat and dog to each other.
_CIFAR10 = ((2, 0), (3, 5), (4, 7), (5, 3), (9, 1))
# The maps that "asymmetric" takes for a data set where none is given; digits has the classes of MNIST.
CLASS_MAPS: Mapping[str, tuple[tuple[int, int], ...]] = types.MappingProxyType(
    {"mnist": _DIGITS, "digits": _DIGITS, "cifar10": _CIFAR10}
)


class _Labelled(Protocol):
    """What labels can be changed of: data sets in memory, and image records."""

    @property
    def name(self) -> str: ...

    @property
    def train(self) -> Any: ...

    @property
    def test(self) -> Any: ...

    @property
    def num_classes(self) -> int: ...

    def with_train_label(self, label: np.ndarray) -> Self: ...


AnyDataset = TypeVar("AnyDataset", bound=_Labelled)


@dataclasses.dataclass(frozen=True)
class LabelNoise:
    """How training labels are changed.

    Attributes:
        kind: one of `KINDS`.
        share: of all N training examples, in [0, 1]; round(share * N) are changed. None where `count` is given, and for
            class-conditional noise.
        count: how many are changed; None where `share` is given, and for class-conditional noise.
        seed: of the changes, 0 or more; nothing else draws from it.
        class_map: for "asymmetric", pairs (class, its new class) by ascending class; empty for the map that is known
            for the data set.
        transitions: for "class_conditional", (class, its new class, share of the examples of the class), ascending.

    Raises:
        InvalidValueError: a value is of another type or outside its range.
    """

    kind: str
    share: float | None = None
    count: int | None = None
    seed: int = 0
    class_map: tuple[tuple[int, int], ...] = ()
    transitions: tuple[tuple[int, int, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise errors.InvalidValueError(f"--label_noise={self.kind}: expected one of none, {', '.join(KINDS)}")
        self._check_amount()
        if not _is_whole(self.seed) or not 0 <= self.seed <= _MOST:
            raise errors.InvalidValueError(f"--label_seed={self.seed}: expected a whole number from 0 to {_MOST}")
        if self.class_map and self.kind != "asymmetric":
            raise errors.InvalidValueError(f"--label_map: {self.kind} noise takes none; use --label_noise=asymmetric")
        if not _is_map(self.class_map):
            raise errors.InvalidValueError(
                f"--label_map={dict(self.class_map)}: expected other classes by class, like {{7: 1, 2: 7}}, each from 0"
            )

    def _check_amount(self) -> None:
        if self.kind == CLASS_CONDITIONAL:
            if self.share is not None or self.count is not None or not _are_transitions(self.transitions):
                raise errors.InvalidValueError(
                    f"--label_noise={self.kind} with --label_map={_nested(self.transitions)}: expected shares above 0 "
                    'of each class that go to others, together 1 at most, like {"3": {"5": 0.3, "8": 0.1}}, and no '
                    "share or number behind the kind"
                )
            return
        given = self.share if self.count is None else self.count
        if (self.share is None) == (self.count is None) or not _fits(self.share, self.count) or self.transitions:
            raise errors.InvalidValueError(
                f"--label_noise={self.kind}:{given}: expected a share in 0.0 to 1.0, or a whole number of examples; "
                f"shares between classes go with --label_noise={CLASS_CONDITIONAL}"
            )

    def num_changed(self, label: np.ndarray) -> int:
        """How many of clean labels [N] are changed."""
        if self.kind == CLASS_CONDITIONAL:
            return sum(stop for _, _, stop in _last_stops(self, label))
        return round(self.share * len(label)) if self.share is not None else int(self.count or 0)

    def amount(self) -> str:
        """What stands behind the kind on a command line: a share, a number, or nothing."""
        if self.kind == CLASS_CONDITIONAL:
            return ""
        return str(self.count) if self.share is None else np.format_float_positional(self.share, trim="0")

    def map_json(self) -> dict[str, Any]:
        """What --label_map is given, as JSON; empty for none."""
        return _nested(self.transitions) or {str(old): new for old, new in self.class_map}

    def for_dataset(self, name: str) -> "LabelNoise":
        """The same with the map of classes that is known for a data set, where one is needed and none was given.

        Raises:
            InvalidValueError: none is known.
        """
        if self.kind != "asymmetric" or self.class_map:
            return self
        if name not in CLASS_MAPS:
            raise errors.InvalidValueError(
                f"--label_noise=asymmetric: no map of classes is known for {name}, only for {', '.join(CLASS_MAPS)}; "
                'give one, such as --label_map={"7": 1, "2": 7}'
            )
        return dataclasses.replace(self, class_map=CLASS_MAPS[name])

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        stored = dataclasses.asdict(self) | {"class_map": {str(old): new for old, new in self.class_map}}
        transitions = stored.pop("transitions")
        return stored | ({"transitions": _nested(transitions)} if transitions else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            InvalidValueError: members are missing or unknown, or values are of another type or outside their range.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"transitions"}
        maps = [value.get("class_map"), value.get("transitions", {})]
        if set(value) - {"transitions"} != names or not all(isinstance(one, dict) for one in maps):
            raise errors.InvalidValueError(f"label noise {dict(value)}: expected the members {sorted(names)}")
        parsed = {"class_map": class_map(value["class_map"]), "transitions": transitions(value.get("transitions", {}))}
        return cls(**(dict(value) | parsed))


def parse(text: str, seed: int, stored_map: Mapping[str, Any] | None = None) -> LabelNoise | None:
    """The noise of "symmetric:0.2" (a share), "pair:300" (a number of examples), "class_conditional"; None for "none".

    Raises:
        InvalidValueError: not of this form, or a map or a value that does not fit.
    """
    if text == CLASS_CONDITIONAL:
        return LabelNoise(text, seed=seed, transitions=transitions(stored_map or {}))
    pairs = class_map(stored_map or {})
    if text == "none":
        if pairs:
            raise errors.InvalidValueError("--label_map: there is no noise to map; give --label_noise=asymmetric:0.2")
        return None
    kind, _, amount = text.partition(":")
    if re.fullmatch("[0-9]{1,15}", amount):
        return LabelNoise(kind, count=int(amount), seed=seed, class_map=pairs)
    if not re.fullmatch(r"[0-9]*\.[0-9]+", amount):
        raise errors.InvalidValueError(
            f"--label_noise={text}: expected none, or a kind ({', '.join(KINDS[:-1])}) with a share or a number of "
            f"examples, like symmetric:0.2 or pair:300, or {CLASS_CONDITIONAL} with --label_map"
        )
    return LabelNoise(kind, share=float(amount), seed=seed, class_map=pairs)


def class_map(value: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The pairs of a JSON object of classes.

    Raises:
        InvalidValueError: a key or value is no class.
    """
    if not all(re.fullmatch("[0-9]{1,9}", old) and _is_whole(new) for old, new in value.items()):
        raise errors.InvalidValueError(f'--label_map={dict(value)}: expected classes by class, like {{"7": 1, "2": 7}}')
    return tuple(sorted((int(old), new) for old, new in value.items()))


def transitions(value: Mapping[str, Any]) -> tuple[tuple[int, int, float], ...]:
    """The shares of a JSON object of classes whose values are objects of shares by class.

    Raises:
        InvalidValueError: a key is no class, or a value no share.
    """
    rows = [(old, new, share) for old, row in value.items() for new, share in _items(row)]
    classes = all(re.fullmatch("[0-9]{1,9}", str(name)) for old, new, _ in rows for name in (old, new))
    if not (classes and all(_fits(share, None) for *_, share in rows) and all(map(_items, value.values()))):
        raise errors.InvalidValueError(
            f'--label_map={dict(value)}: expected shares by new class by class, like {{"3": {{"5": 0.3, "8": 0.1}}}}'
        )
    return tuple(sorted((int(old), int(new), float(share)) for old, new, share in rows))


def noisy_labels(noise: LabelNoise, label: np.ndarray, num_classes: int, among: np.ndarray | None = None) -> np.ndarray:
    """The changed labels.

    Args:
        noise: with its map of classes, where it needs one.
        label: clean labels, int64 [N], in 0..K-1.
        num_classes: K.
        among: positions of the examples that may change, each once, of which shares are; None for all. Whether one of
            them comes before another, and to what it changes, does not depend on which others there are.

    Returns:
        int64 [N]; exactly `noise.num_changed(label[among])` entries differ from `label`.

    Raises:
        InvalidValueError: the map names a class that is not there, K is 1, or fewer examples than asked for are of a
            class that can change.
    """
    pairs = [*noise.class_map, *((old, new) for old, new, _ in noise.transitions)]
    if num_classes < 2 or any(max(pair) >= num_classes for pair in pairs):
        raise errors.InvalidValueError(
            f"--label_noise={noise.kind} with --label_map={noise.map_json()}: the data set has the classes 0 to "
            f"{num_classes - 1}; labels change from one of them to another"
        )
    order = subsets.permutation(_key(noise.seed, "order"), len(label))
    if among is not None:
        order = order[np.isin(order, among)]
    if noise.kind == CLASS_CONDITIONAL:
        return _by_class(noise, label, order)
    targets = _targets(noise, label, num_classes)
    able = order[targets[order] != label[order]]
    count = noise.num_changed(label[order])
    if count > len(able):
        raise errors.InvalidValueError(
            f"--label_noise={noise.kind}: {count} labels are to change, but only {len(able)} of {len(order)} training "
            "examples are of a class that can; ask for fewer"
        )
    changed = label.copy()
    changed[able[:count]] = targets[able[:count]]
    return changed


def apply(noise: LabelNoise, dataset: AnyDataset) -> AnyDataset:
    """A data set with changed training labels; images and test labels are the same.

    Raises:
        InvalidValueError: as `noisy_labels`.
    """
    return dataset.with_train_label(noisy_labels(noise, dataset.train.label, dataset.num_classes))


def write_labels(path: files.PathLike, clean: AnyDataset, noisy: AnyDataset) -> None:
    """Writes the labels of an experiment with and without noise; does nothing where they are there.

    Raises:
        MismatchError: the file holds others.
    """
    labels = {
        "schema_version": np.asarray(SCHEMA_VERSION),
        "train_label": noisy.train.label,
        "clean_train_label": clean.train.label,
        "is_changed": noisy.train.label != clean.train.label,
        "test_label": clean.test.label,
    }
    try:
        stored = npz.read(path, list(labels))
    except errors.MissingFileError:
        npz.write(path, labels)
        return
    if not all(np.array_equal(stored[name], array) for name, array in labels.items()):
        raise errors.MismatchError(
            f"{path}: holds other labels than those that follow from the recipe; delete it, it is written again"
        )


def read_clean_label(path: files.PathLike, train_label: np.ndarray | None) -> np.ndarray | None:
    """The training labels before some were changed on purpose, int64 [N]; None for an experiment without noise.

    Args:
        path: labels.npz of the experiment.
        train_label: the labels that it is trained with, int64 [N]; None where they are not known.

    Raises:
        DamagedFileError: the file is unsound.
        MismatchError: it belongs to other labels.
    """
    try:
        stored = npz.read(path, ["train_label", "clean_train_label"])
    except errors.MissingFileError:
        return None
    if train_label is None:
        return None
    if not np.array_equal(stored["train_label"], train_label):
        raise errors.MismatchError(
            f"{path}: is of other labels than the run table beside it; delete it and train again"
        )
    return stored["clean_train_label"].astype(np.int64)


def _targets(noise: LabelNoise, label: np.ndarray, num_classes: int) -> np.ndarray:
    """What each label would change to, int64 [N]; the label itself where its class cannot change."""
    if noise.kind == "symmetric":
        offsets = subsets.random_integers(_key(noise.seed, "offset"), label.shape, num_classes - 1)
        return (label + 1 + offsets) % num_classes
    if noise.kind == "pair":
        return (label + 1) % num_classes
    new_class = np.arange(num_classes)
    for old, new in noise.class_map:
        new_class[old] = new
    return new_class[label]


def _by_class(noise: LabelNoise, label: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Class-conditional noise: of each class's examples in the order of the seed the first ones, block by block."""
    changed, start = label.copy(), dict.fromkeys((old for old, *_ in noise.transitions), 0)
    for old, new, stop in _stops(noise, label[order]):
        members = order[label[order] == old]
        changed[members[start[old] : stop]] = new
        start[old] = stop
    return changed


def _stops(noise: LabelNoise, label: np.ndarray) -> list[tuple[int, int, int]]:
    """(class, new class, how many of the class have changed with this one): cumulative shares, rounded."""
    found, total = [], dict.fromkeys((old for old, *_ in noise.transitions), 0.0)
    for old, new, share in noise.transitions:
        total[old] += share
        found.append((old, new, round(min(total[old], 1.0) * int(np.sum(label == old)))))
    return found


def _last_stops(noise: LabelNoise, label: np.ndarray) -> list[tuple[int, int, int]]:
    """Those of the last new class of each class."""
    return list({old: (old, new, stop) for old, new, stop in _stops(noise, label)}.values())


def _items(row: Any) -> list[tuple[Any, Any]]:
    return list(row.items()) if isinstance(row, Mapping) else []


def _nested(rows: Sequence[tuple[int, int, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for old, new, share in rows:
        found.setdefault(str(old), {})[str(new)] = share
    return found


def _are_transitions(rows: Sequence[tuple[int, int, float]]) -> bool:
    total: dict[int, float] = {}
    for old, new, share in rows:
        if old == new or min(old, new) < 0 or not 0 < share <= 1:
            return False
        total[old] = total.get(old, 0.0) + share
    pairs = [(old, new) for old, new, _ in rows]
    return bool(rows) and pairs == sorted(set(pairs)) and max(total.values()) <= 1 + 1e-9


def _key(seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{_SCHEME}/{seed}/{purpose}".encode()).digest()[:16], "little")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fits(share: Any, count: Any) -> bool:
    if count is not None:
        return _is_whole(count) and 0 <= count <= _MOST
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1


def _is_map(pairs: Any) -> bool:
    classes = [old for old, _ in pairs]
    return classes == sorted(set(classes)) and all(old != new and min(old, new) >= 0 for old, new in pairs)

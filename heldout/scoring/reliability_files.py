"""How reliable the scores of one experiment are: reliability.json in the folder of its score files.

    memorization, subset influence    split-half reliability at every ratio, for growing numbers of runs
    consistency                       the same, of runs of all ratios
    strongest pairs                   what other runs find of the influence for which some runs chose them
    accuracy when held out            of every ratio, mean over runs with its standard error

Reliability is a correlation over examples, and a random part of them tells it well: with 8192 examples its error is
about 0.01 at most. So the time does not grow with the data set, and little memory is taken.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import pair_reliability, reliability, saved_scores, scores
from zoo import errors, files, packed_bits, run_table

SCHEMA_VERSION = 1
NAME = "reliability.json"
STATISTICS = ("memorization", "consistency", "subset_influence")
_MAX_EXAMPLES = 1 << 13
_MAX_PAIRS = 1 << 16
_NUM_DRAWS = 5
_SEED = 0
# Runs of which the sampled bits are unpacked at a time.
_ROWS = 256
_REPAIR = "; delete it and compute the scores again"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Split-half reliability of one statistic.

    Attributes:
        statistic: one of `STATISTICS`.
        subset_ratios: the ratios whose runs are behind it.
        num_all_runs: runs of each ratio that there are; of the ratio with the fewest, where they differ.
        reliability: for growing numbers of runs, up to half of these.
    """

    statistic: str
    subset_ratios: tuple[float, ...]
    num_all_runs: int
    reliability: reliability.Reliability

    @property
    def of_all_runs(self) -> float:
        """What Spearman and Brown predict for all runs; NaN where too little is known."""
        found = self.reliability
        if not found.is_telling(-1):
            return float("nan")
        mean = found.pearson[-1].mean()
        return float(reliability.predicted(mean, found.num_runs[-1], np.array(self.num_all_runs)))


@dataclasses.dataclass(frozen=True)
class HeldoutAccuracy:
    """Mean over the runs of one ratio of their accuracy on what they held out; its error is NaN of a single run."""

    subset_ratio: float
    num_runs: int
    mean: float
    standard_error: float


@dataclasses.dataclass(frozen=True)
class SavedReliability:
    """The content of reliability.json.

    Attributes:
        curves: memorization and subset influence of every ratio that has two runs; consistency, where all have.
        strongest: of the same ratios, what was found again of the strongest pairs.
        heldout_accuracy: of every ratio, ascending.
        num_draws: random halvings behind every figure.
        num_train_sampled: training examples that were looked at.
        num_test_sampled: test examples that were looked at.
        notes: sentences about ratios with too few runs.
    """

    curves: tuple[Curve, ...]
    strongest: Mapping[float, pair_reliability.Strongest]
    heldout_accuracy: tuple[HeldoutAccuracy, ...]
    num_draws: int
    num_train_sampled: int
    num_test_sampled: int
    notes: tuple[str, ...]

    def curve(self, statistic: str, subset_ratio: float | None = None) -> Curve | None:
        """The curve of a statistic, of one ratio where it belongs to one; None where there is none."""
        for one in self.curves:
            if one.statistic == statistic and (subset_ratio is None or one.subset_ratios == (subset_ratio,)):
                return one
        return None


def compute(
    table: run_table.RunTable,
    subset_ratios: Sequence[float],
    *,
    num_draws: int = _NUM_DRAWS,
    max_examples: int = _MAX_EXAMPLES,
    max_pairs: int = _MAX_PAIRS,
    seed: int = _SEED,
) -> SavedReliability:
    """Everything in the file.

    Args:
        table: all runs of an experiment.
        subset_ratios: which of its ratios.
        num_draws: random halvings of the runs.
        max_examples: at most so many training, and so many test examples are looked at, a random part.
        max_pairs: at most so many pairs behind the reliability of subset influence.
        seed: of halvings, examples and pairs.

    Cost: about num_draws times that of memorization of the examples looked at, and 24 T bytes for each eight of them.
    """
    part = sampled(table, max_examples, seed)
    part = part.take(np.flatnonzero(np.isin(part.subset_ratio, subset_ratios)))
    train_index, test_index = _random_pairs(part.num_train, part.num_test, max_pairs, seed)
    curves, strongest, notes = [], {}, []

    def add(statistic: str, runs: run_table.RunTable, score: reliability.Score, *, ranks: bool) -> None:
        found = reliability.split_half(runs, score, num_draws=num_draws, seed=seed, ranks=ranks)
        num_all_runs = min(int((runs.subset_ratio == ratio).sum()) for ratio in runs.subset_ratios)
        curves.append(Curve(statistic, runs.subset_ratios, num_all_runs, found))

    for ratio in part.subset_ratios:
        runs = part.select(ratio)
        if lacking := reliability.too_few_runs(np.array([ratio]), np.array([runs.num_runs])):
            notes.append(lacking)
            continue
        add("memorization", runs, _memorization, ranks=True)
        add(
            "subset_influence",
            runs,
            lambda half: pair_reliability.influence_of_pairs(half, train_index, test_index),
            ranks=False,
        )
        strongest[ratio] = pair_reliability.strongest_found_again(runs, num_draws=num_draws, seed=seed)
    if not notes:
        add("consistency", part, lambda half: scores.consistency(half).score, ranks=True)
    accuracy = reliability.heldout_accuracy(table)
    by_ratio = tuple(_heldout_accuracy(ratio, accuracy[table.subset_ratio == ratio]) for ratio in part.subset_ratios)
    sizes = (num_draws, part.num_train, part.num_test)
    return SavedReliability(tuple(curves), strongest, by_ratio, *sizes, tuple(notes))


def _memorization(runs: run_table.RunTable) -> np.ndarray:
    return scores.memorization_from_counts(scores.count_sides_of(runs)).values


def _heldout_accuracy(ratio: float, accuracy: np.ndarray) -> HeldoutAccuracy:
    error = reliability.standard_error_of_mean(accuracy)
    return HeldoutAccuracy(ratio, len(accuracy), float(accuracy.mean()), error)


def sampled(table: run_table.RunTable, max_examples: int, seed: int) -> run_table.RunTable:
    """The table of a random part of its examples, without labels; the table itself where that is all of them.

    Args:
        table: N training and M test examples.
        max_examples: at most so many of either.
        seed: of the choice.
    """
    if max(table.num_train, table.num_test) <= max_examples:
        return table
    generator = np.random.default_rng(seed)
    train, test = (
        np.sort(generator.choice(size, min(size, max_examples), replace=False))
        for size in (table.num_train, table.num_test)
    )
    return dataclasses.replace(
        table,
        num_train=len(train),
        num_test=len(test),
        subset_mask_bits=_columns(table.subset_mask_bits, train),
        train_correctness_bits=_columns(table.train_correctness_bits, train),
        test_correctness_bits=_columns(table.test_correctness_bits, test),
        train_label=None,
        test_label=None,
    )


def _columns(bits: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Some columns of a bit matrix, packed again, a few rows at a time."""
    out = np.empty((len(bits), -(-len(columns) // 8)), np.uint8)
    shift = (columns % 8).astype(np.uint8)
    for start in range(0, len(bits), _ROWS):
        rows = slice(start, start + _ROWS)
        out[rows] = packed_bits.pack((bits[rows][:, columns // 8] >> shift) & np.uint8(1))
    return out


def _random_pairs(num_train: int, num_test: int, max_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and test index of random pairs; of all where they are few."""
    if num_train * num_test <= max_pairs:
        rows, columns = np.indices((num_train, num_test))
        return rows.ravel(), columns.ravel()
    generator = np.random.default_rng([seed, 1])
    return generator.integers(num_train, size=max_pairs), generator.integers(num_test, size=max_pairs)


def write(
    directory: pathlib.Path, table: run_table.RunTable, subset_ratios: Sequence[float], provenance: Mapping[str, Any]
) -> None:
    """Computes and writes reliability.json, whole or not at all.

    Args:
        directory: folder of the score files.
        table: all runs of the experiment.
        subset_ratios: which of its ratios.
        provenance: of the computation that the file belongs to.
    """
    files.write_json(directory / NAME, to_json(compute(table, subset_ratios), provenance))


def to_json(saved: SavedReliability, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file."""
    return {
        "schema_version": SCHEMA_VERSION,
        saved_scores.PROVENANCE: dict(provenance),
        "num_draws": saved.num_draws,
        "num_train_sampled": saved.num_train_sampled,
        "num_test_sampled": saved.num_test_sampled,
        "curves": [
            {
                "statistic": curve.statistic,
                "subset_ratios": list(curve.subset_ratios),
                "num_all_runs": curve.num_all_runs,
                **reliability.to_json(curve.reliability),
            }
            for curve in saved.curves
        ],
        "strongest_pairs": [
            {
                "subset_ratio": ratio,
                "num_runs": found.num_runs.tolist(),
                "chosen": reliability.with_null(found.chosen),
                "again": reliability.with_null(found.again),
                "num_pairs": found.num_pairs.tolist(),
            }
            for ratio, found in saved.strongest.items()
        ],
        "heldout_accuracy": [
            dataclasses.asdict(one) | {"standard_error": reliability.with_null(np.array(one.standard_error))}
            for one in saved.heldout_accuracy
        ],
        "notes": list(saved.notes),
    }


def read(directory: files.PathLike, provenance: Mapping[str, Any]) -> SavedReliability | None:
    """Reads reliability.json; None where there is none, as beside scores of earlier versions.

    Args:
        directory: folder of the score files.
        provenance: of the computation that it must belong to.

    Raises:
        DamagedFileError: it is not what `write` writes, of another schema version, or of another computation.
    """
    path = pathlib.Path(directory) / NAME
    if not path.exists():
        return None
    value = files.read_json(path)
    if value.get("schema_version") != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {value.get('schema_version')}, expected {SCHEMA_VERSION}{_REPAIR}"
        )
    if value.get(saved_scores.PROVENANCE) != json.loads(saved_scores.provenance_text(provenance)):
        raise errors.DamagedFileError(f"{path}: belongs to another computation than the scores beside it{_REPAIR}")
    try:
        return _from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise errors.DamagedFileError(f"{path}: not what compute_scores writes ({error!r}){_REPAIR}") from error


def _from_json(value: Mapping[str, Any]) -> SavedReliability:
    curves = [
        Curve(
            one["statistic"],
            tuple(one["subset_ratios"]),
            one["num_all_runs"],
            reliability.from_json(one, len(one["subset_ratios"])),
        )
        for one in value["curves"]
    ]
    strongest = {
        one["subset_ratio"]: pair_reliability.Strongest(
            np.array(one["num_runs"], np.int64),
            np.array(one["chosen"], np.float64),
            np.array(one["again"], np.float64),
            np.array(one["num_pairs"], np.int64),
        )
        for one in value["strongest_pairs"]
    }
    accuracy = [
        HeldoutAccuracy(
            one["subset_ratio"], one["num_runs"], one["mean"], float(np.array(one["standard_error"], np.float64))
        )
        for one in value["heldout_accuracy"]
    ]
    sizes = (value["num_draws"], value["num_train_sampled"], value["num_test_sampled"])
    return SavedReliability(tuple(curves), strongest, tuple(accuracy), *sizes, tuple(value["notes"]))

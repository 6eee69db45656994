"""Tables of `compute_jacobian_stats` read again: found, and shards joined; needs no TensorFlow."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from scripts.jacobian_stats import stats_files
from zoo import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A table in a file.

    Attributes:
        path: where.
        table: what it is of.
    """

    path: pathlib.Path
    table: stats_files.Table

    @property
    def group(self) -> tuple[Any, ...]:
        """What shards of one another have in common."""
        table = self.table
        return (*table.group, table.seed, table.split, table.skip, _text(table.num_examples), table.epoch)


@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """All examples that were asked for, at one checkpoint.

    Attributes:
        table: what it is of, as if it had not been cut into shards.
        arrays: columns by name, in the order of the split.
        paths: of the shards.
    """

    table: stats_files.Table
    arrays: Mapping[str, np.ndarray]
    paths: tuple[pathlib.Path, ...]


def find(places: Sequence[str]) -> list[Stored]:
    """All tables in files, and in folders and whatever lies below them, sorted by path.

    Raises:
        MissingFileError: a place is not there, or holds no table.
        DamagedFileError: a table is damaged.
    """
    paths: set[pathlib.Path] = set()
    for place in places:
        path = pathlib.Path(place)
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = [one for one in path.rglob("stats_*.parquet") if stats_files.is_table_name(one.name)]
        else:
            raise errors.MissingFileError(f"{place}: there is no such file or folder; check the path")
        if not found:
            raise errors.MissingFileError(
                f"{place}: holds no table stats_*.parquet; run compute_jacobian_stats for it first"
            )
        paths.update(one.resolve() for one in found)
    return [Stored(path, stats_files.read_description(path)) for path in sorted(paths)]


def grouped(tables: Iterable[Stored]) -> list[list[Stored]]:
    """Tables of the same model, examples and checkpoint together, sorted by these."""
    groups: dict[tuple[Any, ...], list[Stored]] = {}
    for one in tables:
        groups.setdefault(one.group, []).append(one)
    return [groups[key] for key in sorted(groups)]


def whole(tables: Sequence[Stored]) -> Whole:
    """The whole table of a group: one that is whole, or its shards joined.

    Raises:
        MismatchError: shards overlap, are missing, or are of other settings or weights.
    """
    complete = [one for one in tables if one.table.shard == (1, 1)]
    if len(complete) > 1:
        raise errors.MismatchError(
            f"{complete[0].path} and {complete[1].path}: are of the same examples and checkpoint; give one of them"
        )
    if complete:
        only = complete[0]
        return Whole(only.table, stats_files.read_arrays(only.path), (only.path,))
    return joined(tables)


def joined(tables: Sequence[Stored]) -> Whole:
    """Shards of one group as one table.

    Raises:
        MismatchError: shards overlap, are missing, or are of other settings or weights.
    """
    tables = sorted(tables, key=lambda one: one.table.shard)
    _check_alike(tables)
    first = tables[0].table
    parts = [stats_files.read_arrays(one.path) for one in tables]
    total = sum(len(part["id"]) for part in parts)
    arrays: dict[str, np.ndarray] = {}
    for (i, n), one, part in zip((one.table.shard for one in tables), tables, parts, strict=True):
        for name, values in part.items():
            rows = arrays.setdefault(name, np.empty(total, values.dtype))
            if len(rows[i - 1 :: n]) != len(values):
                raise errors.MismatchError(
                    f"{one.path}: has {len(values)} examples, shard {i}/{n} of {total} has {len(rows[i - 1 :: n])}; "
                    "compute it again"
                )
            rows[i - 1 :: n] = values
    _check_ids(tables, arrays["id"])
    columns = tuple(
        dataclasses.replace(same[0], num_unconverged=sum(one.num_unconverged for one in same))
        for same in zip(*(one.table.columns for one in tables), strict=True)
    )
    table = dataclasses.replace(first, shard=(1, 1), num_rows=total, columns=columns)
    return Whole(table, arrays, tuple(one.path for one in tables))


def unfinished(found: Iterable[Whole]) -> str:
    """A line on tables that were measured before a training had ended, or of one that diverged; empty without any."""
    outcomes = [str(one.table.source.get(stats_files.OUTCOME)) for one in found]
    counts = [f"{outcomes.count(name)} {name}" for name in stats_files.NO_END if name in outcomes]
    if not counts:
        return ""
    num = sum(outcome in stats_files.NO_END for outcome in outcomes)
    return (
        f"note: {num} of {len(outcomes)} tables are of trainings that had not come to their end when these were "
        f"measured: {', '.join(counts)}"
    )


def _check_alike(tables: Sequence[Stored]) -> None:
    first = tables[0]
    for other in tables[1:]:
        for name, what in (("identity", "settings"), ("weights", "weights"), ("num_split", "sizes of the split")):
            if getattr(other.table, name) != getattr(first.table, name):
                raise errors.MismatchError(
                    f"{first.path} and {other.path}: are of different {what}, and cannot be joined; compute one of "
                    "them again, or give them apart"
                )
        if [c.name for c in other.table.columns] != [c.name for c in first.table.columns]:
            raise errors.MismatchError(f"{first.path} and {other.path}: have different columns; compute one again")
    counts = sorted({one.table.shard[1] for one in tables})
    if len(counts) > 1:
        raise errors.MismatchError(
            f"{first.path.parent}: shards of {' and of '.join(map(str, counts))} overlap; keep those of one number: "
            "give their files apart, or delete the others"
        )
    numbers = [one.table.shard[0] for one in tables]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        same = [str(one.path) for one in tables if one.table.shard[0] == twice[0]]
        raise errors.MismatchError(f"{' and '.join(same)}: are the same shard; give one of them")
    missing = sorted(set(range(1, counts[0] + 1)) - set(numbers))
    if missing:
        listed = ", ".join(f"{number}/{counts[0]}" for number in missing[:10])
        raise errors.MismatchError(
            f"{first.path.parent}: epoch {first.table.epoch} of {first.table.split} lacks the shards {listed}; run "
            f"compute_jacobian_stats with --shard={missing[0]}/{counts[0]} and so on"
        )


def _check_ids(tables: Sequence[Stored], ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise errors.MismatchError(
            f"{tables[0].path.parent}: example {values[counts > 1][0]} is in two shards; compute them again"
        )


def _text(value: Any) -> str:
    return "" if value is None else str(value)

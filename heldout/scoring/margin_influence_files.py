"""Influence on margins of one ratio, from the margins to the files of the score folder, tile by tile.

    margin_influence-<ratio>.npz    its distribution, and the strongest entries of every row and column with their
                                    standard errors
    margin_influence-<ratio>.npy    the matrix [N, M], where matrices are kept

A tile that is done is on the disk (influence_parts.py); the same call again goes on with those that are missing. With
the same memory limit the bytes are the same whatever was killed; another one may change the last bits.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import (
    influence_extremes,
    influence_parts,
    margin_influence,
    margin_scores,
    saved_scores,
    score_config,
)
from zoo import errors, files, layout, npz, run_table

# Values are divided by this before they are sorted into bins: a power of two, so that nothing is rounded, and no less
# than twice the clip, the largest value there is.
_SCALE = 2.0 ** np.ceil(np.log2(2 * margin_scores.DEFAULT_CLIP))
_SOURCES = "margin_sources"
_LISTS = ("by_train", "by_test")
_LIST_FIELDS = (
    *("helpful", "helpful_index", "helpful_standard_error"),
    *("harmful", "harmful_index", "harmful_standard_error"),
)
_NAMES = tuple(f"{part}_{field}" for part in _LISTS for field in _LIST_FIELDS)


@dataclasses.dataclass(frozen=True)
class Strongest:
    """For n examples, the k others with the largest positive and the largest negative influence on margins.

    Attributes:
        helpful: float32 [n, k], nats, falling, above 0; NaN where there are fewer.
        helpful_index: int32 [n, k], the others; -1 where there are fewer.
        helpful_standard_error: float32 [n, k], of these values; NaN where a side has fewer than two runs.
        harmful: float32 [n, k], nats, rising, below 0; NaN where there are fewer.
        harmful_index: int32 [n, k].
        harmful_standard_error: float32 [n, k].
    """

    helpful: np.ndarray
    helpful_index: np.ndarray
    helpful_standard_error: np.ndarray
    harmful: np.ndarray
    harmful_index: np.ndarray
    harmful_standard_error: np.ndarray


@dataclasses.dataclass(frozen=True)
class MarginInfluence:
    """What is kept of the influence on margins [N, M] of one subset ratio, in nats of log odds.

    Attributes:
        num_runs: runs with margins.
        num_runs_without: runs of the ratio that have none, and were left out.
        clip: bound on the absolute value of a margin.
        num_in: int64 [N], runs with margins that trained on each training example.
        num_heldout: int64 [N], those that held it out.
        num_clipped: int64 [M], margins on each test example beyond the clip.
        bin_counts: int64 [1001], pairs by value: bin b is centred at (b - 500) bin_width.
        bin_width: of these.
        largest_per_test: float32 [M], largest absolute value of each test example; NaN where all are missing.
        by_train: for each training example the test examples that it helps and harms most, [N, k].
        by_test: for each test example the training examples that help and harm it most, [M, k].
    """

    num_runs: int
    num_runs_without: int
    clip: float
    num_in: np.ndarray
    num_heldout: np.ndarray
    num_clipped: np.ndarray
    bin_counts: np.ndarray
    bin_width: float
    largest_per_test: np.ndarray
    by_train: Strongest
    by_test: Strongest


_SCALARS = ("num_runs", "num_runs_without", "clip", "bin_width")
_VECTORS = ("num_in", "num_heldout", "num_clipped", "bin_counts", "largest_per_test")


def matrix_name(subset_ratio: float) -> str:
    """File name of the matrix of one ratio, without the suffix .npy."""
    return f"margin_influence-{layout.ratio_name(subset_ratio)}"


def file_names(config: score_config.ScoreConfig, subset_ratio: float, shape: tuple[int, int]) -> list[str]:
    """The files of one ratio."""
    name = matrix_name(subset_ratio)
    return [f"{name}.npz", *([f"{name}.npy"] if config.keeps_matrix(*shape) else [])]


def check_means(config: score_config.ScoreConfig, runs: run_table.RunTable) -> None:
    """Refuses a memory limit under which the influence on margins of these runs cannot be computed.

    Raises:
        InvalidValueError: the message names the least that would do.
    """
    _rows_per_block(config, runs)


def _rows_per_block(config: score_config.ScoreConfig, runs: run_table.RunTable) -> int:
    # Lists of all columns with their errors, and those of a tile's rows, twice while they are put together.
    lists = 48 * _top_k(config, runs) * (runs.num_test + len(influence_parts.tiles(runs.num_train)[0]))
    limit = (config.memory_limit_mb << 20) - lists
    return margin_influence.rows_per_block(runs.num_runs, runs.num_train, runs.num_test, max(limit, 0))


def _top_k(config: score_config.ScoreConfig, runs: run_table.RunTable) -> int:
    return min(config.top_k, max(1, runs.num_train, runs.num_test))


def is_current(
    config: score_config.ScoreConfig,
    runs: run_table.RunTable,
    subset_ratio: float,
    provenance: Mapping[str, object],
    sources: str,
) -> bool:
    """Whether the files of one ratio are there, of this computation, these margins and these settings."""
    shape = (runs.num_train, runs.num_test)
    names = file_names(config, subset_ratio, shape)
    path = config.directory / names[0]
    if not saved_scores.is_current(path, provenance) or not all((config.directory / name).exists() for name in names):
        return False
    try:
        kept = read(path)
    except errors.DamagedFileError:
        return False
    same = str(npz.read(path, [_SOURCES])[_SOURCES]) == sources
    return same and kept.by_train.helpful.shape[1] == _top_k(config, runs)


def write(
    config: score_config.ScoreConfig,
    table: run_table.RunTable,
    subset_ratio: float,
    test_margin: np.ndarray,
    sources: str,
    provenance: Mapping[str, object],
    common: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None],
) -> None:
    """Computes the files of one ratio, going on from the tiles that are there.

    Args:
        config: what to keep, and under which memory limit.
        table: of all runs.
        subset_ratio: which runs to use.
        test_margin: floats [T, M] of all runs, from `margins.collect`.
        sources: text that says which margins these are.
        provenance: of the computation.
        common: members that every file of the computation has.
        progress: called with rows done and rows in all.

    Raises:
        InvalidValueError: as `margin_influence.influence_margin_blocks`.
        MismatchError: as there.
    """
    runs, name = table.select(subset_ratio), matrix_name(subset_ratio)
    shape, k = (runs.num_train, runs.num_test), _top_k(config, runs)
    path = config.directory / f"{name}.npz"
    identity = f"{saved_scores.SCHEMA_VERSION} {name} {k} {sources} {saved_scores.provenance_text(provenance)}"
    dense = config.keeps_matrix(*shape)
    folder = influence_parts.Folder(config.directory, name, shape, identity, dense=dense)
    folder.prepare()
    num_rows = _rows_per_block(config, runs)
    outputs = margin_influence.prepare(table, test_margin, subset_ratio)
    for tile in influence_parts.tiles(runs.num_train):
        if not folder.is_done(tile):
            _compute_tile(outputs, folder, tile, k, num_rows)
        progress(tile.stop, runs.num_train)
    members = _put_together(outputs, folder)
    # An older summary never stands beside a newer matrix.
    path.unlink(missing_ok=True)
    folder.name_matrix()
    npz.write(path, {**common, _SOURCES: np.asarray(sources), "subset_ratio": np.asarray(subset_ratio), **members})
    folder.remove()


def _support(outputs: margin_influence.Outputs) -> np.ndarray:
    """Runs on the side that has fewer, per training example."""
    return np.minimum(outputs.num_in, outputs.runs.num_runs - outputs.num_in)


def _compute_tile(
    outputs: margin_influence.Outputs, folder: influence_parts.Folder, tile: range, k: int, num_rows: int
) -> None:
    """Computes the rows of one tile and writes its part."""
    tally = influence_extremes.Tally(outputs.runs.num_test, k, _support(outputs))
    by_train = influence_extremes.Strongest.empty(len(tile), k)
    error = {side: np.full((len(tile), k), np.nan, np.float32) for side in ("helpful", "harmful")}
    target = folder.opened()
    try:
        for block in margin_influence.blocks(outputs, tile, num_rows):
            target.write(block.start, block.values)
            np.multiply(block.values, np.float32(1 / _SCALE), out=block.values)
            place = slice(block.start - tile.start, block.stop - tile.start)
            tally.add(block.values, block.start, by_train, place.start)
            for side, found in error.items():
                index = getattr(by_train, f"{side}_index")[place]
                chosen = np.take_along_axis(block.standard_error, np.maximum(index, 0), axis=1)
                found[place] = np.where(index < 0, np.nan, chosen)
    finally:
        target.close()
    part = {"bin_counts": tally.bin_counts, "largest_per_test": tally.largest * np.float32(_SCALE)}
    part |= _members("by_train", by_train.finished(), error)
    part |= _members("by_test", tally.columns.finished(), {})
    npz.write(folder.part(tile), part)


def _members(
    name: str, lists: influence_extremes.Strongest, error: Mapping[str, np.ndarray], scale: float = _SCALE
) -> dict[str, np.ndarray]:
    """Lists of scaled values as members of a file, in nats, with their errors where these are known."""
    found = {}
    for side in ("helpful", "harmful"):
        found[f"{name}_{side}"] = getattr(lists, side) * np.float32(scale)
        found[f"{name}_{side}_index"] = getattr(lists, f"{side}_index")
        if side in error:
            found[f"{name}_{side}_standard_error"] = error[side]
    return found


def _put_together(outputs: margin_influence.Outputs, folder: influence_parts.Folder) -> dict[str, np.ndarray]:
    """Members of the whole matrix from the parts of all tiles, which must be there."""
    support, columns = _support(outputs), None
    bin_counts = np.zeros(influence_extremes.NUM_BINS, np.int64)
    largest = np.full(outputs.runs.num_test, np.nan, np.float32)
    rows: list[dict[str, np.ndarray]] = []
    of_rows = [name for name in _NAMES if name.startswith("by_train")]
    of_columns = [f"by_test_{field.name}" for field in dataclasses.fields(influence_extremes.Strongest)]
    for tile in influence_parts.tiles(outputs.runs.num_train):
        part = npz.read(folder.part(tile), ["bin_counts", "largest_per_test", *of_rows, *of_columns])
        bin_counts += part["bin_counts"]
        np.fmax(largest, part["largest_per_test"], out=largest)
        seen = influence_extremes.Strongest(*(part[name] for name in of_columns)).resumed()
        if columns is None:
            columns = seen
        else:
            columns.merge(seen, support)
        rows.append({name: part[name] for name in of_rows})
    assert columns is not None
    by_test = columns.finished()
    error = {
        side: margin_influence.errors_by_test(outputs, getattr(by_test, f"{side}_index"))
        for side in ("helpful", "harmful")
    }
    found = {name: np.concatenate([part[name] for part in rows]) for name in of_rows}
    found |= _members("by_test", by_test, error, scale=1)
    found |= {"num_in": outputs.num_in, "num_heldout": outputs.runs.num_runs - outputs.num_in}
    found |= {"num_clipped": outputs.num_clipped, "bin_counts": bin_counts, "largest_per_test": largest}
    scalars = (outputs.runs.num_runs, outputs.num_runs_without, outputs.clip, _SCALE / influence_extremes.HALF_BINS)
    return {**found, **{name: np.asarray(value) for name, value in zip(_SCALARS, scalars, strict=True)}}


def read(path: files.PathLike) -> MarginInfluence:
    """Reads the npz file that `write` wrote.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is unsound, of another schema version, or its arrays do not fit together.
    """
    path = pathlib.Path(path)
    found = npz.read(path, ["schema_version", *_SCALARS, *_VECTORS, *_NAMES])
    sizes = {"by_train": found["num_in"].size, "by_test": found["largest_per_test"].size}
    k = found["by_train_helpful"].shape[-1] if found["by_train_helpful"].ndim == 2 else 0
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_SCALARS, ())
    shapes |= dict.fromkeys(("num_in", "num_heldout"), (sizes["by_train"],))
    shapes |= dict.fromkeys(("num_clipped", "largest_per_test"), (sizes["by_test"],))
    shapes |= {"bin_counts": (influence_extremes.NUM_BINS,)}
    shapes |= {f"{part}_{field}": (sizes[part], k) for part in _LISTS for field in _LIST_FIELDS}
    saved_scores.check_members(path, found, shapes)
    fields: dict[str, Any] = {name: found[name].item() for name in _SCALARS}
    fields |= {name: found[name] for name in _VECTORS}
    fields |= {part: Strongest(*(found[f"{part}_{field}"] for field in _LIST_FIELDS)) for part in _LISTS}
    return MarginInfluence(**fields)

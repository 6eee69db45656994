"""Small archives of sound runs, made without TensorFlow, and passes over them."""

import collections
import contextlib
import pathlib
import sqlite3

import numpy as np

from tests.zoo import tables
from tests.zoo.archive import archives
from zoo import layout
from zoo.archive import extract, extract_plan, index, indexing, scan
from zoo.remote import source

EXPERIMENT = "e"


def checkpoint(seed: int, num_values: int = 500) -> tuple[bytes, bytes]:
    """Index and data file of a checkpoint with one variable of float32."""
    data = np.random.default_rng(seed).standard_normal(num_values).astype(np.float32).tobytes()
    entry = tables.bundle_entry(shape=(num_values,), size=len(data), data=data)
    return tables.index((b"model/w/.ATTRIBUTES/VARIABLE_VALUE", entry)), data


def run_files(
    ratio: float, run_id: int, *, folder: str = EXPERIMENT, epoch: int = 3, num_values: int = 500
) -> dict[str, bytes]:
    """The files of a run by their names in an archive; others for every run."""
    directory = f"{folder}/{layout.ratio_name(ratio)}/{run_id}"
    seed = round(1000 * ratio) + run_id
    index_content, data = checkpoint(seed, num_values)
    return {
        f"{directory}/aux_arrays.npz": archives.record(seed, ratio),
        f"{directory}/checkpoints/ckpt-{epoch}.index": index_content,
        f"{directory}/checkpoints/ckpt-{epoch}.data-00000-of-00001": data,
    }


def write(path: pathlib.Path, files: dict[str, bytes], level: int = 6, num_gzip_members: int = 1) -> pathlib.Path:
    """The tar.gz of these files, in this order."""
    members = [archives.member(name, data) for name, data in files.items()]
    path.write_bytes(archives.gz(archives.tar_bytes(members), level, num_gzip_members))
    return path


def indexed(
    archive: pathlib.Path,
    zoo: pathlib.Path,
    *,
    chunk_bytes: int = 8 << 20,
    save_bytes: int = scan.SAVE_BYTES,
    progress: scan.Progress | None = None,
    **expected: str,
) -> tuple[index.Facts, indexing.Places]:
    """What a pass finds, and where its results are."""
    places = indexing.places_in_zoo(zoo, EXPERIMENT)
    options = source.Options(chunk_bytes=chunk_bytes)
    result = indexing.make(str(archive), places, scan.Expected(**expected), options, progress, save_bytes)
    return result.facts, places


def members(places: indexing.Places) -> list[index.Member]:
    """All members of an index."""
    with index.Index(places.index) as stored:
        return list(stored.members())


def changed_index(path: pathlib.Path, folder: pathlib.Path, *statements: str) -> pathlib.Path:
    """A copy of an index, changed by SQL: changed.sqlite in a folder."""
    copy = folder / "changed.sqlite"
    copy.write_bytes(path.read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as database, database:
        for statement in statements:
            database.execute(statement)
    return copy


def states(places: indexing.Places) -> dict[str, str]:
    """State of each member by name."""
    return {member.name: member.state for member in members(places)}


def fetched(archive: pathlib.Path, zoo: pathlib.Path, **options: int) -> extract.Result:
    """What comes of fetching every run."""
    with index.Index(layout.archive_index_path(zoo, EXPERIMENT)) as stored:
        todo = extract_plan.plan(stored, zoo, EXPERIMENT, stored.runs())
        with source.open_source(str(archive)) as opened:
            return extract.fetch(opened, todo, **options)


def fetchable(places: indexing.Places) -> set[str]:
    """Names of the sound members of runs; of checkpoints, only where both files are sound."""
    sound = {member.name for member in members(places) if member.run is not None and member.state == "sound"}
    per_checkpoint = collections.Counter(name.rpartition(".")[0] for name in sound)
    return {name for name in sound if name.endswith(".npz") or per_checkpoint[name.rpartition(".")[0]] == 2}


def files_below(folder: pathlib.Path) -> dict[str, bytes]:
    """Content of every file by its path below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run_files_below(zoo: pathlib.Path) -> dict[str, bytes]:
    """The files of runs in a zoo, unfinished ones included."""
    return {name: content for name, content in files_below(zoo).items() if name.count("/") > 1}

"""A zoo to pack: simulated records, and checkpoints of one variable each with their checksums."""

import gzip
import io
import os
import tarfile

import numpy as np

from tests.zoo import runs, tables
from zoo import files, layout

RECIPE = {"architecture": "mlp", "dataset": {"name": "digits", "num_classes": 10}}
CHECKPOINT_SUFFIXES = (".data-00000-of-00001", ".index")


def run_of(zoo, ratio=0.7, run_id=1):
    return layout.Run(zoo, "e", ratio, run_id)


def checkpoint_paths(run, epoch=2):
    prefix = run.checkpoint_prefix(epoch)
    return [prefix.with_name(prefix.name + suffix) for suffix in CHECKPOINT_SUFFIXES]


def add_checkpoint(run, data_bytes=3000, epoch=2):
    """One float32 variable; `data_bytes` is a multiple of 4."""
    generator = np.random.default_rng(runs.seed_of(run.subset_ratio, run.run_id))
    # Half of each byte is always the same, so that there is something to compress.
    write_checkpoint(run, generator.integers(0, 16, data_bytes, np.uint8).tobytes(), epoch)


def write_checkpoint(run, content, epoch=2):
    data, index = checkpoint_paths(run, epoch)
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(content)
    entry = tables.bundle_entry(shape=(len(content) // 4,), size=len(content), data=content)
    index.write_bytes(tables.index((b"model/w/.ATTRIBUTES/VARIABLE_VALUE", entry)))


def damage_checkpoint(run, which, epoch=2):
    """Flips a bit of its data file, or of its index; returns what the checkpoint is called."""
    path = checkpoint_paths(run, epoch)[which]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    return run.checkpoint_prefix(epoch)


def make_zoo(folder, data_bytes=3000):
    """Four runs at two ratios with checkpoints, a recipe, and what is no part of an archive."""
    for ratio, run_id in runs.RUNS:
        run, _ = runs.add_run(folder, ratio, run_id)
        add_checkpoint(run, data_bytes)
    files.write_json(layout.recipe_path(folder, "e"), RECIPE)
    (folder / "e" / "notes.txt").write_text("not packed")
    (folder / "e" / "0.7" / "1" / "checkpoints" / "checkpoint").write_text("not packed")
    return folder


def packed_files(zoo):
    """Name and bytes of every file of `make_zoo` that an archive must hold, in its order."""
    paths = [layout.recipe_path(zoo, "e")]
    for run in layout.runs(zoo, "e"):
        paths += [path for path in checkpoint_paths(run) if path.exists()]
        paths.append(run.aux_arrays_path)
    return [(path.relative_to(zoo).as_posix(), path.read_bytes()) for path in paths]


def tar_files(content):
    """Name and bytes of every member of a tar.gz, as Python's tarfile reads it."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content)), mode="r:") as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def touch(path, seconds=-1000):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))

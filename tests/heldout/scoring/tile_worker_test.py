"""Tiles that worker processes compute, here and on a Ray cluster whose workers are killed."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import threading
import time

import numpy as np
import pytest

from heldout.running import runners, workers
from heldout.scoring import influence_files, influence_parts, influence_pass, saved_scores, score_config
from zoo import errors, run_table

_TILE = influence_parts._TILE_ROWS
PROVENANCE = {"table_digest": "0", "has_matrix": True}


def table(num_tiles, num_runs=12, num_test=9):
    generator = np.random.default_rng(4)
    sizes = (_TILE * num_tiles - 100, _TILE * num_tiles - 100, num_test)
    arrays = [generator.random((num_runs, size)) < 0.5 for size in sizes]
    return run_table.from_arrays("e", np.arange(num_runs), np.full(num_runs, 0.7), *arrays)


def config(directory, **options):
    return score_config.ScoreConfig(str(directory), "e", output=str(directory), matrix="yes", **options)


def write(directory, runs, **options):
    directory.mkdir()
    done = []
    influence_files.write(config(directory, **options), runs, 0.7, PROVENANCE, {}, lambda *rows: done.append(rows))
    return done


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_worker_computes_what_the_program_would(tmp_path):
    runs = table(2)
    done = write(tmp_path / "alone", runs)
    assert done == [(_TILE, runs.num_train), (runs.num_train, runs.num_train)]
    directory = tmp_path / "shared"
    directory.mkdir()
    settings = influence_files.settings_of(config(directory), runs.num_train, runs.num_test)
    shape = (runs.num_train, runs.num_test)
    folder = influence_files.folder_of(directory, 0.7, shape, PROVENANCE, settings)
    folder.prepare()
    setup = {
        "directory": str(directory),
        "subset_ratio": 0.7,
        "provenance": saved_scores.provenance_text(PROVENANCE),
        "settings": dataclasses.asdict(settings),
        "num_threads": 2,
        "memory_limit_bytes": 1 << 30,
    }
    messages = workers.run_tasks(
        "heldout.scoring.tile_worker",
        setup,
        [{"tile": _TILE}, {"tile": 0}],
        num_workers=1,
        threads_per_worker=1,
        supplies={"runs": lambda path: influence_files._supply(runs, path)},
    )
    assert [message for message in messages if "rows" in message] == [
        {"tile": _TILE, "rows": _TILE - 100},
        {"tile": 0, "rows": _TILE},
    ]
    assert all(folder.is_done(tile) for tile in influence_parts.tiles(runs.num_train))
    influence_files.write(config(directory), runs, 0.7, PROVENANCE, {}, lambda *_: None)
    assert contents(directory) == contents(tmp_path / "alone")


def test_tiles_that_are_missing_are_handed_to_workers(tmp_path, monkeypatch):
    """As on a cluster, but with processes of this machine; what they leave out is nobody's then."""
    runs = table(3)
    write(tmp_path / "alone", runs)
    opened = runners.opened

    @contextlib.contextmanager
    def here(runner, device):
        assert (runner.name, device) == (runners.RAY, "cpu")
        with opened(runners.Runner(), device, workers_wanted=2) as runner:
            yield runner

    def stop(done, total):
        raise KeyboardInterrupt

    directory = tmp_path / "shared"
    directory.mkdir()
    with pytest.raises(KeyboardInterrupt):
        influence_files.write(config(directory), runs, 0.7, PROVENANCE, {}, stop)
    monkeypatch.setattr(runners, "opened", here)
    monkeypatch.setattr(influence_pass, "compute_tile", None)  # of this process, which must not need it
    done = []
    on_cluster = config(directory, runner=runners.Runner(runners.RAY))
    influence_files.write(on_cluster, runs, 0.7, PROVENANCE, {}, lambda *rows: done.append(rows[0]))
    # The first tile was there; the two others come in any order, then all are gone through once more.
    assert done[:2] in ([2 * _TILE, runs.num_train], [2 * _TILE - 100, runs.num_train])
    assert done[2:] == [_TILE, 2 * _TILE, runs.num_train]
    assert contents(directory) == contents(tmp_path / "alone")


def test_a_folder_that_is_not_shared_is_named(tmp_path):
    runs = table(1)
    settings = influence_files.settings_of(config(tmp_path), runs.num_train, runs.num_test)
    setup = {
        "directory": str(tmp_path / "elsewhere"),
        "subset_ratio": 0.7,
        "provenance": "{}",
        "settings": dataclasses.asdict(settings),
        "num_threads": 1,
        "memory_limit_bytes": 1 << 30,
    }
    messages = workers.run_tasks(
        "heldout.scoring.tile_worker",
        setup,
        [{"tile": 0}],
        num_workers=1,
        threads_per_worker=1,
        supplies={"runs": lambda path: influence_files._supply(runs, path)},
    )
    with pytest.raises(errors.HeldoutError, match=r"elsewhere.* must be a folder that all machines share"):
        list(messages)


@pytest.mark.slow
def test_on_a_cluster_whose_workers_are_killed_the_bytes_are_the_same(tmp_path):
    pytest.importorskip("ray", reason="pip install 'heldout[ray]'")
    runs = table(6, num_runs=300, num_test=400)
    write(tmp_path / "alone", runs)
    killed = []

    def kill():
        while len(killed) < 2:
            for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    is_worker = b"heldout.scoring.tile_worker" in process.read_bytes()
                except OSError:
                    continue
                if is_worker and list(tmp_path.glob("cluster/.*.parts/tile-*")):
                    os.kill(int(process.parent.name), signal.SIGKILL)
                    killed.append(process.parent.name)
                    time.sleep(3)
                    break
            time.sleep(0.05)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    write(tmp_path / "cluster", runs, runner=runners.Runner(runners.RAY))
    assert killed
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")

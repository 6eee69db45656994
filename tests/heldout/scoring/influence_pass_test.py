"""One pass over the matrix: its summary against full sorts, tiles, threads, kills, memory."""

import dataclasses
import os
import signal
import subprocess
import sys
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest

from heldout.scoring import (
    influence_extremes,
    influence_matrix,
    influence_parts,
    influence_pass,
    influence_summary,
    joint_counts,
    run_words,
    scores,
)
from tests.heldout.scoring import influence_matrix_test as cases
from zoo import errors, npz

SETTINGS = influence_pass.Settings(top_k=4, least_influence=0.2, least_memorization=-0.1, least_z=2.0)
PARTS = ("by_train", "by_test")
LISTS = ("pairs", "candidates")


def make_work(table, settings=SETTINGS):
    counts = scores.count_sides_of(table)
    memorization = scores.memorization_from_counts(counts).values
    sides = influence_matrix.sides_of(table)
    words = run_words.of_examples(table.test_correctness_bits, 0, table.num_test)
    counter = joint_counts.WordCounter(table.subset_mask_bits, words)
    return influence_pass.Work(counter, sides, memorization, settings)


@pytest.fixture(scope="module")
def table():
    return cases.make_table(*cases.random_arrays(num_train=150, num_test=70))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(influence_parts, "_TILE_ROWS", 48)


def run(directory, table, settings=SETTINGS, identity="one", num_threads=2, rows_per_strip=16, progress=None):
    work = make_work(table, settings)
    shape = (table.num_train, table.num_test)
    folder = influence_parts.Folder(directory, "matrix", shape, identity, dense=settings.dense)
    folder.prepare()
    options = {"num_threads": num_threads, "rows_per_strip": rows_per_strip, "progress": progress}
    influence_pass.run(work, folder, directory / "summary.npz", {"note": np.array("x")}, **options)
    return influence_summary.read(directory / "summary.npz", *shape)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_matrix_is_kept_as_it_is(tmp_path, table):
    run(tmp_path, table)
    expected = influence_matrix.subset_influence(table, 0.5).values
    np.testing.assert_array_equal(np.load(tmp_path / "matrix.npy", mmap_mode="r"), expected)
    assert sorted(contents(tmp_path)) == ["matrix.npy", "summary.npz"]
    assert str(npz.read(tmp_path / "summary.npz", ["note"])["note"]) == "x"


def test_the_summary_is_that_of_the_whole_matrix(tmp_path, table):
    found = run(tmp_path, table, dataclasses.replace(SETTINGS, dense=False))
    assert sorted(contents(tmp_path)) == ["summary.npz"]
    values = influence_matrix.subset_influence(table, 0.5).values
    sides = influence_matrix.sides_of(table)
    defined = ~np.isnan(values[:, 0])
    assert not defined.all()
    bins = np.rint(values[defined] * influence_extremes.HALF_BINS).astype(int) + influence_extremes.HALF_BINS
    np.testing.assert_array_equal(found.bin_counts, np.bincount(bins.ravel(), minlength=len(found.bin_counts)))
    np.testing.assert_array_equal(found.largest_per_test, np.nanmax(np.abs(values), axis=0))
    strong = (np.abs(values) >= np.float32(0.2)) & (make_work(table).memorization >= -0.1)[:, None]
    assert 100 < strong.sum() < strong.size / 2
    assert_pairs(found.pairs, strong, values)
    rate = sides.num_right / sides.num_runs
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(rate * (1 - rate) * (1 / sides.num_in + 1 / sides.num_heldout)[:, None])
    far = (np.abs(values) >= 2.0 * spread) & (spread > 0)
    # Pairs at the bound itself may fall to either side by rounding.
    sure = np.abs(np.abs(values) - 2 * spread) > 1e-6
    kept = np.zeros_like(far)
    kept[found.candidates.train_index, found.candidates.test_index] = True
    np.testing.assert_array_equal(kept[sure], far[sure])
    assert kept.sum() > 100


def test_what_just_reaches_a_threshold_is_kept(tmp_path, table):
    values, memorization = influence_matrix.subset_influence(table, 0.5).values, make_work(table).memorization
    row = int(np.argsort(memorization)[100])
    least = {"least_memorization": float(memorization[row]), "least_influence": float(np.abs(values[row]).max())}
    found = run(tmp_path, table, dataclasses.replace(SETTINGS, **least))
    strong = (np.abs(values) >= least["least_influence"]) & (memorization >= least["least_memorization"])[:, None]
    assert strong[row].any()
    assert_pairs(found.pairs, strong, values)


def assert_pairs(found, expected, values):
    np.testing.assert_array_equal(np.stack([found.train_index, found.test_index]), np.nonzero(expected))
    np.testing.assert_array_equal(found.value, values[expected])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("num_runs", [53, 9])  # with few, many values are equal
def test_the_strongest_are_those_of_full_sorts(tmp_path, num_runs, sign):
    table = cases.make_table(*cases.random_arrays(num_runs=num_runs, num_train=150, num_test=70))
    found = run(tmp_path, table)
    values = sign * influence_matrix.subset_influence(table, 0.5).values
    support = influence_matrix.sides_of(table).support
    kind = "helpful" if sign == 1 else "harmful"
    for lists, matrix, ranks in ((found.by_train, values, np.zeros(70)), (found.by_test, values.T, support)):
        for one, line in enumerate(matrix):
            order = [i for i in np.lexsort((np.arange(len(line)), -ranks, -line)) if line[i] > 0][:4]
            index, value = getattr(lists, f"{kind}_index")[one], getattr(lists, kind)[one]
            np.testing.assert_array_equal(index[: len(order)], order)
            np.testing.assert_array_equal(value[: len(order)], sign * line[order])
            assert (index[len(order) :] == -1).all()
            assert np.isnan(value[len(order) :]).all()


def test_bytes_depend_on_neither_threads_nor_strips(tmp_path, table):
    found = []
    for number, (num_threads, rows) in enumerate(((1, 48), (2, 8), (3, 16), (5, 64))):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(folder, table, num_threads=num_threads, rows_per_strip=rows)
        found.append(contents(folder))
    assert all(one == found[0] for one in found)


def test_in_memory_it_is_the_same(tmp_path, table):
    found = run(tmp_path, table)
    rows = np.empty((150, 70), np.float32)

    def write(start, values):
        rows[start : start + len(values)] = values

    whole = influence_pass.summary_of(make_work(table), range(150), write)
    np.testing.assert_array_equal(rows, np.load(tmp_path / "matrix.npy"))
    for name, value in influence_summary.members(whole).items():
        np.testing.assert_array_equal(value, influence_summary.members(found)[name], err_msg=name)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("rows_done", [48, 96, 150])
def test_a_kill_loses_a_tile_at_most(tmp_path, table, monkeypatch, rows_done, dense):
    settings = dataclasses.replace(SETTINGS, dense=dense)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    run(tmp_path / "whole", table, settings)
    program = f"""
import os, pathlib, signal
from heldout.scoring import influence_parts, influence_pass
from tests.heldout.scoring import influence_matrix_test as cases, influence_pass_test as t
influence_parts._TILE_ROWS = 48
def kill(done, total):
    if done >= {rows_done}:
        os.kill(os.getpid(), signal.SIGKILL)
table = cases.make_table(*cases.random_arrays(num_train=150, num_test=70))
settings = influence_pass.Settings(**{dataclasses.asdict(settings)!r})
t.run(pathlib.Path({str(tmp_path / "killed")!r}), table, settings, progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.npz").exists()
    assert not (tmp_path / "killed" / "matrix.npy").exists()
    monkeypatch.setattr(Watched, "starts", [])
    monkeypatch.setattr(joint_counts, "WordCounter", Watched)
    run(tmp_path / "killed", table, settings)
    assert sorted(Watched.starts) == [start for start in range(0, 150, 16) if start >= rows_done]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


class Watched(joint_counts.WordCounter):
    """A counter that notes the rows from which it counts."""

    starts: ClassVar[list[int]] = []

    def count(self, start, out):
        self.starts.append(start)
        super().count(start, out)


def test_too_many_pairs_are_refused(tmp_path, table, monkeypatch):
    monkeypatch.setattr(influence_pass, "MAX_PAIRS", 100)
    with pytest.raises(errors.InvalidValueError, match=r"more than 100 pairs reach pairs_influence 0\.2"):
        run(tmp_path, table)


def test_of_too_many_candidates_the_furthest_are_kept(tmp_path, table, monkeypatch):
    everything = run(tmp_path, table).candidates
    settings = dataclasses.replace(SETTINGS, least_influence=1.5)
    monkeypatch.setattr(influence_pass, "MAX_PAIRS", 50)
    found = run(tmp_path, table, settings, identity="two")
    assert 40 < len(found.candidates) <= 50 < len(everything)
    sides = influence_matrix.sides_of(table)
    rate = sides.num_right / sides.num_runs

    def distance(pairs):
        scale = np.sqrt(1 / sides.num_in[pairs.train_index] + 1 / sides.num_heldout[pairs.train_index])
        return np.abs(pairs.value) / scale / np.sqrt(rate * (1 - rate))[pairs.test_index]

    assert distance(found.candidates).min() == pytest.approx(found.least_z)
    assert (distance(everything) >= found.least_z * (1 + 1e-6)).sum() <= len(found.candidates)
    assert found.least_z > SETTINGS.least_z


@pytest.mark.parametrize(("limit", "kept"), [(5, 3), (4, 3), (3, 3), (2, 0)])
def test_of_candidates_at_equal_distances_all_or_none_are_kept(monkeypatch, limit, kept):
    monkeypatch.setattr(influence_pass, "MAX_PAIRS", limit)
    sides = influence_matrix.Sides(np.full(6, 10), np.full(6, 10), np.full(1, 10, np.float32))
    value = np.array([0.5, -0.75, 0.5, 0.75, 0.5, -0.75], np.float32)
    given = influence_summary.PairList(np.arange(6, dtype=np.int32), np.zeros(6, np.int32), value)
    found, least_z = influence_pass._limited(given, sides, 1.0)
    np.testing.assert_array_equal(np.abs(found.value), np.full(kept, 0.75))
    assert least_z == (np.inf if kept == 0 else pytest.approx(0.75 / np.sqrt(0.25 * 0.2)))
    monkeypatch.setattr(influence_pass, "MAX_PAIRS", 6)
    assert influence_pass._limited(given, sides, 1.0) == (given, 1.0)


@pytest.mark.parametrize("num_train", [1, 7, 47, 48, 49, 97, 144, 145])
def test_tiles_and_strips_of_any_length(tmp_path, num_train):
    """Whole and single rows at the end of a strip, of a tile, and of all."""
    mask, test = cases.random_arrays(num_train=150, num_test=70)
    small = cases.make_table(mask[:, 2 : num_train + 2], test)
    found = run(tmp_path, small, rows_per_strip=8)
    values = influence_matrix.subset_influence(small, 0.5).values
    np.testing.assert_array_equal(np.load(tmp_path / "matrix.npy"), values)
    assert found.bin_counts.sum() == np.count_nonzero(~np.isnan(values))
    strong = (np.abs(values) >= np.float32(0.2)) & (make_work(small).memorization >= -0.1)[:, None]
    assert_pairs(found.pairs, strong, values)
    np.testing.assert_array_equal(found.by_train.helpful[:, 0], np.where((values > 0).any(1), values.max(1), np.nan))
    np.testing.assert_array_equal(
        found.by_test.helpful[:, 0], np.where((values > 0).any(0), np.nanmax(values, 0), np.nan)
    )


def test_a_limit_that_is_too_small_names_the_least():
    with pytest.raises(errors.InvalidValueError, match=r"2000 runs and 50000 test .* need at least \d+ MiB") as caught:
        influence_pass.strip_rows(2000, 50000, 10, 2, 1 << 20)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert least < 100
    assert influence_pass.strip_rows(2000, 50000, 10, 2, least << 20) == 8
    assert influence_pass.strip_rows(2000, 50000, 10, 2, 1 << 31) == 64
    # Values and what comes of them, float32, on either thread.
    assert influence_pass.strip_rows(2000, 50000, 10, 2, (least << 20) + 16 * (2 * 4 * 50000) * 2) == 24


@pytest.mark.parametrize("limit", [24 << 20, 40 << 20])
def test_memory_stays_below_the_limit(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(influence_parts, "_TILE_ROWS", 1024)
    mask, test = cases.random_arrays(num_runs=64, num_train=3000, num_test=6000)
    big = cases.make_table(mask, test)
    settings = influence_pass.Settings(least_influence=1.0, least_z=50.0)
    rows = influence_pass.strip_rows(64, 6000, 10, 2, limit)
    (tmp_path / "warm").mkdir()
    run(tmp_path / "warm", cases.make_table(*cases.random_arrays()), settings)
    tracemalloc.start()
    try:
        run(tmp_path, big, settings, rows_per_strip=rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "matrix.npy").stat().st_size > 3000 * 6000 * 4 > 2.5 * limit / 2
    assert peak <= limit

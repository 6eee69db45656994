"""The files of influence on margins against full sorts of the whole matrix, also after a kill."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import (
    influence_parts,
    margin_influence,
    margin_influence_files,
    saved_scores,
    score_config,
)
from tests.heldout.scoring import margin_scores_test
from tests.reference import influence_summary as reference
from zoo import errors, run_table

N, M, K, RATIO = 45, 13, 3, 0.6
PROVENANCE = {"experiment": "demo"}
COMMON = saved_scores.common_members(PROVENANCE, None, None)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(influence_parts, "_TILE_ROWS", 16)


def case(seed=0):
    """Margins of 40 runs at each of two ratios; one example that all trained on, and one that a single run held out."""
    table, mask, _, test = margin_scores_test.case(seed, num_train=N, num_test=M)
    mask[:, 3], mask[:, 20] = True, np.arange(len(mask)) % 40 != 7
    test[45:47] = np.nan
    test[0] = 60000
    return run_table.from_arrays("demo", table.run_id, table.subset_ratio, mask, mask, mask[:, :M]), test


def config(folder, **options):
    return score_config.ScoreConfig("zoo", "demo", output=str(folder), top_k=K, **options)


def write(folder, table, test, sources="a", **options):
    done = []
    margin_influence_files.write(
        config(folder, **options), table, RATIO, test, sources, PROVENANCE, COMMON, lambda *step: done.append(step)
    )
    return done


def truth(table, test):
    """(values, errors), each [N, M]."""
    parts = list(margin_influence.influence_margin_blocks(table, test, RATIO))
    return (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "standard_error"))


@pytest.mark.parametrize("matrix", ["yes", "no"])
def test_lists_are_those_of_full_sorts(tmp_path, matrix):
    table, test = case()
    assert write(tmp_path, table, test, matrix=matrix) == [(16, N), (32, N), (45, N)]
    found = margin_influence_files.read(tmp_path / "margin_influence-0.6.npz")
    values, error = truth(table, test)
    support = np.minimum(found.num_in, found.num_heldout)
    lists = (
        (found.by_train, reference.strongest(values, np.zeros(M), K), error),
        (found.by_test, reference.strongest(values.T, support, K), error.T),
    )
    for kept, wanted, lines in lists:
        for side in ("helpful", "harmful"):
            index = getattr(wanted, f"{side}_index")
            np.testing.assert_allclose(getattr(kept, side), getattr(wanted, side), rtol=1e-5)
            np.testing.assert_array_equal(getattr(kept, f"{side}_index"), index)
            errors_ = np.where(index < 0, np.nan, np.take_along_axis(lines, np.maximum(index, 0), axis=1))
            np.testing.assert_allclose(getattr(kept, f"{side}_standard_error"), errors_, rtol=1e-4)
    assert (found.num_runs, found.num_runs_without, found.clip) == (38, 2, 20)
    np.testing.assert_array_equal(found.num_in + found.num_heldout, 38)
    assert (found.num_heldout[3], found.num_heldout[20]) == (0, 1)
    assert np.isnan(found.by_test.helpful_standard_error[found.by_test.helpful_index == 20]).all()
    largest = np.nanmax(np.abs(values), axis=0)
    np.testing.assert_allclose(found.largest_per_test, largest, rtol=1e-5)
    bins = np.rint(values[~np.isnan(values)] / found.bin_width).astype(int) + 500
    np.testing.assert_array_equal(found.bin_counts, np.bincount(bins, minlength=1001))
    assert found.bin_counts.sum() == (N - 1) * M
    assert found.num_clipped.sum() == np.count_nonzero(np.abs(test[40:]) > 20)
    assert (tmp_path / "margin_influence-0.6.npy").exists() == (matrix == "yes")
    if matrix == "yes":
        np.testing.assert_allclose(np.load(tmp_path / "margin_influence-0.6.npy"), values, rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_largest_influence_that_there_is_has_a_bin(tmp_path):
    """All runs that trained on an example have margin 20 everywhere, all others -20."""
    mask = np.random.default_rng(1).random((30, 8)) < 0.5
    mask[:, 0] = np.arange(30) < 15
    test = np.where(mask[:, :1], 30, -30) * np.ones((1, 4), np.float16)
    table = run_table.from_arrays("demo", np.arange(30), np.full(30, RATIO), mask, mask, test > 0)
    write(tmp_path, table, test)
    found = margin_influence_files.read(tmp_path / "margin_influence-0.6.npz")
    np.testing.assert_allclose(found.by_test.helpful[:, 0], 40, rtol=1e-6)
    assert found.bin_counts[500 + round(40 / found.bin_width)] == 4


class KilledError(Exception):
    """Stands for a kill between two tiles."""


def test_after_a_kill_the_bytes_are_the_same(tmp_path):
    table, test = case()
    write(tmp_path / "whole", table, test)

    def kill(done, total):
        if done == 32:
            raise KilledError

    with pytest.raises(KilledError):
        margin_influence_files.write(config(tmp_path / "part"), table, RATIO, test, "a", PROVENANCE, COMMON, kill)
    (folder,) = (path for path in (tmp_path / "part").iterdir() if path.is_dir())
    first = folder / "tile-000000000.npz"
    before = first.stat().st_mtime_ns
    assert not (folder / "tile-000000032.npz").exists()
    with pytest.raises(KilledError):
        margin_influence_files.write(config(tmp_path / "part"), table, RATIO, test, "a", PROVENANCE, COMMON, kill)
    assert first.stat().st_mtime_ns == before
    write(tmp_path / "part", table, test)
    for name in ("margin_influence-0.6.npz", "margin_influence-0.6.npy"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(KilledError):
        margin_influence_files.write(config(tmp_path / "part"), table, RATIO, test, "b", PROVENANCE, COMMON, kill)


def test_what_is_current(tmp_path):
    table, test = case()
    runs, usual = table.select(RATIO), config(tmp_path)

    def current(config_=usual, provenance=PROVENANCE, sources="a"):
        return margin_influence_files.is_current(config_, runs, RATIO, provenance, sources)

    assert not current()
    write(tmp_path, table, test)
    assert current()
    assert not current(sources="b")
    assert not current(provenance={"experiment": "other"})
    assert not current(dataclasses.replace(usual, top_k=4))
    (tmp_path / "margin_influence-0.6.npy").unlink()
    assert not current()
    assert current(dataclasses.replace(usual, matrix="no"))
    path = tmp_path / "margin_influence-0.6.npz"
    with np.load(path) as stored:
        members = dict(stored)
    np.savez(path, **{**members, "by_test_harmful": members["by_test_harmful"][1:]})
    assert not current(dataclasses.replace(usual, matrix="no"))
    with pytest.raises(errors.DamagedFileError, match=r"by_test_harmful has .* shape \(12, 3\), expected .*\(13, 3\)"):
        margin_influence_files.read(path)
    np.savez(path, **{**members, "schema_version": 1})
    with pytest.raises(errors.DamagedFileError, match="schema version 1, expected 2"):
        margin_influence_files.read(path)


def test_too_little_memory_is_refused(tmp_path):
    runs, _ = case()
    with pytest.raises(errors.InvalidValueError, match=r"need at least \d+ MiB; raise --memory_limit_mb"):
        margin_influence_files.check_means(dataclasses.replace(config(tmp_path), memory_limit_mb=0), runs.select(RATIO))
    margin_influence_files.check_means(dataclasses.replace(config(tmp_path), memory_limit_mb=2), runs.select(RATIO))

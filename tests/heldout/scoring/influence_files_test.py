"""Which files of subset influence are taken for done, which parts are gone on with, and which runs a matrix holds."""

import dataclasses
import os

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import (
    influence_files,
    influence_matrix,
    influence_parts,
    influence_summary,
    saved_scores,
    score_config,
)
from zoo import errors, files, npz, run_table

PROVENANCE = {"table_digest": "0", "has_matrix": True}
SHAPE = (40, 9)


def make_table(num_runs=12, seed=4, run_id=None, ratio=0.7):
    generator = np.random.default_rng(seed)
    arrays = [generator.random((num_runs, size)) < 0.5 for size in (40, 40, 9)]
    run_id = np.arange(num_runs) if run_id is None else run_id
    return run_table.from_arrays("e", run_id, np.full(num_runs, ratio), *arrays)


def config(directory, **options):
    return score_config.ScoreConfig(str(directory), "e", output=str(directory), **options)


def write(directory, table, provenance=PROVENANCE, **options):
    influence_files.write(config(directory, **options), table, 0.7, provenance, common(provenance), lambda *_: None)


def common(provenance):
    return {saved_scores.PROVENANCE: np.asarray(saved_scores.provenance_text(provenance))}


@pytest.mark.parametrize(("num_train", "num_test"), [(50_000, 10_000), (1_281_167, 50_000)])
def test_noise_alone_gives_the_expected_number_of_candidates(num_train, num_test):
    z = influence_files.candidate_z(num_train, num_test)
    assert 2 * stats.norm.sf(z) * num_train * num_test == pytest.approx(1e5)


def test_of_few_pairs_a_small_share_are_candidates():
    assert 2 * stats.norm.sf(influence_files.candidate_z(60, 24)) == pytest.approx(1e-3)


def test_files_are_current_until_something_differs(tmp_path):
    write(tmp_path, make_table())
    assert influence_files.is_current(config(tmp_path), 0.7, PROVENANCE, SHAPE)
    for changes in ({"top_k": 3}, {"pairs_influence": 0.2}, {"pairs_memorization": 0.1}):
        assert not influence_files.is_current(config(tmp_path, **changes), 0.7, PROVENANCE, SHAPE)
    assert not influence_files.is_current(config(tmp_path), 0.7, {**PROVENANCE, "table_digest": "1"}, SHAPE)
    assert not influence_files.is_current(config(tmp_path), 0.5, PROVENANCE, SHAPE)
    assert not influence_files.is_current(config(tmp_path), 0.7, PROVENANCE, (40, 10))
    (tmp_path / "subset_influence-0.7.npy").unlink()
    assert not influence_files.is_current(config(tmp_path), 0.7, PROVENANCE, SHAPE)
    assert influence_files.is_current(config(tmp_path, matrix="no"), 0.7, PROVENANCE, SHAPE)


@pytest.mark.parametrize(("factor", "is_current"), [(1.1, True), (0.9, False)])
def test_candidates_may_be_bounded_higher_than_asked_but_not_lower(tmp_path, factor, is_current):
    write(tmp_path, make_table())
    path = tmp_path / "influence-0.7.npz"
    kept = influence_summary.read(path, *SHAPE)
    other = dataclasses.replace(kept, least_z=kept.least_z * factor)
    influence_summary.write(path, other, common(PROVENANCE))
    assert influence_files.is_current(config(tmp_path), 0.7, PROVENANCE, SHAPE) == is_current


@pytest.mark.parametrize(
    "changes", [{"provenance": {**PROVENANCE, "table_digest": "1"}}, {"top_k": 3}, {"pairs_influence": 0.2}]
)
def test_parts_of_other_runs_or_settings_are_not_gone_on_with(tmp_path, monkeypatch, changes):
    """An interrupted computation; the next one has another purpose, and gives what it gives alone."""
    (tmp_path / "stopped").mkdir()
    (tmp_path / "alone").mkdir()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(influence_parts.Folder, "name_matrix", stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "stopped", make_table(seed=5))
    assert list((tmp_path / "stopped" / ".subset_influence-0.7.parts").glob("tile-*"))
    for name in ("stopped", "alone"):
        write(tmp_path / name, make_table(), **changes)
    for name in ("influence-0.7.npz", "subset_influence-0.7.npy"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_lists_are_no_longer_than_they_can_be():
    settings = influence_files.settings_of(config("x", top_k=30), 7, 12)
    assert settings.top_k == 12
    assert influence_files.settings_of(config("x", top_k=5), 7, 12).top_k == 5


def test_room_is_asked_for_four_bytes_a_pair(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(files, "check_room", lambda _, num_bytes, *texts: asked.append(num_bytes))
    influence_files.check_disk(config(tmp_path), 3, 50, 10)
    influence_files.check_disk(config(tmp_path, matrix="no"), 3, 50, 10)
    assert asked == [4 * 3 * 50 * 10]


def test_digests_tell_runs_apart_by_all_that_influence_depends_on():
    table = make_table()
    digests = influence_files.run_digests(table)
    assert (digests.shape, digests.dtype) == ((12, 16), np.uint8)
    assert len(np.unique(digests, axis=0)) == 12
    np.testing.assert_array_equal(influence_files.run_digests(table.take(np.array([2, 7]))), digests[[2, 7]])
    for field in ("subset_mask_bits", "test_correctness_bits"):
        bits = getattr(table, field).copy()
        bits[3, 0] ^= 2
        changed = influence_files.run_digests(dataclasses.replace(table, **{field: bits}))
        np.testing.assert_array_equal(np.flatnonzero((changed != digests).any(axis=1)), [3])
    other = influence_files.run_digests(dataclasses.replace(table, run_id=np.arange(12) + 1))
    assert (other != digests).any(axis=1).all()


@pytest.mark.parametrize("change", ["one gone", "one changed", "two the same", "more"])
def test_only_a_matrix_whose_runs_are_all_there_is_built_upon(tmp_path, change):
    table = make_table(14)
    write(tmp_path, table.take(np.arange(12)))
    given = influence_files.run_digests(table)
    if change == "one gone":
        given = given[1:]
    elif change == "one changed":
        given[5] ^= 1
    elif change == "two the same":
        path = tmp_path / "influence-0.7.npz"
        stored = npz.read(path, ["run_digest"])["run_digest"]
        stored[1] = stored[0]
        kept = influence_summary.read(path, *SHAPE)
        influence_summary.write(path, kept, {**common(PROVENANCE), "run_digest": stored})
    done = influence_files._runs_of_matrix(tmp_path, 0.7, given)
    if change == "more":
        assert done.tolist() == [True] * 12 + [False] * 2
    else:
        assert done is None


def test_counts_upon_a_matrix_are_those_of_all_runs(tmp_path):
    table = make_table(14)
    write(tmp_path, table.take(np.array([0, 2, 3, 5, 8, 9, 13])))
    counter = influence_files.counter_of(tmp_path, table, 0.7, influence_files.run_digests(table))
    found = np.empty(SHAPE, np.float32)
    counter.count(0, found)
    np.testing.assert_array_equal(found, table.subset_mask().astype(int).T @ table.test_correctness().astype(int))


@pytest.mark.parametrize("size", [0, 40, 500])
def test_a_damaged_matrix_is_not_built_upon(tmp_path, size):
    table = make_table(14)
    write(tmp_path, table.take(np.arange(12)))
    os.truncate(tmp_path / "subset_influence-0.7.npy", size)
    write(tmp_path, table, {**PROVENANCE, "table_digest": "1"})
    expected = influence_matrix.subset_influence(table, 0.7).values
    np.testing.assert_array_equal(np.load(tmp_path / "subset_influence-0.7.npy"), expected)


def test_influence_within_a_class_is_that_of_the_matrix(monkeypatch):
    monkeypatch.setattr(influence_files, "_CLASS_ROWS", 4)
    table = make_table()
    rows, columns = np.array([1, 5, 6, 12, 20, 21, 22, 33, 39]), np.array([0, 4, 8])
    blocks = list(influence_files.within_class(table)(rows, columns))
    assert [len(block) for block in blocks] == [4, 4, 1]
    whole = influence_matrix.subset_influence(table, 0.7).values
    np.testing.assert_array_equal(np.concatenate(blocks), whole[np.ix_(rows, columns)])


def test_leftovers_of_other_ratios_go_and_those_of_this_one_stay(tmp_path):
    for ratio in ("0.5", "0.7"):
        (tmp_path / f".subset_influence-{ratio}.parts").mkdir()
        (tmp_path / f".subset_influence-{ratio}.npy.part").write_bytes(b"x")
    (tmp_path / ".subset_influence-0.5.notes").write_bytes(b"x")
    influence_files.remove_leftovers(tmp_path, [0.7])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".subset_influence-0.5.notes",
        ".subset_influence-0.7.npy.part",
        ".subset_influence-0.7.parts",
    ]


def test_a_memory_limit_that_is_too_small_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(errors.InvalidValueError, match=r"need at least .* raise --memory_limit_mb"):
        influence_files.check_means(config(tmp_path, memory_limit_mb=1), make_table())

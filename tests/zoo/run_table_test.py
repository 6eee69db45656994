"""The run table: exact bits, every check, and a table that follows its run folders."""

import dataclasses
import errno
import hashlib
import os
import pathlib
import shlex
import shutil
import struct
import subprocess
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo import corruptions
from zoo import aux_arrays, errors, layout, npz, run_scan, run_table

N, M = 21, 10
RUNS = ((0.3, 0), (0.3, 2), (0.7, 1), (0.7, 10))


def random_run(seed, num_train=N, num_test=M, ratio=0.5):
    """Membership and correctness of one run, in original order."""
    generator = np.random.default_rng(seed)
    mask = np.isin(np.arange(num_train), generator.permutation(num_train)[: round(ratio * num_train)])
    return (mask, *(generator.random(size) < 0.5 for size in (num_train, num_test)))


def seed_of(ratio, run_id):
    return round(100 * ratio) + run_id


def add_run(zoo, ratio, run_id, seed=None, **sizes):
    run = layout.Run(zoo, "e", ratio, run_id)
    arrays = random_run(seed_of(ratio, run_id) if seed is None else seed, ratio=ratio, **sizes)
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(*arrays))
    return run, arrays


@pytest.fixture
def zoo(tmp_path):
    for ratio, run_id in reversed(RUNS):
        add_run(tmp_path, ratio, run_id)
    return tmp_path


def expected_matrices(runs=RUNS):
    arrays = [random_run(seed_of(ratio, run_id), ratio=ratio) for ratio, run_id in runs]
    return tuple(np.stack(column) for column in zip(*arrays, strict=True))


def runs_of(table):
    return list(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))


def example_table(**labels):
    ratios, ids = zip(*RUNS, strict=True)
    return run_table.from_arrays("e", np.array(ids), np.array(ratios), *expected_matrices(), **labels)


def assert_holds(table, runs=RUNS):
    assert runs_of(table) == list(runs)
    for found, expected in zip(
        (table.subset_mask(), table.train_correctness(), table.test_correctness()), expected_matrices(runs), strict=True
    ):
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)


def assert_equal(table, other):
    for field in dataclasses.fields(table):
        np.testing.assert_array_equal(getattr(table, field.name), getattr(other, field.name), err_msg=field.name)


def test_from_arrays():
    table = example_table()
    assert_holds(table)
    assert (table.num_runs, table.num_train, table.num_test) == (4, N, M)
    assert table.subset_ratios == (0.3, 0.7)
    assert not table.source_sha256.any()
    assert table.train_label is table.test_label is None


def test_rows_are_sorted_and_digest_does_not_depend_on_their_order():
    table = example_table()
    shuffle = np.array([2, 0, 3, 1])
    ratios, ids = (np.array(column)[shuffle] for column in zip(*RUNS, strict=True))
    shuffled = run_table.from_arrays("other", ids, ratios, *(matrix[shuffle] for matrix in expected_matrices()))
    assert_holds(shuffled)
    assert shuffled.digest() == table.digest()


def test_columns():
    table = example_table()
    mask, train_correctness, test_correctness = expected_matrices()
    np.testing.assert_array_equal(table.subset_mask(3, 19), mask[:, 3:19])
    np.testing.assert_array_equal(table.train_correctness(8), train_correctness[:, 8:])
    np.testing.assert_array_equal(table.test_correctness(9, 10), test_correctness[:, 9:])
    for method in (table.subset_mask, table.train_correctness):
        with pytest.raises(errors.InvalidValueError, match="within 0 to 21"):
            method(0, N + 1)
    with pytest.raises(errors.InvalidValueError, match="within 0 to 10"):
        table.test_correctness(0, M + 1)


def test_select():
    table = example_table(train_label=np.arange(N), test_label=np.arange(M)).select(0.7)
    assert_holds(table, RUNS[2:])
    assert table.train_label.tolist() == list(range(N))
    with pytest.raises(errors.InvalidValueError, match=r"subset_ratio is 0\.5, but e has runs at 0\.3, 0\.7"):
        example_table().select(0.5)


def test_take_refuses_rows_out_of_order():
    with pytest.raises(errors.InvalidValueError, match=r"run 0\.3/2 comes before 0\.3/0"):
        example_table().take(np.array([1, 0]))


def test_empty_tables():
    none = np.zeros((0, N), bool)
    table = run_table.from_arrays("e", np.zeros(0), np.zeros(0), none, none, np.zeros((0, M), bool))
    assert table.num_runs == 0
    assert table.subset_mask().shape == (0, N)
    with pytest.raises(errors.InvalidValueError, match="e has runs at no ratio"):
        table.select(0.5)


def test_digest_is_of_runs_membership_and_correctness_alone():
    table = example_table()
    digest = table.digest()
    assert len(digest) == 64
    same = table.with_labels(np.arange(N), np.arange(M))
    same = dataclasses.replace(same, experiment="f", source_mtime_ns=np.arange(4), source_size=np.arange(4))
    assert same.digest() == digest
    digests = {digest, table.select(0.3).digest()}
    for field in ("subset_mask_bits", "train_correctness_bits", "test_correctness_bits", "run_id", "subset_ratio"):
        changed = getattr(table, field).copy()
        changed.flat[-1] = changed.flat[-1] ^ 1 if changed.dtype != np.float64 else 0.9
        digests.add(dataclasses.replace(table, **{field: changed}).digest())
    assert len(digests) == 7


def test_digest_of_a_known_table():
    table = run_table.from_arrays("e", np.array([3]), np.array([0.5]), *(np.eye(1, 3, k, dtype=bool) for k in range(3)))
    known = b"1 1 3 3 " + struct.pack("<qd", 3, 0.5) + bytes([0b001, 0b010, 0b100])
    assert table.digest() == hashlib.sha256(known).hexdigest()


BROKEN = [
    ({"num_train": 0}, "num_train is 0"),
    ({"num_test": -1}, "num_test -1, expected 1 or more"),
    ({"num_train": 25}, r"subset_mask_bits has dtype uint8 and shape \(4, 3\), expected uint8 and \(4, 4\)"),
    ({"num_train": 18}, "subset_mask_bits has bits set beyond the last example 17"),
    ({"num_test": 9}, "test_correctness_bits has bits set beyond the last example 8"),
    ({"train_correctness_bits": np.full((4, 3), 255, np.uint8)}, "train_correctness_bits has bits set beyond"),
    ({"run_id": np.arange(4, dtype=np.int32)}, "run_id has dtype int32"),
    ({"run_id": np.array([[0, 2, 1, 10]])}, r"run_id has dtype int64 and shape \(1, 4\)"),
    ({"run_id": np.array([0, 0, 1, 10])}, r"run 0\.3/0 is there twice"),
    ({"run_id": np.array([0, 2, 10, 1])}, r"run 0\.7/10 comes before 0\.7/1, expected ratios and ids to ascend"),
    ({"run_id": np.array([-1, 2, 1, 10])}, "run_id holds negative values, the least is -1"),
    ({"source_size": np.array([0, 0, 0, -5])}, "source_size holds negative values, the least is -5"),
    ({"subset_ratio": np.array([0.7, 0.7, 0.3, 0.3])}, "comes before"),
    ({"subset_ratio": np.array([0.3, 0.3, 0.7, 1.0])}, "subset_ratio holds values outside"),
    ({"subset_ratio": np.array([0.3, 0.3, 0.7, np.nan])}, "subset_ratio holds values outside"),
    ({"source_sha256": np.zeros((4, 20), np.uint8)}, "source_sha256 has dtype uint8"),
    ({"source_mtime_ns": np.zeros(3, np.int64)}, "source_mtime_ns has dtype int64"),
    ({"train_label": np.zeros(N - 1, np.int64)}, "train_label has dtype int64"),
    ({"test_label": np.zeros(M, np.float64)}, "test_label has dtype float64"),
    ({"experiment": "a/b"}, "expected the name of one folder"),
]


@pytest.mark.parametrize(("changes", "match"), BROKEN)
def test_broken_tables_are_neither_made_nor_read(tmp_path, changes, match):
    table = example_table()
    with pytest.raises(errors.InvalidValueError, match=match):
        dataclasses.replace(table, **changes)
    run_table.write(tmp_path / "run_table.npz", table)
    with np.load(tmp_path / "run_table.npz") as loaded:
        np.savez(tmp_path / "run_table.npz", **(dict(loaded) | changes))
    with pytest.raises(errors.DamagedFileError, match=r"run_table\.npz: not a sound run table: .*" + match):
        run_table.read(tmp_path / "run_table.npz")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"schema_version": np.int64(2)}, "schema version 2, expected 1"),
        ({"schema_version": np.float64(1)}, "found dtype float64"),
        ({"num_train": np.array([N])}, r"found dtype int64 and shape \(1,\), expected one int64"),
        ({"experiment": np.array(["e"])}, "experiment is not one string"),
        ({"experiment": np.array(b"e")}, "experiment is not one string"),
    ],
)
def test_broken_scalars_are_not_read(tmp_path, changes, match):
    run_table.write(tmp_path / "run_table.npz", example_table())
    with np.load(tmp_path / "run_table.npz") as loaded:
        np.savez(tmp_path / "run_table.npz", **(dict(loaded) | changes))
    with pytest.raises(errors.DamagedFileError, match=match):
        run_table.read(tmp_path / "run_table.npz")


@pytest.mark.parametrize(
    ("position", "value", "match"),
    [
        (2, np.zeros((4, N)), "subset_mask has dtype float64"),
        (3, np.zeros((4, N + 1), bool), r"train_correctness .* expected bool and \(4, 21\)"),
        (4, np.zeros((3, M), bool), "test_correctness has dtype bool"),
        (1, np.array([0.3, 0.3, 0.7]), r"subset_ratio has shape \(3,\)"),
        (0, np.array([0, 0, 1, 1]), r"run 0\.3/0 is there twice"),
    ],
)
def test_from_arrays_refuses(position, value, match):
    ratios, ids = zip(*RUNS, strict=True)
    arguments = [np.array(ids), np.array(ratios), *expected_matrices()]
    arguments[position] = value
    with pytest.raises(errors.InvalidValueError, match=match):
        run_table.from_arrays("e", *arguments)


@pytest.mark.parametrize("labels", [{}, {"train_label": np.arange(N), "test_label": np.arange(M)}])
def test_round_trip(tmp_path, labels):
    table = example_table(**labels)
    run_table.write(tmp_path / "run_table.npz", table)
    assert_equal(run_table.read(tmp_path / "run_table.npz"), table)


def test_missing_table(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file"):
        run_table.read(tmp_path / "run_table.npz")


def test_with_labels():
    table = example_table().with_labels(np.arange(N, dtype=np.uint8), None)
    assert table.train_label.dtype == np.int64
    assert table.test_label is None
    table = table.with_labels(None, np.arange(M)).with_labels(np.arange(N), np.arange(M))
    assert table.test_label.tolist() == list(range(M))


@pytest.mark.parametrize(
    ("train_label", "test_label", "match"),
    [
        (np.arange(N - 1), None, r"train_label has dtype int64 and shape \(20,\), expected integers of shape \(21,\)"),
        (None, np.zeros(M), "test_label has dtype float64"),
        (None, np.where(np.arange(M) < 4, np.arange(M), 0), "test_label: example 4 has label 0, .* table says 4"),
    ],
)
def test_labels_that_do_not_fit(train_label, test_label, match):
    table = example_table(train_label=np.arange(N), test_label=np.arange(M))
    with pytest.raises(errors.MismatchError, match=match):
        table.with_labels(train_label, test_label)


def test_update_reads_all_runs(zoo):
    calls = []
    table, problems = run_table.update(zoo, "e", progress=lambda done, total: calls.append((done, total)))
    assert_holds(table)
    assert problems == []
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)
    assert table.digest() == example_table().digest()


def overwrite_in_place(path, data):
    """Other bytes of the same length under the same time of modification."""
    status = path.stat()
    path.write_bytes(data.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_runs_are_not_read_again_and_nothing_is_written(zoo):
    first, _ = run_table.update(zoo, "e")
    path = layout.run_table_path(zoo, "e")
    before = path.stat()
    overwrite_in_place(layout.Run(zoo, "e", 0.3, 2).aux_arrays_path, b"garbage that would not be accepted")
    table, problems = run_table.update(zoo, "e")
    assert_equal(table, first)
    assert problems == []
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_touched_runs_are_kept_by_digest(zoo, monkeypatch):
    run_table.update(zoo, "e")
    run = layout.Run(zoo, "e", 0.3, 2)
    os.utime(run.aux_arrays_path, ns=(5, 5))
    monkeypatch.delattr(aux_arrays, "read")
    table, problems = run_table.update(zoo, "e")
    assert_holds(table)
    assert problems == []
    assert table.source_mtime_ns[1] == 5
    assert run_table.read(layout.run_table_path(zoo, "e")).source_mtime_ns[1] == 5


def fresh_table(zoo):
    """What an update without a stored table gives."""
    path = layout.run_table_path(zoo, "e")
    kept = path.read_bytes()
    path.unlink()
    table, problems = run_table.update(zoo, "e")
    path.write_bytes(kept)
    return table, problems


def test_update_follows_the_folders(zoo):
    run_table.update(zoo, "e")
    _, new = add_run(zoo, 0.5, 4)
    _, changed = add_run(zoo, 0.7, 10, seed=99)
    partial = layout.Run(zoo, "e", 0.3, 7)
    partial.checkpoints_directory.mkdir(parents=True)
    damaged = layout.Run(zoo, "e", 0.7, 1)
    damaged.aux_arrays_path.write_bytes(damaged.aux_arrays_path.read_bytes()[:-20])

    table, problems = run_table.update(zoo, "e")
    assert runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 10)]
    for row, arrays in ((2, new), (3, changed)):
        for method, array in zip(("subset_mask", "train_correctness", "test_correctness"), arrays, strict=True):
            np.testing.assert_array_equal(getattr(table, method)()[row], array)
    assert [(problem.run, problem.state) for problem in problems] == [(partial, "partial"), (damaged, "damaged")]
    assert "aux_arrays.npz: not there" in problems[0].reason
    assert "not a sound npz file" in problems[1].reason
    assert str(damaged.aux_arrays_path) in problems[1].reason
    assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)
    fresh, fresh_problems = fresh_table(zoo)
    assert_equal(table, fresh)
    assert problems == fresh_problems

    add_run(zoo, 0.7, 1)
    table, problems = run_table.update(zoo, "e")
    assert runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 1), (0.7, 10)]
    assert [problem.run for problem in problems] == [partial]


def test_rows_stay_when_their_folders_or_records_go(zoo):
    first, _ = run_table.update(zoo, "e")
    shutil.rmtree(layout.Run(zoo, "e", 0.3, 0).directory)
    layout.Run(zoo, "e", 0.7, 1).aux_arrays_path.unlink()
    table, problems = run_table.update(zoo, "e")
    assert_equal(table, first)
    assert problems == []
    assert_equal(run_table.read(layout.run_table_path(zoo, "e")), first)

    shutil.rmtree(zoo / "e" / "0.3")
    (zoo / "e" / "0.3").write_text("a file, where a folder was")
    _, new = add_run(zoo, 0.5, 4)
    table, _ = run_table.update(zoo, "e")
    assert runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 1), (0.7, 10)]
    np.testing.assert_array_equal(table.subset_mask()[2], new[0])


def test_rows_are_forgotten_by_deleting_the_table(zoo):
    run_table.update(zoo, "e")
    shutil.rmtree(layout.Run(zoo, "e", 0.3, 0).directory)
    layout.Run(zoo, "e", 0.7, 1).aux_arrays_path.unlink()
    layout.run_table_path(zoo, "e").unlink()
    table, problems = run_table.update(zoo, "e")
    assert_holds(table, [RUNS[1], RUNS[3]])
    assert [problem.state for problem in problems] == ["partial"]


def test_a_folder_that_was_renamed_is_a_copy_of_the_row_that_stays(zoo):
    first, _ = run_table.update(zoo, "e")
    renamed = layout.Run(zoo, "e", 0.7, 0)
    layout.Run(zoo, "e", 0.7, 1).directory.rename(renamed.directory)
    table, problems = run_table.update(zoo, "e")
    assert_equal(table, first)
    assert [(problem.run, problem.state) for problem in problems] == [(renamed, "damaged")]
    assert f"the same record as {zoo}/e/0.7/1" in problems[0].reason


@pytest.mark.parametrize("sizes", [{"num_train": N + 1}, {"num_test": M + 1}])
def test_runs_of_another_size_are_damaged(zoo, sizes):
    add_run(zoo, 0.5, 4, **sizes)
    table, problems = run_table.update(zoo, "e")
    assert_holds(table)
    assert [problem.state for problem in problems] == ["damaged"]
    assert "training and" in problems[0].reason
    assert f"most runs, such as {zoo}/e/0.3/0, have {N} and {M}" in problems[0].reason
    again, _ = run_table.update(zoo, "e")
    assert_equal(again, table)


def test_the_majority_decides_on_sizes_and_then_the_table(zoo):
    add_run(zoo, 0.1, 0, num_train=N + 1)
    table, problems = run_table.update(zoo, "e")
    assert_holds(table)
    assert [problem.run.subset_ratio for problem in problems] == [0.1]
    for run_id in range(9):
        add_run(zoo, 0.2, run_id, num_train=N + 1)
    again, problems = run_table.update(zoo, "e")
    assert_equal(again, table)
    assert len(problems) == 10
    assert f"22 training and 10 test examples, but the run table has {N} and {M}" in problems[0].reason


def test_runs_that_all_changed_size_are_a_mismatch(zoo):
    run_table.update(zoo, "e")
    for ratio, run_id in RUNS:
        add_run(zoo, ratio, run_id, num_train=N + 1)
    with pytest.raises(errors.MismatchError, match="run table has 21 training and 10 test examples, the runs now 22"):
        run_table.update(zoo, "e")


def test_update_without_a_good_run(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no finished run: 0 run folders"):
        run_table.update(tmp_path, "e")
    layout.Run(tmp_path, "e", 0.5, 0).directory.mkdir(parents=True)
    with pytest.raises(errors.MissingFileError, match=r"1 run folders, .*; the first: .*aux_arrays.npz: not there"):
        run_table.update(tmp_path, "e")
    assert not layout.run_table_path(tmp_path, "e").exists()


def test_update_once_no_run_is_good_any_more(zoo):
    table, _ = run_table.update(zoo, "e")
    for run in layout.runs(zoo, "e"):
        run.aux_arrays_path.write_bytes(b"PK")
    with pytest.raises(errors.MissingFileError, match="no finished run: 4 run folders"):
        run_table.update(zoo, "e")
    assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)


def test_a_streamed_table_without_run_folders_is_kept(tmp_path):
    table = example_table()
    run_table.write(layout.run_table_path(tmp_path, "e"), table)
    kept, problems = run_table.update(tmp_path, "e")
    assert_equal(kept, table)
    assert problems == []
    labelled, _ = run_table.update(tmp_path, "e", train_label=np.arange(N), test_label=np.arange(M))
    assert_equal(run_table.read(layout.run_table_path(tmp_path, "e")), labelled)
    assert labelled.test_label is not None


def test_a_streamed_table_with_a_few_fetched_runs(tmp_path):
    table = example_table()
    run_table.write(layout.run_table_path(tmp_path, "e"), table)
    add_run(tmp_path, 0.3, 2)
    layout.Run(tmp_path, "e", 0.7, 1).checkpoints_directory.mkdir(parents=True)
    unknown = layout.Run(tmp_path, "e", 0.7, 2)
    unknown.directory.mkdir()
    updated, problems = run_table.update(tmp_path, "e")
    assert_holds(updated)
    assert updated.source_sha256.any(axis=1).tolist() == [False, True, False, False]
    assert [(problem.run, problem.state) for problem in problems] == [(unknown, "partial")]


class Killed(BaseException):
    """Ends an update as a kill does."""


def kill_after(number):
    def progress(done, total):
        if done == number:
            raise Killed

    return progress


def test_a_long_update_saves_what_it_has(zoo, monkeypatch):
    path = layout.run_table_path(zoo, "e")
    with pytest.raises(Killed):
        run_table.update(zoo, "e", progress=kill_after(2))
    assert not path.exists(), "short updates write at the end only"
    monkeypatch.setattr(run_scan, "SAVE_INTERVAL_S", 0)
    with pytest.raises(Killed):
        run_table.update(zoo, "e", progress=kill_after(2))
    assert_holds(run_table.read(path), RUNS[:2])
    overwrite_in_place(layout.Run(zoo, "e", 0.3, 2).aux_arrays_path, b"known already, so not read again")
    table, problems = run_table.update(zoo, "e")
    assert_holds(table)
    assert problems == []


def test_what_is_saved_on_the_way_keeps_the_rows_to_come_and_no_copies_in_the_end(zoo, monkeypatch):
    monkeypatch.setattr(run_scan, "SAVE_INTERVAL_S", 0)
    path = layout.run_table_path(zoo, "e")
    table, _ = run_table.update(zoo, "e")
    shutil.copytree(layout.Run(zoo, "e", 0.3, 2).directory, layout.Run(zoo, "e", 0.3, 3).directory)
    with pytest.raises(Killed):
        run_table.update(zoo, "e", progress=kill_after(3))
    assert runs_of(run_table.read(path)) == [(0.3, 0), (0.3, 2), (0.3, 3), (0.7, 1), (0.7, 10)]
    again, problems = run_table.update(zoo, "e")
    assert_equal(again, table)
    assert_equal(run_table.read(path), table)
    assert len(problems) == 1


NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def test_a_zoo_that_cannot_be_written_is_read_all_the_same(zoo):
    mount = f"mount --bind {zoo} {zoo} && mount -o remount,ro,bind {zoo}"
    try:
        possible = subprocess.run([*NAMESPACE, "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    program = f"from zoo import run_table; print(run_table.update({str(zoo)!r}, 'e')[0].digest())"
    command = f"{mount} && {sys.executable} -c {shlex.quote(program)}"
    result = subprocess.run(
        [*NAMESPACE, "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert result.stdout.strip() == example_table().digest(), result.stderr
    assert not layout.run_table_path(zoo, "e").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_other_errors_in_writing_are_not_passed_over(zoo, monkeypatch, number):
    def fail(path, table):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_table, "write", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        run_table.update(zoo, "e")


def test_labels_are_stored_and_defended(zoo):
    run_table.update(zoo, "e", train_label=np.arange(N), test_label=np.arange(M))
    add_run(zoo, 0.5, 4)
    table, _ = run_table.update(zoo, "e")
    assert table.train_label.tolist() == list(range(N))
    assert table.test_label.tolist() == list(range(M))
    with pytest.raises(errors.MismatchError, match=r"train_label: example 0 has label 20, .* says 0"):
        run_table.update(zoo, "e", train_label=np.arange(N)[::-1])
    with pytest.raises(errors.MismatchError, match=r"test_label has dtype int64 and shape \(9,\)"):
        run_table.update(zoo, "e", test_label=np.arange(M - 1))


def test_update_refuses_the_table_of_another_experiment(zoo):
    run_table.update(zoo, "e")
    (zoo / "e").rename(zoo / "f")
    with pytest.raises(errors.MismatchError, match="the table of experiment e, found in the folder of f"):
        run_table.update(zoo, "f")


def test_update_refuses_a_damaged_table(zoo):
    layout.run_table_path(zoo, "e").write_bytes(b"nothing of use")
    with pytest.raises(errors.DamagedFileError, match=r"run_table\.npz: not a sound npz file"):
        run_table.update(zoo, "e")


@pytest.fixture(scope="module")
def cifar_sized_zoo(tmp_path_factory):
    """Five runs of 50000 and 10000 examples, written as the published files are: int64 throughout, uncompressed."""
    zoo = tmp_path_factory.mktemp("cifar")
    for run_id in range(5):
        aux = aux_arrays.from_masks(*random_run(run_id, 50_000, 10_000))
        run = layout.Run(zoo, "e", 0.5, run_id)
        run.directory.mkdir(parents=True)
        arrays = {
            "index_removed": aux.index_heldout,
            "correctness_removed": aux.correctness_heldout.astype(np.int64),
            "subsample_idx": aux.subsample_idx,
        }
        for split in ("train", "test"):
            arrays[f"index_{split}"] = getattr(aux, f"index_{split}")
            arrays[f"correctness_{split}"] = getattr(aux, f"correctness_{split}").astype(np.int64)
        np.savez(run.aux_arrays_path, **arrays)
    return zoo


def test_table_is_fifty_times_smaller_than_its_sources(cifar_sized_zoo):
    table, _ = run_table.update(cifar_sized_zoo, "e")
    sources = sum(run.aux_arrays_path.stat().st_size for run in layout.runs(cifar_sized_zoo, "e"))
    assert table.num_runs == 5
    assert layout.run_table_path(cifar_sized_zoo, "e").stat().st_size * 50 < sources


def test_a_large_table_is_read_at_once(tmp_path):
    num_runs, train_bytes, test_bytes = 1000, 50_000 // 8, 10_000 // 8
    generator = np.random.default_rng(0)
    table = run_table.RunTable(
        experiment="e",
        num_train=50_000,
        num_test=10_000,
        run_id=np.arange(num_runs),
        subset_ratio=np.full(num_runs, 0.5),
        subset_mask_bits=generator.integers(0, 256, (num_runs, train_bytes), np.uint8),
        train_correctness_bits=generator.integers(0, 256, (num_runs, train_bytes), np.uint8),
        test_correctness_bits=generator.integers(0, 256, (num_runs, test_bytes), np.uint8),
        source_sha256=np.zeros((num_runs, 32), np.uint8),
        source_size=np.zeros(num_runs, np.int64),
        source_mtime_ns=np.zeros(num_runs, np.int64),
    )
    run_table.write(tmp_path / "run_table.npz", table)
    start = time.monotonic()
    read = run_table.read(tmp_path / "run_table.npz")
    # It takes about 20 ms; the bound only tells reading it from unpacking or sorting something on the way.
    assert time.monotonic() - start < 2
    assert read.digest() == table.digest()


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_fuzz_damaged_tables(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("table") / "run_table.npz"
    table = example_table(train_label=np.arange(N), test_label=np.arange(M))
    run_table.write(path, table)
    path.write_bytes(data.draw(corruptions.corrupted(path.read_bytes())))
    try:
        read = run_table.read(path)
    except errors.HeldoutError:
        return
    if read.train_label is None or read.test_label is None:
        # The name of an optional member can be damaged without harm to the others.
        assert_equal(read.with_labels(np.arange(N), np.arange(M)), table)
    else:
        assert_equal(read, table)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_fuzz_random_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random_table.npz"
    path.write_bytes(data)
    with pytest.raises(errors.DamagedFileError, match=r"random_table\.npz"):
        run_table.read(path)


CONTENTS = st.builds(
    lambda values, dtype, shape: np.array(values).astype(dtype).reshape(shape),
    st.lists(st.integers(0, 255), min_size=6, max_size=6),
    st.sampled_from([np.uint8, np.int64, np.float64, bool, "U3"]),
    st.sampled_from([(6,), (2, 3), (1, 6), (6, 1), (3, 2)]),
) | st.builds(np.int64, st.integers(-(2**62), 2**62))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_fuzz_contents(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("contents")
    run_table.write(folder / "valid.npz", example_table())
    with np.load(folder / "valid.npz") as loaded:
        arrays = dict(loaded)
    arrays |= data.draw(
        st.dictionaries(st.sampled_from([*sorted(arrays), "train_label"]), CONTENTS, min_size=1, max_size=2)
    )
    npz.write(folder / "run_table.npz", arrays)
    try:
        table = run_table.read(folder / "run_table.npz")
    except errors.DamagedFileError:
        return
    assert table.subset_mask().shape == table.train_correctness().shape == (table.num_runs, table.num_train)
    assert table.test_correctness().shape == (table.num_runs, table.num_test)
    assert runs_of(table) == sorted(set(runs_of(table)))

"""A scan gives a row for each sound run, takes over what it knows, and says what is wrong with the others."""

import dataclasses
import os
import shutil
import sys

import numpy as np
import pytest

from zoo import aux_arrays, errors, layout, packed_bits, run_scan


def finished_run(zoo, run_id, num_train=11, ratio=0.5, subset_size=None):
    generator = np.random.default_rng(run_id)
    subset_size = round(ratio * num_train) if subset_size is None else subset_size
    mask = np.isin(np.arange(num_train), generator.permutation(num_train)[:subset_size])
    train, test = (generator.random(size) < 0.5 for size in (num_train, 5))
    run = layout.Run(zoo, "e", ratio, run_id)
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, train, test))
    return run, (mask, train, test)


def test_rows_and_problems_in_order(tmp_path):
    first, arrays = finished_run(tmp_path, 0)
    partial = layout.Run(tmp_path, "e", 0.5, 1)
    folder = layout.Run(tmp_path, "e", 0.5, 2)
    folder.aux_arrays_path.mkdir(parents=True)
    other_size, _ = finished_run(tmp_path, 3, num_train=12)
    last, _ = finished_run(tmp_path, 4)
    calls = []
    runs = [first, partial, folder, other_size, last]
    rows, problems = run_scan.scan(runs, {}, lambda done, total: calls.append((done, total)))
    assert [row.run for row in rows] == [first, last]
    assert [(problem.run, problem.state) for problem in problems] == [
        (partial, "partial"),
        (folder, "damaged"),
        (other_size, "damaged"),
    ]
    assert "aux_arrays.npz: a folder, expected a file" in problems[1].reason
    assert f"12 training and 5 test examples, but most runs, such as {first.directory}" in problems[2].reason
    assert calls == [(done, 5) for done in range(1, 6)]
    bits = (rows[0].subset_mask_bits, rows[0].train_correctness_bits, rows[0].test_correctness_bits)
    for packed, array in zip(bits, arrays, strict=True):
        np.testing.assert_array_equal(packed, packed_bits.pack(array))
    assert (rows[0].num_train, rows[0].num_test) == (11, 5)
    assert rows[0].source_size == first.aux_arrays_path.stat().st_size


def test_known_rows_are_taken_over_only_where_the_file_is_the_same(tmp_path):
    run, _ = finished_run(tmp_path, 0)
    (row,), _ = run_scan.scan([run], {})
    assert run_scan.scan([run], {run: row})[0][0] is row
    (touched,), _ = run_scan.scan([run], {run: dataclasses.replace(row, source_mtime_ns=1)})
    assert touched.subset_mask_bits is row.subset_mask_bits
    assert touched.source_mtime_ns == row.source_mtime_ns
    (resized,), _ = run_scan.scan([run], {run: dataclasses.replace(row, source_size=1)})
    assert resized.subset_mask_bits is not row.subset_mask_bits


def test_known_rows_without_a_file_are_taken_over(tmp_path):
    run, _ = finished_run(tmp_path, 0)
    (row,), _ = run_scan.scan([run], {})
    run.aux_arrays_path.unlink()
    assert run_scan.scan([run], {run: row}) == ([row], [])
    shutil.rmtree(run.directory)
    assert run_scan.scan([run], {run: row}) == ([row], [])


def test_the_majority_decides_on_sizes_unless_they_are_given(tmp_path):
    odd, _ = finished_run(tmp_path, 0, num_train=12)
    others = [finished_run(tmp_path, run_id)[0] for run_id in (1, 2)]
    rows, problems = run_scan.scan([odd, *others], {})
    assert [row.run for row in rows] == others
    assert [problem.run for problem in problems] == [odd]
    rows, problems = run_scan.scan([odd, *others], {}, sizes=(12, 5))
    assert [row.run for row in rows] == [odd]
    assert "11 training and 5 test examples, but the run table has 12 and 5" in problems[0].reason
    assert [row.run for row in run_scan.scan([odd, others[0]], {})[0]] == [odd], "of two the first"


@pytest.mark.parametrize(
    ("num_train", "ratio", "subset_size", "sound"),
    [
        (1438, 0.7, 144, False),
        (1438, 0.7, 1007, True),
        (1438, 0.7, 1013, True),
        (1438, 0.7, 1014, False),
        (1438, 0.7, 999, False),
        (10, 0.7, 6, True),
        (10, 0.7, 8, True),
        (10, 0.7, 5, False),
        (10, 0.7, 9, False),
        (3, 0.5, 3, False),
    ],
)
def test_membership_is_held_against_the_folder(tmp_path, num_train, ratio, subset_size, sound):
    run, _ = finished_run(tmp_path, 0, num_train, ratio, subset_size)
    rows, problems = run_scan.scan([run], {})
    assert bool(rows) == sound
    if not sound:
        assert problems[0].state == "damaged"
        reason = f"aux_arrays.npz: trained on {subset_size} of {num_train} examples, but lies under {ratio}"
        assert problems[0].reason.endswith(reason)


def test_the_later_of_two_runs_with_the_same_record_is_damaged(tmp_path):
    first, _ = finished_run(tmp_path, 0)
    other, _ = finished_run(tmp_path, 1)
    copies = [layout.Run(tmp_path, "e", 0.5, run_id) for run_id in (2, 3)]
    for copy in copies:
        shutil.copytree(first.directory, copy.directory)
    rows, problems = run_scan.scan([first, other, *copies], {})
    assert [row.run for row in rows] == [first, other]
    assert [(problem.run, problem.state) for problem in problems] == [(copy, "damaged") for copy in copies]
    assert all(f"the same record as {first.directory}" in problem.reason for problem in problems)
    known = {row.run: row for row in rows}
    assert len(run_scan.scan([first, other, *copies], known)[0]) == 2


def test_rows_without_a_source_are_no_copies_of_each_other(tmp_path):
    runs = [finished_run(tmp_path, run_id)[0] for run_id in (0, 1)]
    rows, _ = run_scan.scan(runs, {})
    known = {row.run: dataclasses.replace(row, source_sha256=np.zeros(32, np.uint8)) for row in rows}
    for run in runs:
        run.aux_arrays_path.unlink()
    assert len(run_scan.scan(runs, known)[0]) == 2


def test_a_record_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    loop, _ = finished_run(tmp_path, 0)
    loop.aux_arrays_path.unlink()
    loop.aux_arrays_path.symlink_to(loop.aux_arrays_path)
    pipe, _ = finished_run(tmp_path, 1)
    pipe.aux_arrays_path.unlink()
    os.mkfifo(pipe.aux_arrays_path)
    huge, _ = finished_run(tmp_path, 2)
    os.truncate(huge.aux_arrays_path, aux_arrays.MAX_BYTES + 1)
    sound, _ = finished_run(tmp_path, 3)
    rows, problems = run_scan.scan([loop, pipe, huge, sound], {})
    assert [row.run for row in rows] == [sound]
    assert [problem.state for problem in problems] == ["damaged"] * 3
    assert problems[0].reason == f"{loop.aux_arrays_path}: cannot be read: Too many levels of symbolic links"
    assert problems[1].reason == f"{pipe.aux_arrays_path}: a pipe or device, expected a file"
    assert problems[2].reason == f"{huge.aux_arrays_path}: 2.1 GB, a record has 2.1 GB at most"


def test_each_record_is_opened_once(tmp_path):
    run, _ = finished_run(tmp_path, 0)
    opened = []
    listening = True

    def listen(event, arguments):
        if listening and event == "open" and arguments[0] == str(run.aux_arrays_path):
            opened.append(arguments[0])

    sys.addaudithook(listen)
    run_scan.scan([run], {})
    listening = False
    assert len(opened) == 1


def test_nothing_to_scan():
    assert run_scan.scan([], {}) == ([], [])


def test_the_row_of_a_record_that_was_read_elsewhere(tmp_path):
    run, _ = finished_run(tmp_path, 0)
    content = run.aux_arrays_path.read_bytes()
    (expected,), _ = run_scan.scan([run], {})
    elsewhere = dataclasses.replace(run, zoo=tmp_path / "no such folder")
    found = run_scan.row_from_record(elsewhere, content, mtime_ns=expected.source_mtime_ns)
    for field in dataclasses.fields(expected):
        if field.name != "run":
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
    assert found.run == elsewhere
    assert run_scan.row_from_record(elsewhere, content).source_mtime_ns == 0
    assert not elsewhere.zoo.exists()


def test_a_record_that_was_read_elsewhere_is_held_against_the_same_rules(tmp_path):
    run, _ = finished_run(tmp_path, 0)
    content = run.aux_arrays_path.read_bytes()
    for changed, options, message in (
        (b"no npz", {}, "not a sound npz file"),
        (content[:-1], {}, "not a sound npz file"),
        (content, {"max_bytes": 100}, "its arrays declare [0-9]+ bytes, the limit is 100"),
    ):
        with pytest.raises(errors.DamagedFileError, match=message) as caught:
            run_scan.row_from_record(run, changed, **options)
        assert str(caught.value).startswith(f"{run.aux_arrays_path}: ")
    other = dataclasses.replace(run, subset_ratio=0.9)
    with pytest.raises(errors.DamagedFileError, match=r"trained on 6 of 11 examples, but lies under 0\.9"):
        run_scan.row_from_record(other, content)

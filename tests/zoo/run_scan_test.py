"""A scan gives a row for each sound run, takes over what it knows, and says what is wrong with the others."""

import dataclasses

import numpy as np

from zoo import aux_arrays, layout, packed_bits, run_scan


def finished_run(zoo, run_id, num_train=11):
    generator = np.random.default_rng(run_id)
    mask, train, test = (generator.random(size) < 0.5 for size in (num_train, num_train, 5))
    run = layout.Run(zoo, "e", 0.5, run_id)
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
    assert "12 training and 5 test examples, but the first run" in problems[2].reason
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


def test_nothing_to_scan():
    assert run_scan.scan([], {}) == ([], [])

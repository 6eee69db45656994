"""Small simulated runs, written as run folders, and the tables that they must give."""

import dataclasses

import numpy as np

from zoo import aux_arrays, layout, run_table

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

"""The run table: exact bits, and every check."""

import dataclasses
import hashlib
import struct
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo import corruptions, runs
from zoo import aux_arrays, errors, layout, npz, run_table, run_table_update


def test_from_arrays():
    table = runs.example_table()
    runs.assert_holds(table)
    assert (table.num_runs, table.num_train, table.num_test) == (4, runs.N, runs.M)
    assert table.subset_ratios == (0.3, 0.7)
    assert not table.source_sha256.any()
    assert table.train_label is table.test_label is None


def test_rows_are_sorted_and_digest_does_not_depend_on_their_order():
    table = runs.example_table()
    shuffle = np.array([2, 0, 3, 1])
    ratios, ids = (np.array(column)[shuffle] for column in zip(*runs.RUNS, strict=True))
    shuffled = run_table.from_arrays("other", ids, ratios, *(matrix[shuffle] for matrix in runs.expected_matrices()))
    runs.assert_holds(shuffled)
    assert shuffled.digest() == table.digest()


def test_columns():
    table = runs.example_table()
    mask, train_correctness, test_correctness = runs.expected_matrices()
    np.testing.assert_array_equal(table.subset_mask(3, 19), mask[:, 3:19])
    np.testing.assert_array_equal(table.train_correctness(8), train_correctness[:, 8:])
    np.testing.assert_array_equal(table.test_correctness(9, 10), test_correctness[:, 9:])
    for method in (table.subset_mask, table.train_correctness):
        with pytest.raises(errors.InvalidValueError, match="within 0 to 21"):
            method(0, runs.N + 1)
    with pytest.raises(errors.InvalidValueError, match="within 0 to 10"):
        table.test_correctness(0, runs.M + 1)


def test_select():
    table = runs.example_table(train_label=np.arange(runs.N), test_label=np.arange(runs.M)).select(0.7)
    runs.assert_holds(table, runs.RUNS[2:])
    assert table.train_label.tolist() == list(range(runs.N))
    with pytest.raises(errors.InvalidValueError, match=r"subset_ratio is 0\.5, but e has runs at 0\.3, 0\.7"):
        runs.example_table().select(0.5)


def test_take_refuses_rows_out_of_order():
    with pytest.raises(errors.InvalidValueError, match=r"run 0\.3/2 comes before 0\.3/0"):
        runs.example_table().take(np.array([1, 0]))


def test_empty_tables():
    none = np.zeros((0, runs.N), bool)
    table = run_table.from_arrays("e", np.zeros(0), np.zeros(0), none, none, np.zeros((0, runs.M), bool))
    assert table.num_runs == 0
    assert table.subset_mask().shape == (0, runs.N)
    with pytest.raises(errors.InvalidValueError, match="e has runs at no ratio"):
        table.select(0.5)


def test_digest_is_of_runs_membership_and_correctness_alone():
    table = runs.example_table()
    digest = table.digest()
    assert len(digest) == 64
    same = table.with_labels(np.arange(runs.N), np.arange(runs.M))
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
    ({"train_label": np.zeros(runs.N - 1, np.int64)}, "train_label has dtype int64"),
    ({"test_label": np.zeros(runs.M, np.float64)}, "test_label has dtype float64"),
    ({"experiment": "a/b"}, "expected the name of one folder"),
]


@pytest.mark.parametrize(("changes", "match"), BROKEN)
def test_broken_tables_are_neither_made_nor_read(tmp_path, changes, match):
    table = runs.example_table()
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
        ({"num_train": np.array([runs.N])}, r"found dtype int64 and shape \(1,\), expected one int64"),
        ({"experiment": np.array(["e"])}, "experiment is not one string"),
        ({"experiment": np.array(b"e")}, "experiment is not one string"),
    ],
)
def test_broken_scalars_are_not_read(tmp_path, changes, match):
    run_table.write(tmp_path / "run_table.npz", runs.example_table())
    with np.load(tmp_path / "run_table.npz") as loaded:
        np.savez(tmp_path / "run_table.npz", **(dict(loaded) | changes))
    with pytest.raises(errors.DamagedFileError, match=match):
        run_table.read(tmp_path / "run_table.npz")


@pytest.mark.parametrize(
    ("position", "value", "match"),
    [
        (2, np.zeros((4, runs.N)), "subset_mask has dtype float64"),
        (3, np.zeros((4, runs.N + 1), bool), r"train_correctness .* expected bool and \(4, 21\)"),
        (4, np.zeros((3, runs.M), bool), "test_correctness has dtype bool"),
        (1, np.array([0.3, 0.3, 0.7]), r"subset_ratio has shape \(3,\)"),
        (0, np.array([0, 0, 1, 1]), r"run 0\.3/0 is there twice"),
    ],
)
def test_from_arrays_refuses(position, value, match):
    ratios, ids = zip(*runs.RUNS, strict=True)
    arguments = [np.array(ids), np.array(ratios), *runs.expected_matrices()]
    arguments[position] = value
    with pytest.raises(errors.InvalidValueError, match=match):
        run_table.from_arrays("e", *arguments)


@pytest.mark.parametrize("labels", [{}, {"train_label": np.arange(runs.N), "test_label": np.arange(runs.M)}])
def test_round_trip(tmp_path, labels):
    table = runs.example_table(**labels)
    run_table.write(tmp_path / "run_table.npz", table)
    runs.assert_equal(run_table.read(tmp_path / "run_table.npz"), table)


def columns_of(table, step):
    """The matrices of a table in blocks of some rows."""
    fields = ("subset_mask_bits", "train_correctness_bits", "test_correctness_bits", "source_sha256")
    return {field: [getattr(table, field)[at : at + step] for at in range(0, table.num_runs, step)] for field in fields}


def write_rows(path, table, columns):
    sizes = (table.num_train, table.num_test)
    run_table.write_rows(path, table.experiment, *sizes, table.run_id, table.subset_ratio, table.source_size, columns)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_rows_one_after_the_other_give_the_same_file(tmp_path, step):
    table = dataclasses.replace(
        runs.example_table(), source_sha256=np.arange(4 * 32, dtype=np.uint8).reshape(4, 32), source_size=np.arange(4)
    )
    run_table.write(tmp_path / "whole.npz", table)
    columns = {field: iter(blocks) for field, blocks in columns_of(table, step).items()}
    write_rows(tmp_path / "rows.npz", table, columns)
    assert (tmp_path / "rows.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    runs.assert_equal(run_table.read(tmp_path / "rows.npz"), table)


@pytest.mark.parametrize("field", ["subset_mask_bits", "test_correctness_bits", "source_sha256"])
@pytest.mark.parametrize(
    "change",
    [lambda blocks: blocks[1:], lambda blocks: [*blocks, blocks[0]], lambda blocks: [block[:, 1:] for block in blocks]],
    ids=["too few", "too many", "too narrow"],
)
def test_rows_that_do_not_add_up_give_no_file(tmp_path, field, change):
    table = runs.example_table()
    columns = columns_of(table, 1)
    columns[field] = change(columns[field])
    with pytest.raises(errors.InvalidValueError, match=field):
        write_rows(tmp_path / "rows.npz", table, columns)
    assert list(tmp_path.iterdir()) == []


def test_missing_table(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file"):
        run_table.read(tmp_path / "run_table.npz")


def test_with_labels():
    table = runs.example_table().with_labels(np.arange(runs.N, dtype=np.uint8), None)
    assert table.train_label.dtype == np.int64
    assert table.test_label is None
    table = table.with_labels(None, np.arange(runs.M)).with_labels(np.arange(runs.N), np.arange(runs.M))
    assert table.test_label.tolist() == list(range(runs.M))


@pytest.mark.parametrize(
    ("train_label", "test_label", "match"),
    [
        (
            np.arange(runs.N - 1),
            None,
            r"train_label has dtype int64 and shape \(20,\), expected integers of shape \(21,\)",
        ),
        (None, np.zeros(runs.M), "test_label has dtype float64"),
        (
            None,
            np.where(np.arange(runs.M) < 4, np.arange(runs.M), 0),
            "test_label: example 4 has label 0, .* table says 4",
        ),
    ],
)
def test_labels_that_do_not_fit(train_label, test_label, match):
    table = runs.example_table(train_label=np.arange(runs.N), test_label=np.arange(runs.M))
    with pytest.raises(errors.MismatchError, match=match):
        table.with_labels(train_label, test_label)


@pytest.fixture(scope="module")
def cifar_sized_zoo(tmp_path_factory):
    """Five runs of 50000 and 10000 examples, written as the published files are: int64 throughout, uncompressed."""
    zoo = tmp_path_factory.mktemp("cifar")
    for run_id in range(5):
        aux = aux_arrays.from_masks(*runs.random_run(run_id, 50_000, 10_000))
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
    table, _ = run_table_update.update(cifar_sized_zoo, "e")
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
    table = runs.example_table(train_label=np.arange(runs.N), test_label=np.arange(runs.M))
    run_table.write(path, table)
    path.write_bytes(data.draw(corruptions.corrupted(path.read_bytes())))
    try:
        read = run_table.read(path)
    except errors.HeldoutError:
        return
    if read.train_label is None or read.test_label is None:
        # The name of an optional member can be damaged without harm to the others.
        runs.assert_equal(read.with_labels(np.arange(runs.N), np.arange(runs.M)), table)
    else:
        runs.assert_equal(read, table)


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
    run_table.write(folder / "valid.npz", runs.example_table())
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
    assert runs.runs_of(table) == sorted(set(runs.runs_of(table)))

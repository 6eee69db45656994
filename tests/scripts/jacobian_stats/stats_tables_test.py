"""Shards are joined as one run would have written them, or refused by name."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from scripts.jacobian_stats import stats_files, stats_published, stats_tables
from tests.scripts.jacobian_stats import tables
from zoo import errors

_ROOT = pathlib.Path(__file__).parents[3]


def joined(folder):
    (group,) = stats_tables.grouped(stats_tables.find([str(folder)]))
    return stats_tables.whole(group)


@pytest.mark.parametrize("num", [1, 2, 3, 10])
def test_shards_become_one_table_in_the_order_of_the_split(tmp_path, num):
    tables.write_shards(tmp_path, num)
    found = joined(tmp_path)
    np.testing.assert_array_equal(found.arrays["id"], np.arange(100, 110))
    np.testing.assert_array_equal(found.arrays["jacobian"], np.arange(10))
    assert (found.table.shard, found.table.num_rows) == ((1, 1), 10)


def test_a_whole_table_is_taken_beside_its_shards(tmp_path):
    tables.write_shards(tmp_path, 2)
    path = tables.write(tmp_path, tables.table(), tables.arrays(np.zeros(10)))
    assert joined(tmp_path).paths == (path,)


def test_a_table_without_its_json_files_gets_them_before_shards_are_deleted(tmp_path):
    tables.write_shards(tmp_path, 2)
    shards = stats_tables.find([str(tmp_path)])
    for one in shards:
        stats_published.write(tmp_path, one.table, stats_files.read_arrays(one.path))
    # As a kill leaves it, after the table and before its JSON files.
    found = stats_tables.joined(shards)
    path = tables.write(tmp_path, found.table, found.arrays)
    published = stats_published.path(tmp_path, found.table, found.table.columns[0])
    command = [sys.executable, "-m", "scripts.merge_jacobian_stats", f"--input={tmp_path}", "--delete_shards"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert {one.name for one in tmp_path.iterdir()} == {path.name, published.name}


def test_a_missing_shard_is_named(tmp_path):
    tables.write_shards(tmp_path, 4)[2].unlink()
    with pytest.raises(errors.MismatchError, match=r"epoch 5 of train lacks the shards 3/4; .*--shard=3/4"):
        joined(tmp_path)


def test_shards_of_two_numbers_overlap(tmp_path):
    tables.write_shards(tmp_path, 2)
    tables.write_shards(tmp_path, 3)
    with pytest.raises(errors.MismatchError, match="shards of 2 and of 3 overlap"):
        joined(tmp_path)


def test_a_shard_that_is_there_twice_is_refused(tmp_path):
    tables.write_shards(tmp_path / "a", 2)
    tables.write_shards(tmp_path / "b", 2)
    with pytest.raises(errors.MismatchError, match="are the same shard"):
        joined(tmp_path)
    tables.write(tmp_path / "a", tables.table(), tables.arrays(np.zeros(10)))
    tables.write(tmp_path / "b", tables.table(), tables.arrays(np.zeros(10)))
    with pytest.raises(errors.MismatchError, match="of the same examples and checkpoint"):
        joined(tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [({"identity": "j"}, "different settings"), ({"weights": "v"}, "different weights"), ({"num_split": 11}, "sizes")],
)
def test_shards_of_something_else_are_refused(tmp_path, members, message):
    tables.write_shards(tmp_path, 2)[1].unlink()
    what = tables.table(**{"shard": (2, 2), "num_rows": 5} | members, num_examples=None, skip=0)
    tables.write(tmp_path / "other", what, tables.arrays(np.zeros(5), np.arange(5)))
    with pytest.raises(errors.MismatchError, match=message):
        joined(tmp_path)


def test_shards_with_other_columns_are_refused(tmp_path):
    tables.write_shards(tmp_path, 2)[1].unlink()
    what = tables.table(shard=(2, 2), num_rows=5, columns=())
    tables.write(tmp_path, what, tables.arrays(np.zeros(5), np.arange(5)))
    with pytest.raises(errors.MismatchError, match="different columns"):
        joined(tmp_path)


def test_an_example_in_two_shards_is_refused(tmp_path):
    tables.write_shards(tmp_path, 2)
    tables.write(tmp_path, tables.table(shard=(2, 2), num_rows=5), tables.arrays(np.zeros(5), 100 + np.arange(5)))
    with pytest.raises(errors.MismatchError, match="example 100 is in two shards"):
        joined(tmp_path)


def test_a_shard_with_too_few_examples_is_refused(tmp_path):
    tables.write_shards(tmp_path, 2)
    tables.write(tmp_path, tables.table(shard=(1, 2), num_rows=3), tables.arrays(np.zeros(3), np.arange(3)))
    with pytest.raises(errors.MismatchError, match="has 3 examples, shard 1/2 of 8 has 4"):
        joined(tmp_path)


def test_networks_epochs_and_splits_are_apart(tmp_path):
    for number, members in enumerate(({}, {"epoch": 2}, {"seed": "1"}, {"split": "test"}, {"skip": 1})):
        tables.write_shards(tmp_path / str(number), 2, **members)
    groups = stats_tables.grouped(stats_tables.find([str(tmp_path)]))
    assert [len(group) for group in groups] == [2] * 5


def test_tables_of_trainings_without_an_end_are_told_of(tmp_path):
    found = []
    for number, outcome in enumerate(("finished", "unfinished", "diverged", "unfinished")):
        what = tables.table(facts={"outcome": outcome})
        tables.write(tmp_path / str(number), what, tables.arrays(range(10)))
        found.append(joined(tmp_path / str(number)))
    told = stats_tables.unfinished(found)
    assert told.startswith("note: 3 of 4 tables are of trainings that had not come to their end")
    assert told.endswith("measured: 2 unfinished, 1 diverged")
    assert stats_tables.unfinished(found[:1]) == ""
    command = [sys.executable, "-m", "scripts.aggregate_jacobian_stats", f"--input={tmp_path / '1'}"]
    result = subprocess.run(
        [*command, f"--output={tmp_path / 'out'}"], capture_output=True, text=True, cwd=_ROOT, check=True
    )
    assert "note: 1 of 1 tables" in result.stderr


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file or folder"):
        stats_tables.find([str(tmp_path / "gone")])
    with pytest.raises(errors.MissingFileError, match="holds no table"):
        stats_tables.find([str(tmp_path)])


def test_damaged_tables_are_refused(tmp_path):
    path = tables.write(tmp_path, tables.table(), tables.arrays(np.zeros(10)))
    content = path.read_bytes()
    path.write_bytes(content[:200])
    with pytest.raises(errors.DamagedFileError, match="no table of compute_jacobian_stats"):
        stats_tables.find([str(tmp_path)])
    path.write_bytes(b"PAR1" + b"\0" * 60 + content[64:])
    with pytest.raises(errors.DamagedFileError):
        joined(tmp_path)


def test_tables_of_others_are_refused(tmp_path):
    path = tables.write(tmp_path, tables.table(), tables.arrays(np.zeros(10)))
    stored = tables.table().to_json()
    with pytest.raises(errors.DamagedFileError, match="schema version 9"):
        stats_files.Table.from_json(stored | {"schema_version": 9}, path)
    del stored["group"]
    with pytest.raises(errors.DamagedFileError, match="not those of this program"):
        stats_files.Table.from_json(stored, path)

"""Which examples are left out, and columns of scores: every form, and what is refused."""

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from scripts.unique_information import left_out_groups, score_columns
from zoo import errors

_INDEX = np.array([2, 5, 7, 11, 13, 17, 19, 23])


def parse(which, score=None, seed=0):
    return left_out_groups.parse(str(which), _INDEX, seed, score)


def test_all_and_places():
    assert parse("all") == tuple((int(one),) for one in _INDEX)
    assert parse("0:2,7") == ((2,), (5,), (23,))


def test_random_ones_follow_from_the_seed():
    found = [parse("random:4", seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert len(set(found[0])) == 4


def test_strata_of_a_score_have_one_example_each():
    score = np.array([8.0, 1, 7, 2, 6, 3, 5, 4])
    place = {int(index): rank for rank, index in enumerate(_INDEX[np.argsort(score)])}
    seen = set()
    for seed in range(30):
        found = parse("stratified:4", score, seed)
        assert sorted(place[one] // 2 for (one,) in found) == [0, 1, 2, 3]
        seen |= set(found)
    assert len(seen) == 8


def test_groups_of_a_file(tmp_path):
    path = tmp_path / "groups.txt"
    path.write_text("17\n5, 2\n\n 7 11\t13\n")
    assert parse(path) == ((17,), (2, 5), (7, 11, 13))
    np.savez(tmp_path / "ids.npz", train_index=np.array([23, 2]))
    assert parse(tmp_path / "ids.npz") == ((23,), (2,))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("0:9", "--which=0:9: expected places among the 8 examples that were drawn, from 0 to 7"),
        ("3,3", "example 3 is named twice"),
        ("random:9", "--which=random:9: expected at most 8"),
        ("stratified:4", "needs a score of each of the 8 examples that were drawn, but none is given"),
    ],
)
def test_what_names_nothing_is_refused(which, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        parse(which)


def test_a_score_must_be_of_all():
    with pytest.raises(errors.InvalidValueError, match="but 1 examples have none; give --scores"):
        parse("stratified:4", np.array([np.nan, *range(7)]))


def test_files_without_groups_are_refused(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file; expected all, places such as 0:60"):
        parse(tmp_path / "none.txt")
    path = tmp_path / "groups.txt"
    for text, message in (
        ("", "has 0 groups"),
        ("2\n2\n", "has 2 groups, 1 of them different"),
        ("2 3\n", "with 1 positions that were not drawn, such as 3"),
        ("2 2\n", "'2 2' is no group"),
        ("a\n", "'a' is no group"),
    ):
        path.write_text(text)
        with pytest.raises(errors.InvalidValueError, match=message):
            parse(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.DamagedFileError, match="not a text file"):
        parse(path)
    np.savez(tmp_path / "ids.npz", train_index=np.array([0.5]))
    with pytest.raises(errors.InvalidValueError, match="train_index is float64"):
        parse(tmp_path / "ids.npz")


@pytest.mark.parametrize("kind", ["npz", "parquet", "csv"])
def test_columns_are_read_from_every_kind_of_file(tmp_path, kind):
    columns = {
        "train_index": np.array([7, 2, 5]),
        "weights": np.array([0.5, 1.5, 2.5]),
        "rank": np.array([3, 1, 2]),
        "train_label": np.array([1, 0, 1]),
        "val_index": np.array([1, 2, 3]),
    }
    path = tmp_path / f"scores.{kind}"
    if kind == "npz":
        np.savez(path, **columns, self_effect=np.zeros((3, 1)), name=np.array("x"))
    else:
        writer = pyarrow.parquet.write_table if kind == "parquet" else pyarrow.csv.write_csv
        writer(pyarrow.table(columns | {"name": ["a", "b", "c"]}), path)
    found = score_columns.read(path)
    assert list(found.columns) == ["weights", "rank"]
    at = found.at(np.array([2, 3, 7, 9]))
    np.testing.assert_array_equal(at["weights"], [1.5, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(found.column("rank"), [3, 1, 2])
    with pytest.raises(errors.InvalidValueError, match="has the columns weights, rank; names none of them"):
        found.column(None)
    with pytest.raises(errors.InvalidValueError, match="--column=other is none of them"):
        found.column("other")


def test_the_only_column_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", train_index=np.array([1]), weights=np.array([2.0]))
    np.testing.assert_array_equal(score_columns.read(tmp_path / "a.npz").column(None), [2])


def test_files_without_scores_are_refused(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"expected scores as \.npz, \.parquet or \.csv"):
        score_columns.read(tmp_path / "none.npz")
    (tmp_path / "a.txt").touch()
    with pytest.raises(errors.InvalidValueError, match="expected the ending"):
        score_columns.read(tmp_path / "a.txt")
    for name in ("a.npz", "a.parquet"):
        (tmp_path / name).write_bytes(b"none of it")
        with pytest.raises(errors.DamagedFileError, match="Restore it"):
            score_columns.read(tmp_path / name)
    np.savez(tmp_path / "b.npz", weights=np.zeros(2))
    with pytest.raises(errors.InvalidValueError, match="has no column train_index of whole numbers"):
        score_columns.read(tmp_path / "b.npz")
    for members in ({"train_index": np.array([1, 1]), "a": np.zeros(2)}, {"train_index": np.array([1, 2])}):
        np.savez(tmp_path / "c.npz", **members)
        with pytest.raises(errors.InvalidValueError, match="expected at least one column, and each example once"):
            score_columns.read(tmp_path / "c.npz")

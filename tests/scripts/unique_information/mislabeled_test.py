"""Scores held against changed labels: known scores, directions, missing values, order of examples, tables, refusals."""

import csv
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from heldout.training import leave_out_files
from scripts.unique_information import changed_labels, mislabeled, mislabeled_figure, result_tables, score_columns
from zoo import errors

_INDEX = np.arange(100, 160, 2)
_CLEAN = np.arange(30) % 3
_CHANGED = np.isin(np.arange(30), [1, 8, 20, 25])
_LABEL = np.where(_CHANGED, (_CLEAN + 1) % 3, _CLEAN)


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.npz"
    np.savez(path, train_index=_INDEX, is_changed=_CHANGED, train_label=_LABEL, clean_train_label=_CLEAN)
    return path


def write_scores(folder, **members):
    path = folder / "scores.npz"
    np.savez(path, **({"train_index": _INDEX[::-1]} | {name: value[::-1] for name, value in members.items()}))
    return str(path)


def config(labels, scores, **members):
    return mislabeled.MislabeledConfig((scores,), None, str(labels), str(labels.parent / "out"), **members)


def test_known_scores_and_their_directions(labels, tmp_path):
    generator = np.random.default_rng(0)
    columns = {
        "perfect": _CHANGED + generator.uniform(0, 0.5, 30),
        "turned": -1.0 * _CHANGED + generator.uniform(0, 0.5, 30),
        "noise": np.tile([0.0, 1.0], 15),
    }
    found = {one.column: one for one in mislabeled.detect(config(labels, write_scores(tmp_path, **columns)))}
    assert {name: one.auroc.value for name, one in found.items()} == {
        "perfect": 1,
        "turned": 0,
        "noise": pytest.approx(0.5 * (1 + 2 / 4 - 13 / 26)),
    }
    assert [found[name].direction for name in columns] == ["high", "low", "none"]
    assert found["perfect"].average_precision.value == 1
    assert found["perfect"].row()["top_0.1_precision"] == 1
    assert found["perfect"].row()["top_0.1_recall"] == 0.75
    assert found["perfect"].share_changed == pytest.approx(4 / 30)
    text = "\n".join(mislabeled.lines(list(found.values())))
    assert "turned " in text
    assert "LOW scores say changed" in text
    assert "says nothing" in text


def test_columns_of_one_order_are_told_together(labels, tmp_path):
    score = np.random.default_rng(3).uniform(size=30)
    columns = {"nats": score, "squared": 7 * score, "other": -score}
    found = mislabeled.detect(config(labels, write_scores(tmp_path, **columns)))
    assert [(one.column, one.same_order) for one in found] == [("nats", ("squared",)), ("other", ())]
    assert "; the same order: squared" in mislabeled.lines(found)[0]
    (one,) = mislabeled.detect(config(labels, write_scores(tmp_path, **columns), columns=("squared",)))
    assert (one.column, one.same_order) == ("squared", ())


def test_examples_without_a_score_are_counted(labels, tmp_path):
    score = np.where(np.arange(30) < 5, np.nan, _CHANGED)
    (one,) = mislabeled.detect(config(labels, write_scores(tmp_path, score=score)))
    assert (len(one.changed), len(one.clean), one.num_without_score) == (3, 22, 5)
    assert one.auroc.value == 1
    columns = {"score": score, "none": np.full(30, np.nan)}
    _, nothing = mislabeled.detect(config(labels, write_scores(tmp_path, **columns)))
    assert nothing.direction == "none"
    assert np.isnan([nothing.auroc.value, nothing.share_changed]).all()
    assert mislabeled_figure.write(tmp_path, [nothing]) == []


def test_a_column_without_scores_is_refused_if_it_is_asked_for_or_alone(labels, tmp_path):
    columns = {"score": 1.0 * _CHANGED, "none": np.full(30, np.nan)}
    match = (
        r"scores\.npz: column none is finite for 0 examples whose label was changed and 0 of the others, and 30 have"
    )
    with pytest.raises(errors.InvalidValueError, match=match):
        mislabeled.detect(config(labels, write_scores(tmp_path, **columns), columns=("score", "none")))
    with pytest.raises(errors.InvalidValueError, match=match):
        mislabeled.detect(config(labels, write_scores(tmp_path, none=columns["none"])))
    half = np.where(_CHANGED, np.nan, 1.0)
    with pytest.raises(errors.InvalidValueError, match=r"finite for 0 .* changed and 26 of the others, and 4 have no"):
        mislabeled.detect(config(labels, write_scores(tmp_path, half=half)))


def test_scores_that_never_saw_a_changed_label_are_told(labels, tmp_path):
    score = 1.0 * _CHANGED
    (one,) = mislabeled.detect(config(labels, write_scores(tmp_path, score=score, train_label=_CLEAN)))
    assert one.has_clean_labels
    assert mislabeled.lines([one])[-1].startswith("note: scores.npz: its labels are those before some were changed")
    for label in (_LABEL, np.arange(30)):
        (one,) = mislabeled.detect(config(labels, write_scores(tmp_path, score=score, train_label=label)))
        assert not one.has_clean_labels
        assert len(mislabeled.lines([one])) == 1


def test_pictures_of_other_flags_go_and_other_files_stay(tmp_path):
    path = tmp_path / "a.json"
    result_tables.clear_pictures(path)
    for name in ("a.png", "b.png", "other.png", "notes.txt"):
        (tmp_path / name).touch()
    result_tables.write(path, {}, {"rows": []})
    result_tables.list_pictures(path, [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "notes.txt"])
    result_tables.clear_pictures(path)
    assert {one.name for one in tmp_path.iterdir()} == {"a.json", "other.png", "notes.txt"}


def test_an_experiment_says_its_labels(tmp_path):
    members = {name: np.zeros(1) for name in leave_out_files.FULL_RUN_MEMBERS}
    members |= {"train_index": _INDEX, "train_label": _LABEL, "clean_train_label": _CLEAN}
    leave_out_files.write_full_run(tmp_path, members, "x")
    known = changed_labels.of_experiment(str(tmp_path))
    np.testing.assert_array_equal(known.is_changed, _CHANGED)
    np.testing.assert_array_equal(known.train_index, _INDEX)
    with pytest.raises(errors.MissingFileError, match="expected a folder that ground_truth_effects has written"):
        changed_labels.of_experiment(str(tmp_path / "none"))


def test_labels_without_positions_are_of_the_whole_split(tmp_path):
    np.savez(tmp_path / "labels.npz", is_changed=_CHANGED)
    np.testing.assert_array_equal(changed_labels.of_file(tmp_path / "labels.npz").train_index, np.arange(30))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train_label": _LABEL}, "does not say which labels were changed.*found train_label"),
        ({"is_changed": _CHANGED.astype(int)}, "does not say which labels were changed"),
        ({"is_changed": _CHANGED, "train_index": _INDEX[:3]}, "are not of the same examples"),
        ({"is_changed": _CHANGED, "train_index": _INDEX * 0}, "train_index names an example twice"),
    ],
)
def test_labels_that_say_nothing_are_refused(tmp_path, members, message):
    np.savez(tmp_path / "labels.npz", **members)
    with pytest.raises(errors.InvalidValueError, match=message):
        changed_labels.of_file(tmp_path / "labels.npz")


def test_labels_beside_scores_prove_the_order_of_examples(labels):
    known = changed_labels.of_file(labels)

    def scores(label):
        return score_columns.ScoreColumns(pathlib.Path("s.npz"), _INDEX, {"a": np.zeros(30)}, label)

    assert not changed_labels.check_order(known, scores(None))
    assert not changed_labels.check_order(known, scores(7 - _LABEL))  # numbered otherwise, and trained with
    assert changed_labels.check_order(known, scores(_CLEAN + 5))  # before they were changed
    assert not changed_labels.check_order(known, scores(np.arange(30)))  # finer
    with pytest.raises(errors.MismatchError, match=r"s\.npz: its labels are not those of .*labels\.npz"):
        changed_labels.check_order(known, scores(np.roll(np.arange(30) // 10, 1)))


def test_tables_and_pictures(labels, tmp_path):
    generator = np.random.default_rng(1)
    columns = {"a": np.exp(3 * generator.normal(size=30) + 5 * _CHANGED), "b": np.zeros(30)}
    asked = config(labels, write_scores(tmp_path, **columns))
    found = mislabeled.detect(asked)
    rows = [one.row() for one in found]
    folder = tmp_path / "out"
    result_tables.write_csv(folder / mislabeled.TABLE_NAME, rows)
    result_tables.write(folder / mislabeled.RESULTS_NAME, result_tables.settings(asked), {"rows": rows})
    pictures = mislabeled_figure.write(folder, found)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    stored = json.loads((folder / mislabeled.RESULTS_NAME).read_text())
    assert [row["auroc"] for row in stored["rows"]] == [one.auroc.value for one in found]
    assert stored["rows"][1]["direction"] == "none"
    with open(folder / mislabeled.TABLE_NAME, newline="") as stream:
        assert [row["column"] for row in csv.DictReader(stream)] == ["a", "b"]
    path, settings = folder / mislabeled.RESULTS_NAME, result_tables.settings(asked)
    result_tables.check(path, settings, overwrite=False)
    other = result_tables.settings(dataclasses.replace(asked, seed=1))
    with pytest.raises(errors.MismatchError, match=r"(?s)seed: stored 0, asked for 1.*--overwrite"):
        result_tables.check(path, other, overwrite=False)
    result_tables.check(path, other, overwrite=True)


def test_what_cannot_be_compared_is_refused(labels, tmp_path):
    scores = write_scores(tmp_path, a=np.zeros(30))
    with pytest.raises(errors.InvalidValueError, match="--experiment and --labels: expected one of them"):
        mislabeled.MislabeledConfig((scores,), None, None, "out")
    with pytest.raises(errors.InvalidValueError, match=r"--top=0,2: expected shares above 0"):
        config(labels, scores, top=(0, 2))
    with pytest.raises(errors.InvalidValueError, match="names a file twice"):
        mislabeled.MislabeledConfig((scores, scores), None, str(labels), "out")
    with pytest.raises(errors.InvalidValueError, match="--column=b: no file of --scores has b; they have a"):
        mislabeled.detect(config(labels, scores, columns=("b",)))
    np.savez(tmp_path / "clean.npz", train_index=_INDEX[~_CHANGED], a=np.zeros(26))
    with pytest.raises(errors.InvalidValueError, match="scores 0 examples whose label was changed, of 4 in"):
        mislabeled.detect(config(labels, str(tmp_path / "clean.npz")))

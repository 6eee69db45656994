"""Groups of examples by label, subclass, source and file, and what tells their scores apart."""

import json

import numpy as np
import pytest

from heldout.datasets import digits, registry
from heldout.training import leave_out_config, leave_out_data, leave_out_files
from scripts.unique_information import (
    changed_labels,
    example_groups,
    group_comparison,
    group_figure,
    result_tables,
)
from tests import cases
from zoo import errors, npz

_COARSE = ((0, 2, 4), (1, 3))


def write_experiment(folder, dataset, loaded, **members):
    config = leave_out_config.LeaveOutConfig(dataset, num_train=40, num_val=10, **members)
    data = leave_out_data.of_dataset(config, loaded)
    leave_out_config.adopt(
        folder, leave_out_config.LeaveOutConfig(**(vars(config) | {"fingerprint": data.fingerprint()}))
    )
    stored = {name: np.zeros(1) for name in leave_out_files.FULL_RUN_MEMBERS}
    stored |= {name: getattr(data, name) for name in ("train_index", "train_label", "clean_train_label")}
    leave_out_files.write_full_run(folder, stored, config.sha256)
    return data


def test_groups_of_an_experiment(tmp_path):
    loaded = digits.load()
    data = write_experiment(tmp_path, "digits", loaded, coarse_labels=_COARSE, class_counts=((4, 5),))
    label = loaded.train.label[data.train_index]
    found = example_groups.of_experiment(str(tmp_path), "subclass")
    assert found.names() == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(found.group, label.astype(str))
    assert np.sum(found.group == "4") == 5
    by_label = example_groups.of_experiment(str(tmp_path), "label")
    np.testing.assert_array_equal(by_label.group, np.isin(label, _COARSE[1]).astype(int).astype(str))
    assert (example_groups.of_experiment(str(tmp_path), "clean_label").group == by_label.group).all()
    with pytest.raises(errors.InvalidValueError, match="--by=source: the examples come from --dataset=digits"):
        example_groups.of_experiment(str(tmp_path), "source")
    leave_out_config.adopt(tmp_path / "b", leave_out_config.LeaveOutConfig("digits"))
    with pytest.raises(errors.MissingFileError, match=r"full_run\.npz: no such file"):
        example_groups.of_experiment(str(tmp_path / "b"), "label")


def test_sources_lie_beside_the_examples_whatever_the_order_of_rows(tmp_path):
    cases.tiny_digits_npz(tmp_path / "plain.npz")
    plain = dict(np.load(tmp_path / "plain.npz"))
    number = len(plain["train__label"])
    order = np.random.default_rng(0).permutation(number)
    source = np.where(np.arange(number) < 20, "ours", "theirs")
    rows = {name: value[order] for name, value in plain.items() if name.startswith("train__")}
    path = tmp_path / "two.npz"
    npz.write(path, plain | rows | {"train__index": order, "train__source": source[order]})
    data = write_experiment(tmp_path / "a", f"npz:{path}", registry.load(f"npz:{path}", None))
    found = example_groups.of_experiment(str(tmp_path / "a"), "source")
    np.testing.assert_array_equal(found.group, source[data.train_index])
    assert found.names() == ["ours", "theirs"]
    npz.write(path, plain | rows | {"train__index": order, "train__source": source[:3]})
    with pytest.raises(errors.MismatchError, match="not the data of the experiment"):
        example_groups.of_experiment(str(tmp_path / "a"), "source")
    write_experiment(tmp_path / "b", f"npz:{path}", registry.load(f"npz:{path}", None))
    with pytest.raises(errors.InvalidValueError, match="train__source has dtype <U6 and shape"):
        example_groups.of_experiment(str(tmp_path / "b"), "source")


def test_groups_of_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("train_index,origin\n3,web\n1,lab\n2,web\n")
    found = example_groups.of_file(tmp_path / "a.csv", None)
    assert (found.name, found.group.tolist(), found.train_index.tolist()) == (
        "origin",
        ["web", "lab", "web"],
        [3, 1, 2],
    )
    np.savez(tmp_path / "b.npz", train_index=np.arange(12), a=np.arange(12), b=np.zeros(12, int), c=np.zeros(12))
    assert example_groups.of_file(tmp_path / "b.npz", "a").names() == [str(one) for one in range(12)]
    with pytest.raises(errors.InvalidValueError, match="asked for the only one, found a, b"):
        example_groups.of_file(tmp_path / "b.npz", None)
    with pytest.raises(errors.InvalidValueError, match="asked for c, found a, b"):
        example_groups.of_file(tmp_path / "b.npz", "c")
    np.savez(tmp_path / "c.npz", train_index=np.zeros(2, int), a=np.zeros(2, int))
    with pytest.raises(errors.InvalidValueError, match="names an example twice"):
        example_groups.of_file(tmp_path / "c.npz", None)
    with pytest.raises(errors.MissingFileError, match="expected groups as"):
        example_groups.of_file(tmp_path / "none.npz", None)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(errors.InvalidValueError, match="expected the ending"):
        example_groups.of_file(tmp_path / "a.txt", None)


@pytest.fixture
def groups():
    return example_groups.ExampleGroups("origin", np.arange(10), np.array(["a"] * 4 + ["b"] * 5 + ["c"]))


def config(folder, path, **members):
    return group_comparison.GroupsConfig((str(path),), str(folder / "out"), groups="groups.npz", **members)


def test_means_medians_and_pairs_are_those_of_their_definitions(tmp_path, groups):
    score = np.array([1.0, 2.0, 3.0, 10.0, 4.0, 5.0, 6.0, 7.0, np.nan, 8.0])
    np.savez(tmp_path / "s.npz", train_index=np.arange(10), score=score)
    (found,) = group_comparison.compare(config(tmp_path, tmp_path / "s.npz"), groups)
    first, second, third = (group.row() for group in found.groups)
    assert (first["mean"], first["median"], first["num_examples"]) == (4, 2.5, 4)
    assert first["standard_error"] == pytest.approx(np.std([1, 2, 3, 10], ddof=1) / 2)
    assert (second["num_examples"], second["num_without_score"], second["mean"]) == (4, 1, 5.5)
    # The median of all nine is 5.
    assert [row["share_above_median"] for row in (first, second, third)] == [0.25, 0.5, 1]
    assert first["share_above_median_low"] < 0.25 < first["share_above_median_high"]
    assert np.isnan(third["standard_error"])
    pairs = {(row["first"], row["second"]): row["auroc"] for row in found.pair_rows()}
    assert pairs == {("a", "b"): 4 / 16, ("a", "c"): 1 / 4, ("b", "c"): 0}
    text = "\n".join(group_comparison.lines([found]))
    assert "c scores higher than b with probability 1.000" in text
    assert "1 without a score" in text


def test_tables_and_pictures(tmp_path, groups):
    np.savez(tmp_path / "s.npz", train_index=np.arange(10), wide=np.exp(np.arange(10.0)), no=np.full(10, np.nan))
    asked = config(tmp_path, tmp_path / "s.npz")
    found = group_comparison.compare(asked, groups)
    rows = [row for one in found for row in one.group_rows()]
    result_tables.write_csv(tmp_path / "groups.csv", rows)
    result_tables.write(tmp_path / "groups.json", result_tables.settings(asked), {"groups": rows})
    stored = json.loads((tmp_path / "groups.json").read_text())["groups"]
    assert stored[3]["mean"] is None
    assert stored[3]["num_without_score"] == 4
    (picture,) = group_figure.write(tmp_path, found)
    assert picture.name == "groups_s_wide.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_refused(tmp_path, groups):
    np.savez(tmp_path / "s.npz", train_index=np.arange(4), score=np.zeros(4))
    with pytest.raises(errors.InvalidValueError, match="scores examples of 1 of the 3 groups by origin"):
        group_comparison.compare(config(tmp_path, tmp_path / "s.npz"), groups)
    np.savez(tmp_path / "t.npz", train_index=np.arange(10), score=np.zeros(10))
    with pytest.raises(errors.InvalidValueError, match="--column=b: no file of --scores has b; they have score"):
        group_comparison.compare(config(tmp_path, tmp_path / "t.npz", columns=("b",)), groups)
    known = changed_labels.ChangedLabels(tmp_path, np.arange(10), np.zeros(10, bool), np.arange(10) % 2)
    np.savez(tmp_path / "u.npz", train_index=np.arange(10), score=np.zeros(10), train_label=np.arange(10) // 5)
    with pytest.raises(errors.MismatchError, match="its labels are not those of"):
        group_comparison.compare(config(tmp_path, tmp_path / "u.npz"), groups, known)
    for members, message in (
        ({}, "expected either --groups, or --experiment with --by"),
        ({"experiment": "a"}, "expected either --groups"),
        ({"experiment": "a", "by": "label", "groups": "b"}, "expected either --groups"),
        ({"experiment": "a", "by": "label", "group_column": "b"}, "--group_column=b: names a column of --groups"),
    ):
        with pytest.raises(errors.InvalidValueError, match=message):
            group_comparison.GroupsConfig(("s.npz",), "out", **members)
    with pytest.raises(errors.InvalidValueError, match="names a file twice"):
        group_comparison.GroupsConfig(("s.npz", "s.npz"), "out", groups="b")

"""Summaries over examples, subsets and seeds are what NumPy and Student's table say."""

import numpy as np
import pytest

from scripts.jacobian_stats import aggregation, stats_tables
from tests.scripts.jacobian_stats import tables
from zoo import errors

VALUES = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6])
LABEL = [0, 0, 1, 1, 1, 2]
CLEAN = [0, 1, 1, 1, 0, 2]


def whole(values=VALUES, label=LABEL, clean=CLEAN, ids=None, **members):
    what = tables.table(num_rows=len(values), num_split=len(values), **members)
    columns = tables.arrays(values, ids, label, clean)
    return stats_tables.Whole(what, columns, ())


def test_rows_of_all_examples_classes_and_both_kinds_of_labels():
    rows = {row.subset: row for row in aggregation.rows_of(whole(ids=np.arange(10, 16)))}
    assert list(rows) == ["all", "class 0", "class 1", "class 2", "clean", "changed"]
    masks = {"all": range(6), "class 0": [0, 1], "class 1": [2, 3, 4], "clean": [0, 2, 3, 5], "changed": [1, 4]}
    for name, mask in masks.items():
        values = VALUES[list(mask)]
        row = rows[name]
        assert row.values["mean"] == pytest.approx(values.mean())
        assert row.values["maximum"] == values.max()
        assert row.values["quantile_0.75"] == pytest.approx(np.quantile(values, 0.75))
        assert row.mean_standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))
        assert row.argmax == 10 + list(mask)[int(values.argmax())]
        assert row.num == len(values)
    assert rows["all"].label_noise == "symmetric 0.1"
    assert rows["all"].flat()["maximum"] == 9.0


def test_without_changed_labels_there_is_one_kind():
    assert "clean" not in {row.subset for row in aggregation.rows_of(whole(clean=LABEL))}


def test_undefined_values_are_counted_and_left_out():
    row = aggregation.rows_of(whole(np.array([np.nan, 1, 2, 3, 4, 5.0])))[0]
    assert (row.num, row.num_undefined, row.values["mean"]) == (5, 1, 3.0)
    row = aggregation.rows_of(whole(np.full(6, np.nan)))[0]
    assert (row.num, row.num_undefined, row.argmax) == (0, 6, -1)
    assert np.isnan(row.values["maximum"])


def test_seeds_are_averaged_with_students_interval():
    rows = []
    for seed, factor in enumerate((1.0, 2.0, 3.0)):
        facts = {"settings": {"model": "conv5_4", "seed": seed, "label_noise": {"share": 0.1, "seed": 7 * seed}}}
        rows += aggregation.rows_of(
            whole(VALUES * factor, seed=str(seed), group=("conv5_4", "digits", f"s{seed}"), facts=facts)
        )
    found = aggregation.over_seeds(rows)[0]
    largest = found.values["maximum"]
    assert found.seeds == ("0", "1", "2")
    assert largest.mean == pytest.approx(18.0)
    assert largest.standard_deviation == pytest.approx(9.0)
    # Student's 97.5 % quantile with 2 degrees of freedom.
    assert largest.high - largest.mean == pytest.approx(4.302653 * 9 / np.sqrt(3), rel=1e-6)
    assert largest.low == pytest.approx(2 * largest.mean - largest.high)
    assert {line["statistic"]: line["num_seeds"] for line in found.flat()}["mean"] == 3


def test_what_differs_in_more_than_seeds_is_apart():
    first = aggregation.rows_of(whole())
    for members in (
        {"epoch": 2},
        {"split": "test"},
        {"facts": {"settings": {"model": "conv5_4", "lr": 2}}},
        {"config": dict(tables.table().config) | {"radius": 3.0}},
        {"num_examples": 3},
    ):
        other = aggregation.rows_of(whole(**members, seed="1"))
        assert {len(found.seeds) for found in aggregation.over_seeds([*first, *other])} == {1}


def zoo_row(seed, recipe=None, **facts):
    """The first row of a run of a zoo."""
    kind = {"kind": "zoo", "experiment": "e", "subset_ratio": 0.5, "settings": {"recipe": recipe, "dataset": {}}}
    group = ("conv5_4", "digits", "e-0.5")
    return aggregation.rows_of(whole(seed=seed, group=group, facts=kind | facts))[0]


@pytest.mark.parametrize("other", [{"subset_ratio": 0.7}, {"experiment": "f"}])
def test_runs_of_a_zoo_are_averaged_within_one_experiment_and_ratio(other):
    rows = [zoo_row("0"), zoo_row("1"), zoo_row("2", **other)]
    assert [found.seeds for found in aggregation.over_seeds(rows)] == [("0", "1"), ("2",)]


def test_networks_that_differ_in_width_are_told_from_others():
    def recipe(width, rate=0.1):
        options = {"width": width}
        return {"experiment": f"e{width}", "architecture_options": options, "training": {"learning_rate": rate}}

    first, wide = zoo_row("0", recipe(2)), zoo_row("0", recipe(4), experiment="wide")
    assert first.alike != wide.alike
    assert first.alike_but_width == wide.alike_but_width
    assert "alike_but_width" not in first.flat()
    for other in (zoo_row("0", recipe(4, 0.2)), zoo_row("0", recipe(4), subset_ratio=0.7)):
        assert first.alike_but_width != other.alike_but_width


def test_one_network_twice_is_refused():
    rows = aggregation.rows_of(whole())
    with pytest.raises(errors.MismatchError, match="seed 0, epoch 5: was measured twice"):
        aggregation.over_seeds([*rows, *rows])


def test_intervals_of_few_numbers():
    one = aggregation.interval([2.0, float("nan")])
    assert (one.mean, one.num_seeds) == (2.0, 1)
    assert np.isnan([one.low, one.high, one.standard_deviation]).all()
    assert aggregation.interval([float("nan")]).num_seeds == 0


@pytest.mark.parametrize(
    ("noise", "text"),
    [
        (None, "none"),
        ({"kind": "symmetric", "share": 0.15}, "symmetric 0.15"),
        ({"kind": "pair", "share": None, "count": 300}, "pair 300"),
        ({"kind": "asymmetric"}, "asymmetric"),
    ],
)
def test_label_noise_in_words(noise, text):
    assert aggregation.noise_text(noise) == text

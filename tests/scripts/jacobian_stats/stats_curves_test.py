"""Curves against width and epoch: means over seeds, errors from histories, the interpolation threshold."""

import dataclasses

import numpy as np
import pytest

from heldout.training import model_files
from scripts.jacobian_stats import aggregation, stats_curves, stats_figure, stats_tables
from tests.scripts.jacobian_stats import tables
from zoo import errors

_PEAK = {2: 1.0, 4: 5.0, 8: 3.0}


def history(home, errors_by_epoch):
    rows = np.full((len(errors_by_epoch), len(model_files.HISTORY_COLUMNS)), np.nan)
    for row, (epoch, (train, test)) in zip(rows, errors_by_epoch.items(), strict=True):
        values = {"epoch": epoch, "step": epoch, "train_error": train, "test_error": test}
        for name, value in values.items():
            row[model_files.HISTORY_COLUMNS.index(name)] = value
    home.mkdir(parents=True, exist_ok=True)
    model_files.write_history(home, rows)


def network(folder, width, seed, noise=0.1, epochs=(1, 5), rate=0.1, **members):
    """Tables of a network whose largest value is _PEAK[width] + seed at epoch 5, a tenth of it at epoch 1."""
    home = folder / f"{width}-{noise}" / f"seed-{seed}"
    history(home, {1: (0.5, 0.6), 5: (0.0 if width >= 4 else 0.2, 0.1 * seed + 0.1)})
    facts = {
        "width": width,
        "label_noise": {"kind": "symmetric", "share": noise},
        "settings": {"model": f"conv5_{width}", "noise": noise, "seed": seed, "training": {"learning_rate": rate}},
    }
    found = []
    for epoch in epochs:
        largest = (_PEAK[width] + seed) * (1.0 if epoch == 5 else 0.1)
        what = tables.table(
            **{"epoch": epoch, "seed": str(seed), "group": (f"conv5_{width}", "digits", f"n{noise}")} | members,
            facts=facts,
            home=str(home),
        )
        columns = tables.arrays(np.linspace(0, largest, 10), epoch=epoch)
        path = tables.write(home / "jacobian_stats", what, columns)
        found.append(stats_tables.Whole(what, columns, (path,)))
    return found


def sweep(folder, noises=(0.1,)):
    return [
        one for noise in noises for width in _PEAK for seed in (0, 1) for one in network(folder, width, seed, noise)
    ]


def points(found, against="width", column="jacobian", split=None, subset="all"):
    return stats_curves.points(found, column, "maximum", against, split, subset)


def test_against_width_each_network_counts_at_its_last_checkpoint(tmp_path):
    found, unit = points(sweep(tmp_path))
    assert [(point.curve, point.x) for point in found] == [("label noise symmetric 0.1", width) for width in _PEAK]
    assert [point.values["statistic"].mean for point in found] == [1.5, 5.5, 3.5]
    assert [point.values["test_error"].mean for point in found] == pytest.approx([0.15] * 3)
    assert [point.values["train_error"].mean for point in found] == pytest.approx([0.2, 0, 0])
    assert unit == "logits per input unit"
    assert stats_curves.interpolation(found, found[0].curve, 0.0) == 4
    assert stats_curves.interpolation(found, found[0].curve, 0.2) == 2
    assert stats_curves.peak(found, found[0].curve) == 4
    assert found[0].flat("width")["statistic_standard_deviation"] == pytest.approx(np.sqrt(0.5))


def test_label_noises_are_curves(tmp_path):
    found, _ = points(sweep(tmp_path, (0.1, 0.2)))
    assert {point.curve for point in found} == {"label noise symmetric 0.1", "label noise symmetric 0.2"}
    assert stats_curves.interpolation(found, "label noise symmetric 0.2", -1.0) is None


def test_against_epoch_every_model_is_a_curve(tmp_path):
    found, _ = points(sweep(tmp_path), "epoch")
    assert {(point.curve, point.x) for point in found} == {(f"conv5_{w}", e) for w in _PEAK for e in (1, 5)}
    first = next(point for point in found if (point.curve, point.x) == ("conv5_4", 1))
    assert first.values["statistic"].mean == pytest.approx(0.55)
    assert first.values["test_error"].mean == pytest.approx(0.6)


def test_without_a_history_errors_come_from_accuracies(tmp_path):
    found = network(tmp_path, 4, 0, epochs=(5,))
    for path in tmp_path.rglob(model_files.HISTORY_NAME):
        path.unlink()
    arrays = dict(found[0].arrays) | {"accuracy": np.array([1.0] * 8 + [0.0] * 2)}
    made, _ = points([stats_tables.Whole(found[0].table, arrays, found[0].paths)])
    assert made[0].values["train_error"].mean == pytest.approx(0.2)
    assert np.isnan(made[0].values["test_error"].mean)
    assert made[0].flat("width")["train_error_examples"] is None
    assert stats_curves.judged_text(made, "train_error") == ""


def test_errors_of_a_part_of_a_split_are_named_and_those_of_more_examples_taken(tmp_path):
    found = network(tmp_path, 4, 0, epochs=(5,))[0]
    for path in tmp_path.rglob(model_files.HISTORY_NAME):
        path.unlink()

    def judged(num, num_right):
        arrays = tables.arrays(np.ones(num)) | {"accuracy": np.arange(num) < num_right}
        what = dataclasses.replace(found.table, split="test", num_examples=num, num_rows=num, num_split=50)
        return stats_tables.Whole(what, arrays, found.paths)

    made, _ = points([found, judged(20, 15), judged(10, 1)], split="train")
    assert made[0].values["test_error"].mean == pytest.approx(0.25)
    assert made[0].flat("width")["test_error_examples"] == 20
    assert stats_curves.judged_text(made, "test_error") == ", on as few as 20 examples of the split"
    path = tmp_path / "picture.svg"
    stats_figure.write(path, made, against="width", title="Title", label="unit", bars="none", zero_error=0.0)
    # Text of pictures is drawn, and stands beside that in comments.
    assert "test error, on as few as 20 examples of the split" in path.read_text()


def test_points_without_a_number_are_no_peak():
    def point(x, value):
        return stats_curves.Point("c", x, ("0",), {"statistic": aggregation.interval([value])})

    nothing = point(1, float("nan"))
    assert stats_curves.peak([nothing, point(2, 3.0), point(4, 5.0), point(8, 4.0)], "c") == 4
    assert stats_curves.peak([nothing], "c") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "other"}, "--column=other: there is none; there are jacobian"),
        ({"subset": "changed"}, "--subset=changed: there is none; there are all, class 0"),
        ({"split": "test"}, "--dataset_split=test: there is none; there are train"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        points(network(tmp_path, 4, 0), **options)


def test_curves_that_would_mix_networks_are_refused(tmp_path):
    first = network(tmp_path, 4, 0)
    with pytest.raises(errors.InvalidValueError, match="several splits"):
        points([*first, *network(tmp_path, 4, 1, split="test")])
    with pytest.raises(errors.InvalidValueError, match="different examples, 0:10 and 0:5"):
        points([*first, *network(tmp_path, 4, 1, num_examples=5)])
    config = dict(tables.table().config) | {"radius": 3.0}
    with pytest.raises(errors.InvalidValueError, match="differ in more than seeds"):
        points([*first, *network(tmp_path, 4, 1, config=config)])
    with pytest.raises(errors.InvalidValueError, match="--against=width: some networks have none"):
        points([stats_tables.Whole(tables.table(facts={"width": None}), tables.arrays(np.ones(10)), first[0].paths)])


def test_widths_that_were_trained_or_measured_in_other_ways_are_no_curve(tmp_path):
    first = [*network(tmp_path, 2, 0), *network(tmp_path, 4, 0)]
    assert len(points([*first, *network(tmp_path, 8, 0)])[0]) == 3
    config = dict(tables.table().config) | {"radius": 3.0}
    for against, width in (("width", 8), ("epoch", 4)):
        for members in ({"rate": 9.0}, {"config": config}):
            other = network(tmp_path / "other", width, 0, epochs=(7,), **members)
            with pytest.raises(errors.InvalidValueError, match=rf"conv5_{width} n0\.1: differ in more than seeds"):
                points([*first, *other], against)
    assert len(points([*first, *network(tmp_path / "same", 4, 0, epochs=(7,))], "epoch")[0]) == 5


def test_different_units_are_not_drawn_on_one_axis(tmp_path):
    column = dataclasses.replace(tables.table().columns[0], unit="logits per pixel")
    for noise in (0.1, 0.2):
        pixels = network(tmp_path, 8, 0, noise, columns=(column,))
        with pytest.raises(errors.InvalidValueError, match=r"in logits per input unit, conv5_8 .* per pixel"):
            points([*network(tmp_path, 2, 0), *pixels])


@pytest.mark.parametrize(("against", "kind"), [("width", "png"), ("epoch", "svg"), ("width", "pdf")])
def test_the_picture_is_written(tmp_path, against, kind):
    found, unit = points(sweep(tmp_path, (0.1, 0.2)), against)
    path = tmp_path / f"picture.{kind}"
    for bars in stats_figure.BARS:
        stats_figure.write(path, found, against=against, title="Title", label=unit, bars=bars, zero_error=0.0)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts[kind])

"""Curves against width and epoch: means over seeds, errors from histories, the interpolation threshold."""

import numpy as np
import pytest

from heldout.training import model_files
from scripts.jacobian_stats import stats_curves, stats_figure, stats_tables
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


def network(folder, width, seed, noise=0.1, epochs=(1, 5), **members):
    """Tables of a network whose largest value is _PEAK[width] + seed at epoch 5, a tenth of it at epoch 1."""
    home = folder / f"{width}-{noise}" / f"seed-{seed}"
    history(home, {1: (0.5, 0.6), 5: (0.0 if width >= 4 else 0.2, 0.1 * seed + 0.1)})
    facts = {
        "width": width,
        "label_noise": {"kind": "symmetric", "share": noise},
        "settings": {"model": f"conv5_{width}", "noise": noise, "seed": seed},
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


@pytest.mark.parametrize(("against", "kind"), [("width", "png"), ("epoch", "svg"), ("width", "pdf")])
def test_the_picture_is_written(tmp_path, against, kind):
    found, unit = points(sweep(tmp_path, (0.1, 0.2)), against)
    path = tmp_path / f"picture.{kind}"
    for bars in stats_figure.BARS:
        stats_figure.write(path, found, against=against, title="Title", label=unit, bars=bars, zero_error=0.0)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts[kind])

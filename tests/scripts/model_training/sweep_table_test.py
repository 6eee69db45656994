"""Table and picture of a sweep."""

import csv
import pathlib

from matplotlib import image
import numpy as np
import pytest

from heldout.experiments import label_noise
from heldout.training import model_files, model_settings
from scripts.model_training import sweep_figure, sweep_table
from zoo import files

_NOISE = label_noise.LabelNoise("symmetric", share=0.1)


def network(root, width=4, noise=None, seed=0):
    settings = model_settings.ModelSettings("digits", f"conv5_{width}", noise=noise, seed=seed)
    return sweep_table.Network("conv5", width, settings, pathlib.Path(root) / f"{width}-{noise is None}-{seed}")


def line(width, noise, train_error, test_error, outcome="finished"):
    return {"model": "conv5", "width": width, "noise": noise, "outcome": outcome} | {
        "train_error": train_error,
        "test_error": test_error,
    }


_TABLE = [
    line(1, "none", 0.5, 0.6),
    line(1, "none", 0.3, 0.4),
    line(4, "none", 0.0, 0.3),
    line(4, "none", 0.1, 0.3),
    line(2, "none", 0.0, 0.2, "stopped_early"),
    line(8, "none", 0.0, 0.25),
    line(8, "none", None, None, "diverged"),
    line(16, "none", None, None, "missing"),
    line(1, "pair-0.1", 0.2, 0.9),
    line(None, "none", 0.0, 0.0),
]


def test_rows_are_what_the_folders_hold(tmp_path):
    done, missing = network(tmp_path, noise=_NOISE, seed=1), network(tmp_path, 8)
    values = np.arange(len(model_files.HISTORY_COLUMNS), dtype=float) / 10
    result = model_files.result_of(model_files.STOPPED, "why", values)
    files.write_json(done.folder / "result.json", result | {"epoch": 7})
    first, second = sweep_table.rows([done, missing])
    assert tuple(first) == sweep_table.COLUMNS
    assert (first["width"], first["noise"], first["noise_share"], first["seed"]) == (4, "symmetric-0.1", 0.1, 1)
    assert (first["outcome"], first["epochs"], first["train_error"]) == ("stopped_early", 7, 0.5)
    assert (second["outcome"], second["epochs"], second["test_error"]) == ("missing", None, None)
    assert (second["noise"], second["noise_share"]) == ("none", 0.0)
    sweep_table.write(tmp_path / "sweep.csv", [first, second])
    with open(tmp_path / "sweep.csv", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [row["epochs"] for row in read] == ["7", ""]


def test_means_are_over_what_ended_well():
    found = sweep_table.means(_TABLE, "train_error")
    assert list(found) == [("conv5", "none"), ("conv5", "pair-0.1")]
    assert list(found["conv5", "none"]) == [1, 2, 4, 8]
    np.testing.assert_array_equal(found["conv5", "none"][1], [0.5, 0.3])


def test_the_interpolation_width_is_the_smallest_at_which_every_seed_fits():
    errors_of = {8: np.zeros(2), 1: np.array([0.1, 0.0]), 4: np.zeros(1), 2: np.zeros(0)}
    assert sweep_table.interpolation_width(errors_of) == 4
    assert sweep_table.interpolation_width({1: np.ones(2)}) is None
    assert sweep_table.interpolation_width({}) is None


def test_the_summary():
    assert sweep_table.summary(_TABLE) == [
        "conv5, noise none: all labels are fit from width 2 on, lowest mean test error 0.2000 at width 2",
        "conv5, noise pair-0.1: no width fits all labels, lowest mean test error 0.9000 at width 1",
    ]


def test_networks_without_a_test_error_have_none_in_the_summary():
    (text,) = sweep_table.summary([line(1, "none", 0.0, None)])
    assert text == "conv5, noise none: all labels are fit from width 1 on"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv5_16", ("conv5", 16)),
        ("small_inception", ("small_inception", None)),
        ("mlp", ("mlp", None)),
        ("my.nets:make_3", ("my.nets:make_3", None)),
    ],
)
def test_the_width_stands_behind_the_name(name, expected):
    assert sweep_table.split_name(name) == expected


def test_the_picture(tmp_path):
    table = [*_TABLE, *({**row, "model": "resnet18"} for row in _TABLE)]
    assert sweep_figure.draw(tmp_path / "sweep.png", table, "digits")
    pixels = image.imread(tmp_path / "sweep.png")
    assert pixels.shape[1] > 1.5 * pixels.shape[0]
    assert pixels.std() > 0.05
    first = (tmp_path / "sweep.png").read_bytes()
    sweep_figure.draw(tmp_path / "sweep.png", table, "digits")
    assert (tmp_path / "sweep.png").read_bytes() == first


def test_nothing_to_draw_is_said(tmp_path):
    assert not sweep_figure.draw(tmp_path / "sweep.png", _TABLE[-3:-2], "digits")
    assert not (tmp_path / "sweep.png").exists()

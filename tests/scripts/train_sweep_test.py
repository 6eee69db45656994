"""train_sweep as a user starts it: table, picture, going on, refusals."""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_QUICK = ("--model=conv5", "--dataset=digits", "--train_split=100", "--epochs=2", "--eval_every=2", "--workers=1")


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.train_sweep", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )


def table(root):
    with open(root / "networks" / "sweep.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    result = start(*_QUICK, "--widths=1,2", "--label-noise=0,0.2", "--seeds=0:2", f"--save_dir={root}")
    assert result.returncode == 0, result.stderr
    return root, result


def test_every_network_has_a_row(swept):
    root, result = swept
    rows = table(root)
    keys = [(row["model"], row["width"], row["noise"], row["seed"]) for row in rows]
    expected = [("conv5", width, noise, seed) for width in "12" for noise in ("none", "symmetric-0.2") for seed in "01"]
    assert keys == expected
    assert {row["outcome"] for row in rows} == {"finished"}
    for row in rows:
        stored = json.loads((pathlib.Path(row["folder"]) / "result.json").read_text())
        assert (int(row["epochs"]), float(row["test_error"])) == (2, stored["test_error"])
    assert result.stdout.endswith(f"8 networks, 0 missing: {root}/networks/sweep.csv\n")
    assert result.stderr.count(" seed ") >= 8
    assert (root / "networks" / "sweep.png").stat().st_size > 10_000
    asked = json.loads((root / "networks" / "sweep.json").read_text())
    assert (asked["models"], asked["seeds"]) == (["conv5_1", "conv5_2"], [0, 1])


def test_a_table_of_another_sweep_is_not_replaced_without_a_word(swept, tmp_path):
    root, first = swept
    assert "note:" not in first.stderr
    output = f"--output={tmp_path / 'some'}"
    narrow = (*_QUICK, "--widths=1", "--label_noise=0", "--seeds=0", f"--save_dir={root}", output)
    assert "note:" not in start(*narrow).stderr
    again = start(*narrow[:-4], "--widths=1", "--label_noise=0.2", *narrow[-3:])
    assert f"note: {tmp_path / 'some'}.csv was of another sweep (label_noise)" in again.stderr
    assert again.returncode == 0
    (tmp_path / "some.json").write_text("no JSON")
    damaged = start(*narrow)
    assert (damaged.returncode, "note:" in damaged.stderr) == (0, True), damaged.stderr


def test_again_only_what_is_missing_is_trained(swept):
    root, _ = swept
    before = table(root)
    lost = pathlib.Path(before[3]["folder"])
    shutil.rmtree(lost)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("result.json")}
    result = start(*_QUICK, "--widths=1,2", "--label_noise=none,0.2", "--seeds=0,1", f"--save_dir={root}")
    assert result.returncode == 0, result.stderr
    assert "7 of 8 networks are there" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (lost / "result.json").is_file()
    after = table(root)
    assert [row["folder"] for row in after] == [row["folder"] for row in before]


def test_networks_that_diverge_are_named(tmp_path):
    result = start(*_QUICK, "--widths=1", "--seeds=0:1", "--learning_rate=1e20", f"--save_dir={tmp_path}")
    assert result.returncode == 1
    assert "diverged: " in result.stdout
    assert table(tmp_path)[0]["outcome"] == "diverged"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=digits"], "--model is required"),
        ([*_QUICK, "--widths=0"], "--widths=0: expected widths"),
        ([*_QUICK, "--seeds=2:2"], "--seeds=2:2: the range is empty"),
        ([*_QUICK, "--label_noise=0,none"], "a network is named twice"),
        ([*_QUICK, "--side_by_side=0"], "--side_by_side=0: expected 1 or more, or auto"),
        ([*_QUICK, "--label_noise=0.1,loud:0.1"], "--label_noise=loud"),
        ([*_QUICK, "--ray_address=auto"], "--ray_address says nothing without --runner=ray"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, arguments, message):
    result = start(*arguments, f"--save_dir={tmp_path}")
    assert message in result.stderr
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_on_a_cluster_of_this_machine_the_networks_are_the_same(swept, tmp_path):
    pytest.importorskip("ray")
    root, _ = swept
    arguments = (*_QUICK, "--widths=1,2", "--label_noise=none,0.2", "--seeds=0:2", f"--save_dir={tmp_path}")
    result = start(*arguments, "--runner=ray")
    assert result.returncode == 0, result.stderr
    for one, other in zip(table(root), table(tmp_path), strict=True):
        assert {name: one[name] for name in ("model", "width", "noise", "seed", "outcome")} == {
            name: other[name] for name in ("model", "width", "noise", "seed", "outcome")
        }
        assert abs(float(one["train_loss"]) - float(other["train_loss"])) < 1e-3

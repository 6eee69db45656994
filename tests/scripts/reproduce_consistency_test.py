"""The program from nothing to its report, on scikit-learn's digits."""

import json
import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.reproduce_consistency", "--recipe=digits-mlp", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        check=False,
    )


def test_rounds_are_trained_and_reported_and_continued(tmp_path):
    zoo = f"--zoo={tmp_path}/zoo"
    nothing = start(zoo, "--hours=0")
    assert nothing.returncode == 1
    assert "no experiment digits-mlp; train it: --hours=1" in nothing.stderr
    # A first round is always trained; there is no time for another.
    first = start(zoo, "--runs_per_ratio=4", "--round=1", "--hours=0.0001")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("round 1 of 4: 1 run to train, to have 1 run of ratio 0.7\n")
    assert "the same command trains on" in first.stdout
    assert "ratio 0.7, 1 run: accuracy 0.9" in first.stdout
    assert "ratio 0.7 has 1 run; the reliability of scores takes two of each ratio\n" in first.stdout
    more = start(zoo, "--runs_per_ratio=4", "--round=3", "--hours=1", f"--output={tmp_path}/out")
    assert more.returncode == 0, more.stderr
    assert more.stdout.startswith("round 1 of 2: 2 runs to train, to have 3 runs of ratio 0.7\n")
    assert "\nround 2 of 2: 1 run to train, to have 4 runs of ratio 0.7\n" in more.stdout
    assert "nothing to do" not in more.stdout
    assert "scores from 1 run of each ratio and 1 other: correlation 0." in more.stdout
    assert "scores from 2 runs of each ratio and 2 others: correlation 0." in more.stdout
    assert "too few runs to say how many a linear correlation of 0.9" in more.stdout
    value = json.loads((tmp_path / "out" / "consistency.json").read_text())
    assert value["num_runs"] == [4]
    assert value["provenance"]["recipe"]["dataset"]["name"] == "digits"
    again = start(zoo, "--hours=1", "--runs_per_ratio=4", f"--published={tmp_path}/out/cscores.npz")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("4 runs of ratio 0.7 are there: nothing to train\nratio 0.7, 4 runs: accuracy 0.")
    assert "rank correlation with the published scores: 1.000" in again.stdout
    assert (tmp_path / "zoo" / "digits-mlp" / "consistency" / "consistency.md").exists()
    _spoil(tmp_path / "zoo" / "digits-mlp")
    spoilt = start(zoo, "--hours=0")
    assert spoilt.returncode == 1
    assert "left out, damaged: " in spoilt.stdout
    refused = start(zoo, "--hours=1", "--runs_per_ratio=4")
    assert "was begun with another recipe" in refused.stderr


def _spoil(experiment):
    """Another recipe, and a record that is cut off."""
    recipe = experiment / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"batch_size": ', '"batch_size": 1'))
    record = experiment / "0.7" / "0" / "aux_arrays.npz"
    record.write_bytes(record.read_bytes()[:100])

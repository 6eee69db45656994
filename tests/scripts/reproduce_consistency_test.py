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
    first = start(zoo, "--runs_per_ratio=4", "--round=2", "--hours=0.0001")
    assert first.returncode == 0, first.stderr
    assert "the same command trains on" in first.stdout
    assert "ratio 0.7, 2 runs: accuracy 0.9" in first.stdout
    more = start(zoo, "--runs_per_ratio=4", "--round=2", "--hours=1", f"--output={tmp_path}/out")
    assert more.returncode == 0, more.stderr
    assert "2 runs trained, 2 skipped" in more.stdout
    assert "scores from 2 runs of each ratio and 2 others: correlation 0." in more.stdout
    value = json.loads((tmp_path / "out" / "consistency.json").read_text())
    assert value["num_runs"] == [4]
    assert value["provenance"]["recipe"]["dataset"]["name"] == "digits"
    again = start(zoo, "--hours=0", f"--published={tmp_path}/out/cscores.npz")
    assert "rank correlation with the published scores: 1.000" in again.stdout
    assert (tmp_path / "zoo" / "digits-mlp" / "consistency" / "consistency.md").exists()

"""The program that lists a zoo, as a user starts it: what it says beside the counts of its runs."""

import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys

import pytest

from heldout.training import failures
from tests.zoo.archive import archives
from zoo import layout, run_table_update
from zoo.archive import indexing, journal

_ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.list_zoo", *arguments], capture_output=True, text=True, cwd=_ROOT, check=False
    )


@pytest.fixture
def zoo(tmp_path):
    archives.make_zoo(tmp_path / "zoo", experiment="e", runs=((0.5, 0), (0.5, 1), (0.7, 0)), num_parameters=0)
    run_table_update.update(tmp_path / "zoo", "e")
    return tmp_path / "zoo"


def begin_pass(zoo, experiment):
    """The journal of a pass that got through 120 of 1000 MB."""
    with journal.Journal(indexing.places_in_zoo(zoo, experiment).journal) as log:
        identity = {"name": f"{experiment}.tar.gz", "size": 10**9}
        log.commit({"identity": identity, "inflater": {"boundary": {"offset": 12 * 10**7}}, "ended": False}, {})


def test_runs_of_which_there_is_a_row_only(zoo):
    shutil.rmtree(layout.Run(zoo, "e", 0.5, 1).directory)
    result = start(f"--zoo={zoo}")
    assert result.returncode == 0, result.stderr
    assert "3 runs packed in run_table.npz, 1 of them without a folder\n" in result.stdout
    (item,) = json.loads(start(f"--zoo={zoo}", "--format=json").stdout)
    assert (item["num_packed"], item["num_table_only"], item["unfinished_pass"]) == (3, 1, None)
    assert [ratio["table_only"] for ratio in item["ratios"]] == [1, 0]


def test_an_unfinished_pass(zoo):
    begin_pass(zoo, "begun")
    begin_pass(zoo, "e")
    path = indexing.places_in_zoo(zoo, "begun").journal
    result = start(f"--zoo={zoo}")
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.split("\n\n")
    line = "  unfinished pass over {}.tar.gz: 120 MB of 1.0 GB read; the same zoo_stream command continues"
    assert first.splitlines() == ["begun: no complete run, no run table", line.format("begun")]
    assert second.splitlines()[-1] == line.format("e")
    (item,) = json.loads(start(f"--zoo={zoo}", "--experiment=begun", "--format=json").stdout)
    assert item["unfinished_pass"] == {
        "path": str(path),
        "archive": "begun.tar.gz",
        "num_done": 12 * 10**7,
        "num_bytes": 10**9,
    }
    database = sqlite3.connect(path)
    database.execute("DELETE FROM progress")
    database.commit()
    database.close()
    result = start(f"--zoo={zoo}", "--experiment=begun")
    assert f"unfinished pass over an archive: {path}, which does not tell how far it got; the same zoo" in result.stdout


def test_strangers_are_limited(zoo):
    for name in "abc":
        (layout.Run(zoo, "e", 0.5, 1).directory / name).touch()
    result = start(f"--zoo={zoo}", "--max_problems=2")
    assert "  not part of a zoo: 0.5/1/a, 0.5/1/b, and 1 more\n" in result.stdout


def test_failed_runs_come_with_the_command_that_trains_them_again(zoo):
    for run_id in (0, 7, 8):  # 0 has a record by now
        reason = f"the training loss is nan ({run_id})"
        failed = failures.Failure(0.5, run_id, reason, "0", None, 2, "1", "t", f"train_runs --run_ids={run_id}")
        failures.append(zoo, "e", failed)
    result = start(f"--zoo={zoo}")
    assert result.returncode == 0, result.stderr
    line = "  failed after epoch 2: 0.5/{0}: the training loss is nan ({0})\n    again: train_runs --run_ids={0}"
    assert result.stdout.endswith(f"{line.format(7)}\n{line.format(8)}\n")
    assert "  and 1 more failed run\n" in start(f"--zoo={zoo}", "--max_problems=1").stdout
    (item,) = json.loads(start(f"--zoo={zoo}", "--format=json").stdout)
    assert [(failed["run_id"], failed["retry"]) for failed in item["failures"]] == [
        (7, "train_runs --run_ids=7"),
        (8, "train_runs --run_ids=8"),
    ]
    with open(layout.failures_path(zoo, "e"), "a") as stream:
        stream.write("[]\n")
    result = start(f"--zoo={zoo}")
    assert result.returncode == 3
    assert "  damaged: " in result.stdout
    assert "failures.jsonl, line 4: expected an object" in result.stdout
    (item,) = json.loads(start(f"--zoo={zoo}", "--format=json").stdout)
    assert "failures.jsonl, line 4" in item["complaint"]


def test_names_that_are_not_there(zoo, tmp_path):
    result = start(f"--zoo={zoo}", "--experiment=none")
    assert result.returncode == 1
    assert "no experiment none; found: e" in result.stderr
    (tmp_path / "empty").mkdir()
    assert "no experiment; found: none" in start(f"--zoo={tmp_path}/empty").stderr

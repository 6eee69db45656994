"""The program that tells how far a zoo is, beside a training that goes on."""

import json
import re
import subprocess
import sys
import time

from heldout.experiments import training_files
from tests import cases
from tests.heldout.watching import training_log_test, training_status_test
from tests.scripts import smoke_test, train_interrupt_test
from zoo import layout


def start(*arguments):
    return smoke_test.start("zoo_status", *arguments)


def test_a_training_is_watched_to_its_end(tmp_path):
    dataset = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    zoo = tmp_path / "zoo"
    training = train_interrupt_test.start(zoo, dataset, num_runs=8)
    while not training_files.read(zoo, "e"):
        assert training.poll() is None, training.communicate()
        time.sleep(0.05)
    command = [sys.executable, "-m", "scripts.zoo_status", f"--zoo={zoo}", "--watch", "--every_s=0.2", "--format=json"]
    watched = subprocess.run(command, capture_output=True, text=True, cwd=smoke_test._ROOT, check=False)
    _, said = training.communicate()
    assert training.returncode == 0, said
    assert watched.returncode == 0, watched.stderr
    looks = [json.loads(line)[0] for line in watched.stdout.splitlines()]
    complete = [sum(ratio["complete"] for ratio in look["counts"]) for look in looks]
    assert complete == sorted(complete)
    assert complete[-1] == 8
    assert looks[-1]["trainings"] == []
    groups = [group for look in looks for training in look["trainings"] for group in training["groups"]]
    assert {tuple(group["run_ids"]) for group in groups} >= {(0, 1), (2, 3)}
    assert all(look["num_expected"] == 8 for look in looks[:-1])
    assert any(look["runs_per_hour"] for look in looks)


def test_everything_is_said_in_lines(tmp_path):
    zoo = tmp_path
    training_status_test.complete(zoo, 0.5, 0, 10)
    training_status_test.fail(zoo, 0.5, 1, 20)
    layout.Run(zoo, "e", 0.7, 0).directory.mkdir(parents=True)
    training_status_test.train(zoo, groups=[(0.5, (2, 3), 7)], began=60)
    training_status_test.train(zoo, process=training_log_test.gone())
    training_status_test.train(zoo, process=1, ended=training_status_test.moment(200), end="interrupted")
    training_status_test.train(zoo, process=7, machine="0123abcd", host="eve")
    # The file of the first is under this process's id, so it goes on.
    result = start(f"--zoo={zoo}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "e: 1 of 8 runs complete, 2 in the making, 1 failed, 1 unfinished, 3 waiting"
    assert re.fullmatch(r"  3\d runs/h over the last 10\d s|  \d+ runs/h over the last .*, .* left", lines[1])
    assert lines[2:5] == [
        "  ratio   complete   in the making   failed   unfinished   waiting",
        "  0.5            1               2        1            0         0",
        "  0.7            0               0        0            1         3",
    ]
    text = result.stdout
    assert re.search(r"  training by process \d+ on ada, running for \d+ s\n", text)
    assert re.search(
        r"  training by process \d+ on ada, gone; last heard of \d+ s ago; the same command continues\n", text
    )
    assert "  training by process 1 on ada, ended 3 min ago: interrupted; the same command continues\n" in text
    assert re.search(r"  training by process 7 on eve, running for \d+ (s|min), last heard of \d+ s ago\n", text)
    assert re.search(r"\n    0.5/2:4 in the making for \d+ s by process 5 on ada\n", text)
    assert "\n  failed after epoch 3: 0.5/1: the training loss is nan\n    again: again\n" in text
    assert re.search(r"\n  unfinished: 0.7/0, last change \d+ s ago\n$", text)
    short = start(f"--zoo={zoo}", "--max_named=0").stdout
    assert "and 1 more group\n" in short
    assert "and 1 more failed run\n" in short
    assert "again: " not in short


def test_a_zoo_at_rest_and_one_that_is_not_there(tmp_path):
    training_status_test.complete(tmp_path, 0.5, 0)
    assert start(f"--zoo={tmp_path}", "--watch").stdout == "e: 1 run complete\n\n"
    result = start(f"--zoo={tmp_path}", "--experiment=none")
    assert result.returncode == 1
    assert "no experiment none; found: e" in result.stderr
    result = start(f"--zoo={tmp_path}/none")
    assert result.returncode == 1
    assert "no such folder" in result.stderr


def test_watching_waits_for_a_zoo_that_is_not_there_yet(tmp_path):
    zoo = tmp_path / "zoo"
    command = [sys.executable, "-m", "scripts.zoo_status", f"--zoo={zoo}", "--watch", "--every_s=0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == f"{zoo}: waiting for an experiment\n"
    training_status_test.complete(zoo, 0.5, 0)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "e: 1 run complete" in out

"""The line of a training, on a real terminal and in a log file."""

import io
import os
import pathlib

from heldout.training import run_results
from scripts import terminal
from zoo import layout


def result(run_id, failure=None):
    run = layout.Run(pathlib.Path("z"), "e", 0.7, run_id)
    return run_results.RunResult(run, failure, 0.1, accuracy_in=1.0, accuracy_heldout=0.9)


def train(line):
    """Four runs with a thousand epochs each."""
    line.starting(4, 2, 1000)
    for _ in range(1000):
        line.run_epochs(4)
    line.note("a worker process was ended by SIGKILL")
    line.appeared()
    for run_id in range(3):
        line.result(result(run_id, "the training loss is nan" if run_id == 2 else None))
    line.close()


def test_a_log_file_gets_few_lines(capsys):
    stream = io.StringIO()
    train(terminal.TrainingLine(stream))
    note, last = stream.getvalue().splitlines()
    assert note == "a worker process was ended by SIGKILL"
    assert last.startswith("runs 4/4 (100 % of epochs), ")
    assert "left" not in last
    assert last.endswith(", accuracy 1.000 in, 0.900 held out at 0.7, 1 failed")
    assert "\033" not in stream.getvalue()
    assert capsys.readouterr().out == "training 4 runs (2 complete)\n"


def test_a_log_file_gets_a_line_when_its_time_has_come(monkeypatch):
    assert terminal._LOG_SECONDS == 60
    monkeypatch.setattr(terminal, "_LOG_SECONDS", 0.0)
    stream = io.StringIO()
    line = terminal.TrainingLine(stream)
    line.starting(4, 0, 10)
    line.run_epochs(4)
    assert stream.getvalue() == "runs 0/4 (10 % of epochs)\n"


def test_a_terminal_has_one_line_that_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(terminal, "_LIVE_SECONDS", 0.0)
    theirs, ours = os.openpty()
    with open(ours, "w") as stream:
        line = terminal.TrainingLine(stream)
        line.starting(4, 0, 10)
        line.run_epochs(4)
        line.note("a note")
        line.result(result(0))
        line.close()
        shown = b""
        while not shown.endswith(b"accuracy 1.0\r\n"):
            shown += os.read(theirs, 1000)
    os.close(theirs)
    before, first, note, second, last = shown.decode().split("\r\033[K")
    assert before == ""
    assert first == "runs 0/4 (10 % of epochs)"
    assert note == "a note\r\n"
    assert second == "runs 1/4 (25 % of epochs), accuracy 1.0"
    assert last == f"{second}\r\n"


def test_nothing_is_shown_where_nothing_is_to_do(capsys):
    stream = io.StringIO()
    line = terminal.TrainingLine(stream)
    line.starting(0, 6, 10)
    line.close()
    assert (stream.getvalue(), capsys.readouterr().out) == ("", "")

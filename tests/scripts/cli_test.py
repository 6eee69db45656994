"""What happens to errors on their way to the terminal."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from scripts import cli
from tests import cases
from zoo import errors


def outcome(error, capsys):
    def run(argv):
        raise error

    status = cli._guarded(run, [])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.MismatchError("a differs from b"), "error: a differs from b\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), "error: /x/y: No space left on device: make room"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"), "error: /x: Permission denied: choose a"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "error: Input/output error: check the path and the disk"),
    ],
)
def test_user_errors_are_one_line_and_status_one(error, expected, capsys):
    status, text = outcome(error, capsys)
    assert status == 1
    assert text.startswith(expected)


def test_interrupt_says_that_the_command_continues(capsys):
    status, text = outcome(KeyboardInterrupt(), capsys)
    assert status == 130
    assert "the same command continues" in text


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli._guarded(lambda argv: 1 / 0, [])


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_in_the_middle_of_a_training(tmp_path, number, status, word):
    dataset = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "scripts.train_runs", f"--zoo={tmp_path}/zoo", f"--dataset={dataset}"),
            *("--run_ids=0:1000", "--num_epochs=1000"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert "training 1000 runs" in process.stdout.readline()
    time.sleep(1)
    os.killpg(process.pid, number)  # as terminals and schedulers do: to the workers as well
    _, text = process.communicate(timeout=30)
    assert process.returncode == status
    assert word in text
    assert "Traceback" not in text

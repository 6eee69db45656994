"""What happens to errors on their way to the terminal."""

import errno
import os
import signal
import subprocess
import sys
import time

from absl import flags as absl_flags
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
        (
            FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "/x"),
            "error: /x: File exists: a file stands where a ",
        ),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "error: Input/output error: check the path and the disk"),
    ],
)
def test_user_errors_are_one_line_and_status_one(error, expected, capsys):
    status, text = outcome(error, capsys)
    assert status == 1
    assert text.startswith(expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidValueError("--a=b: expected c"), 2),
        (errors.UsageError("--a is required"), 2),
        (errors.MissingFileError("a: no such file"), 1),
        (errors.DamagedFileError("a: no npz"), 1),
        (errors.IntegrityError("a: another digest"), 3),
        (errors.UnsafeArchiveError("a: a link"), 3),
        (errors.NetworkError("a: no answer"), 4),
    ],
)
def test_a_mistake_has_the_same_status_in_every_program(error, expected, capsys):
    assert outcome(error, capsys)[0] == expected


def test_nothing_is_said_to_be_kept_of_which_nobody_knows(capsys):
    for error in (OSError(errno.ENOSPC, "full", "/x"), OSError(errno.EIO, "broken"), KeyboardInterrupt()):
        text = outcome(error, capsys)[1]
        assert "kept" not in text
        assert "the same command" in text


def test_flags_say_what_they_take():
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_enum("one", None, ["a", "b"], "One.", flag_values=values)
    absl_flags.DEFINE_multi_enum("some", None, ["a", "b"], "Some.", flag_values=values)
    absl_flags.DEFINE_multi_string("texts", None, "Texts.", flag_values=values)
    absl_flags.DEFINE_list("list", None, "List.", flag_values=values)
    absl_flags.DEFINE_multi_float("numbers", None, "Numbers.", flag_values=values)
    kinds = {name: cli._kind(values[name]) for name in ("one", "some", "texts", "list", "numbers")}
    assert kinds == {"one": "a|b", "some": "a|b", "texts": "A,B,...", "list": "A,B,...", "numbers": "FLOAT"}


def test_the_next_command_can_be_typed_as_it_is(capsys):
    cli.say_next("compute_scores", "--zoo=a b", "--experiment=e")
    assert capsys.readouterr().out == "next: compute_scores '--zoo=a b' --experiment=e\n"


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


@pytest.mark.parametrize("command", [["list_zoo", "--help"], ["train_runs", "--recipe=help"]])
def test_a_reader_that_stops_reading_is_no_error(command):
    """As with `| head -1`: here nobody reads at all."""
    reading, writing = os.pipe()
    os.close(reading)
    program, *arguments = command
    found = subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert found.stderr == ""
    assert found.returncode == 141

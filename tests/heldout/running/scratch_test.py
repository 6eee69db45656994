"""Temporary folders: gone in the end, and those of the dead with the next program; workers have theirs within."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from heldout.running import runners, scratch, workers
from zoo import files

_MODULE = "tests.heldout.running.scratch_worker"


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def gone():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def make(base, process, machine=None, name="abc", seconds_ago=0.0):
    path = base / f"heldout-{machine or files.machine()}-{process}-{name}"
    path.mkdir()
    (path / "file").touch()
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


def test_a_folder_is_there_for_a_block(base):
    with scratch.folder() as path:
        assert os.path.dirname(path) == str(base)
        pathlib.Path(path, "file").touch()
        with scratch.folder() as other:
            assert other != path
        assert os.path.exists(path)
    assert not list(base.iterdir())


def test_what_the_dead_have_left_goes_with_the_next(base):
    process = subprocess.Popen(["sleep", "60"])
    stays = [make(base, process.pid), make(base, gone(), machine="0123abcd"), base / "heldout-notes"]
    stays[-1].mkdir()
    goes = [make(base, gone()), make(base, process.pid, name="of an earlier process", seconds_ago=3600)]
    with scratch.folder():
        assert all(path.exists() for path in stays)
        assert not any(path.exists() for path in goes)
    process.kill()
    process.wait()


@pytest.mark.parametrize("through_runner", [True, False])
def test_workers_leave_nothing(base, through_runner):
    """However they end: their temporary files are in the folder of the program, and it deletes that."""
    tasks = [{"value": 1}]
    if through_runner:
        with runners.opened(runners.Runner(), "cpu", 1) as runner:
            messages = list(runner.run_tasks(_MODULE, {}, tasks, num_workers=1))
    else:
        messages = list(workers.run_tasks(_MODULE, {}, tasks, num_workers=1, threads_per_worker=1))
    (left,) = [message["left"] for message in messages if "left" in message]
    assert pathlib.Path(left).is_relative_to(base)
    assert not list(base.iterdir())


def test_what_a_killed_program_has_left_goes_with_the_next(base):
    program = (
        "import os, signal\n"
        "from heldout.running import workers\n"
        f"for m in workers.run_tasks({_MODULE!r}, {{}}, [{{}}], num_workers=1, threads_per_worker=1,\n"
        "                            supplies={'data': os.mkdir}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(base)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert len(list(base.iterdir())) == 1
    with scratch.folder():
        pass
    assert not list(base.iterdir())

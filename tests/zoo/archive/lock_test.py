"""One holder at a time, across processes, and none after the holder has died."""

import os
import signal
import subprocess
import sys

import pytest

from zoo import errors
from zoo.archive import lock

_HOLD = """
import sys, time
from zoo.archive import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "folder" / ".lock"
    process = subprocess.Popen([sys.executable, "-c", _HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        message = rf"\.lock: held by another process \({process.pid}\)"
        with pytest.raises(errors.BusyError, match=message), lock.held(path):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with lock.held(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with lock.held(tmp_path / "lock"):
            pass

"""The pool with real processes: results, deaths, orphans."""

import os
import signal
import subprocess
import sys
import time

import pytest

from heldout import workers
from zoo import errors

_MODULE = "tests.heldout.echo_worker"


def run(tasks, num_workers=2):
    return list(workers.run_tasks(_MODULE, {"factor": 3}, tasks, num_workers=num_workers, threads_per_worker=1))


def test_every_task_is_done_once_and_facts_arrive():
    messages = run([{"value": i} for i in range(7)])
    assert sorted(m["echo"] for m in messages if "echo" in m) == [0, 3, 6, 9, 12, 15, 18]
    assert [m["fact"] for m in messages if "fact" in m] == [3, 3]


def test_workers_share_the_work():
    messages = run([{"value": 0, "sleep": 0.5}, {"value": 1, "sleep": 0.5}])
    assert len({m["process"] for m in messages if "process" in m}) == 2


def test_killed_worker_is_reported_with_its_signal():
    with pytest.raises(workers.WorkerError, match=r"SIGKILL.*fewer --workers"):
        run([{"die": True}])


def test_worker_that_exits_leaves_its_last_words():
    with pytest.raises(workers.WorkerError, match=r"(?s)status 3.*some last words"):
        run([{"exit": True}])


def test_an_error_of_the_user_comes_through_as_it_is():
    with pytest.raises(errors.HeldoutError, match=r"^--flag=7: expected 8$"):
        run([{"refuse": True}])


def test_module_that_is_not_there_is_reported():
    with pytest.raises(workers.WorkerError, match="No module named"):
        list(workers.run_tasks("tests.no_such_worker", {}, [], num_workers=1, threads_per_worker=1))


def test_no_worker_is_left_when_the_caller_stops_listening():
    messages = workers.run_tasks(_MODULE, {"factor": 1}, [{"sleep": 60}], num_workers=1, threads_per_worker=1)
    process = next(m["process"] for m in messages if "process" in m)
    messages.close()
    assert not alive(process)


def test_no_worker_outlives_a_killed_parent(tmp_path):
    program = (
        "from heldout import workers\n"
        f"for m in workers.run_tasks({_MODULE!r}, {{'factor': 1}}, [{{'sleep': 60}}] * 2,\n"
        "                             num_workers=2, threads_per_worker=1):\n"
        "    if 'process' in m:\n"
        "        print(m['process'], flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    children = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(alive(child) for child in children)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(child) for child in children)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; it only waits for its parent, here the init process, to notice.
    with open(f"/proc/{process}/stat") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_interrupt_is_left_to_the_parent():
    messages = workers.run_tasks(
        _MODULE, {"factor": 1}, [{"sleep": 1, "value": 5}], num_workers=1, threads_per_worker=1
    )
    process = next(m["process"] for m in messages if "process" in m)
    os.kill(process, signal.SIGINT)
    assert [m["echo"] for m in messages if "echo" in m] == [5]

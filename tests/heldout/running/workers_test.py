"""The pool with real processes: results, deaths, orphans."""

import os
import signal
import subprocess
import sys
import time

import pytest

from heldout.running import code_version, dispatch, workers
from zoo import errors

_MODULE = "tests.heldout.running.echo_worker"


def run(tasks, num_workers=2):
    return list(workers.run_tasks(_MODULE, {"factor": 3}, tasks, num_workers=num_workers, threads_per_worker=1))


def test_every_task_is_done_once_and_facts_arrive():
    messages = run([{"value": i} for i in range(7)])
    assert sorted(m["echo"] for m in messages if "echo" in m) == [0, 3, 6, 9, 12, 15, 18]
    assert {m["fact"] for m in messages if "fact" in m} == {3}


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


def again(loss):
    """The same task again, with what had been answered."""
    message = {"lost": loss.task, "answers": loss.answers, "cause": loss.end.cause}
    return dispatch.Recovery([loss.task], message)


def recovering(tasks, tmp_path, num_workers=1, setup=None, recover=again):
    setup = {"factor": 3, "marks": str(tmp_path)} | (setup or {})
    return list(
        workers.run_tasks(_MODULE, setup, tasks, num_workers=num_workers, threads_per_worker=1, recover=recover)
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_worker_is_replaced_and_its_task_handed_out_again(tmp_path, num_workers):
    tasks = [{"value": i, "die_once": i == 1} for i in range(4)]
    messages = recovering(tasks, tmp_path, num_workers)
    assert sorted(m["echo"] for m in messages if "echo" in m) == [0, 3, 6, 9]
    (lost,) = [m for m in messages if "lost" in m]
    assert lost["lost"] == tasks[1]
    assert lost["answers"] == [{"process": lost["answers"][0]["process"]}]
    assert lost["cause"] == (
        "a worker process was ended by SIGKILL (often a lack of memory: use fewer --workers or --runs_per_group)"
    )


def test_a_lost_task_may_come_back_as_several_or_none(tmp_path):
    def halves(loss):
        return dispatch.Recovery([{"value": 5}, {"value": 6}] if loss.task["value"] == 1 else [], {"note": "lost"})

    messages = recovering([{"value": 1, "die": True}, {"value": 2, "die": True}], tmp_path, recover=halves)
    assert sorted(m["echo"] for m in messages if "echo" in m) == [15, 18]
    assert [m for m in messages if "note" in m] == [{"note": "lost"}] * 2


def test_the_recovery_may_give_up(tmp_path):
    def give_up(loss):
        raise dispatch.WorkerError(f"no more: {loss.end.obituary()}")

    with pytest.raises(workers.WorkerError, match=r"no more: a worker process was ended by SIGKILL"):
        recovering([{"value": 1, "die": True}], tmp_path, recover=give_up)


def test_a_program_that_fails_is_not_started_again(tmp_path):
    with pytest.raises(workers.WorkerError, match=r"(?s)status 3.*some last words"):
        recovering([{"exit": True}], tmp_path)


def test_a_worker_without_memory_gives_way_to_a_new_one(tmp_path):
    def smaller(loss):
        assert loss.end.memory
        return dispatch.Recovery([{"value": 1}], {"note": loss.end.cause, "words": loss.end.last_words})

    messages = recovering([{"exhaust": True}], tmp_path, recover=smaller)
    (note,) = [m for m in messages if "note" in m]
    assert note["note"] == "a worker process found too little memory (use fewer --workers or --runs_per_group)"
    assert "too little memory: an array of 3 TB" in note["words"]
    assert [m["echo"] for m in messages if "echo" in m] == [3]


def test_workers_killed_while_they_start_are_replaced_but_not_for_ever(tmp_path):
    messages = recovering([{"value": 1}], tmp_path, setup={"deaths_at_start": 2})
    assert [m["echo"] for m in messages if "echo" in m] == [3]
    assert ["before it could start; another one" in m["note"] for m in messages if "note" in m] == [True, True]
    with pytest.raises(workers.WorkerError, match="SIGKILL"):
        recovering([{"value": 1}], tmp_path, setup={"deaths_at_start": 5})


def test_an_idle_worker_that_is_killed_is_not_missed(tmp_path):
    tasks = [{"value": 1, "sleep": 0.1}, {"value": 2, "sleep": 2}]
    stream = workers.run_tasks(_MODULE, {"factor": 1}, tasks, num_workers=2, threads_per_worker=1, recover=again)
    echoed, idle = [], None
    for message in stream:
        if "echo" in message:
            echoed.append(message["echo"])
            if message["echo"] == 1:
                idle = message["process"]
        elif message.get("done") and echoed == [1] and idle is not None:
            os.kill(idle, signal.SIGKILL)
            idle = None  # the other one may say that it has started only now
    assert echoed == [1, 2]


def test_supplies_are_there_for_every_start_and_gone_once_all_have_started(tmp_path):
    written = []

    def write(path):
        written.append(path)
        os.mkdir(path)
        with open(f"{path}/text", "w") as stream:
            stream.write("content")

    messages = []
    for message in workers.run_tasks(
        _MODULE,
        {"factor": 1, "marks": str(tmp_path)},
        [{"value": 1, "die_once": True}],
        num_workers=1,
        threads_per_worker=1,
        supplies={"folder": write},
        recover=again,
    ):
        messages.append(message)
        if "echo" in message:
            assert not any(os.path.exists(os.path.dirname(path)) for path in written)
    assert [m["supplied"] for m in messages if "supplied" in m] == ["content"] * 2
    assert len(written) == 2


def test_a_worker_of_other_code_is_refused_by_both_names():
    process = workers.WorkerProcess(_MODULE, 1)
    process.send({"code": {"version": "0.0.1", "digest": "0123"}, "setup": {"factor": 1}})
    (answer,) = process.messages()
    process.kill()
    process.close()
    ours = code_version.identity()
    assert (
        f"runs Heldout {ours['version']} (code {ours['digest']}), this program Heldout 0.0.1 (code 0123)"
        in (answer["error"])
    )


def test_no_worker_is_left_when_the_caller_stops_listening():
    messages = workers.run_tasks(_MODULE, {"factor": 1}, [{"sleep": 60}], num_workers=1, threads_per_worker=1)
    process = next(m["process"] for m in messages if "process" in m)
    messages.close()
    assert not alive(process)


def test_no_worker_outlives_a_killed_parent(tmp_path):
    program = (
        "from heldout.running import workers\n"
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
    assert all(gone_soon(child) for child in children)


def gone_soon(process):
    """Whether a process ends within ten seconds."""
    deadline = time.monotonic() + 10
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process)


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

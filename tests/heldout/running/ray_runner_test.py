"""Worker programs on a real Ray cluster of this machine: results, losses, refusals; nothing is left in the end."""

import os
import pathlib
import re
import signal
import sys

import pytest

from heldout.running import code_version, dispatch, ray_runner, runners, workers
from tests.heldout.running import workers_test
from zoo import errors

ray = pytest.importorskip("ray", reason="pip install 'heldout[ray]'")

_MODULE = "tests.heldout.running.echo_worker"
PLACES = ray_runner.Places()


@pytest.fixture(scope="module")
def cluster():
    with ray_runner.cluster(PLACES) as room:
        yield room


def run(tasks, setup=None, num_workers=2, recover=None, supplies=None, places=PLACES):
    pool = ray_runner.ActorPool(_MODULE, {"factor": 3} | (setup or {}), places, supplies or {})
    return dispatch.run(pool, tasks, num_workers, recover)


def test_every_task_is_done_once_and_folders_reach_the_workers(cluster):
    def write(path):
        os.mkdir(path)
        with open(f"{path}/text", "w") as stream:
            stream.write("content")

    messages = list(run([{"value": i} for i in range(7)], supplies={"folder": write}))
    assert sorted(m["echo"] for m in messages if "echo" in m) == [0, 3, 6, 9, 12, 15, 18]
    assert {m["supplied"] for m in messages if "supplied" in m} == {"content"}
    assert not any("ended" in m for m in messages)


def test_room_is_counted_in_cores(cluster):
    assert cluster == workers.num_cores()
    assert ray_runner.room({"CPU": 7, "GPU": 2}, ray_runner.Places("auto", 2)) == 3
    assert ray_runner.room({"CPU": 7, "GPU": 2}, ray_runner.Places("auto", 1, 0.5)) == 4
    assert ray_runner.room({"CPU": 1}, ray_runner.Places("auto", 2)) == 1
    with pytest.raises(errors.InvalidValueError, match=r"--num_gpus_per_worker=1: this machine has 4 cores and 0 GPUs"):
        ray_runner.room({"CPU": 4}, ray_runner.Places(None, 1, 1))


@pytest.mark.parametrize("victim", ["process", "actor"])
def test_a_lost_worker_is_replaced_and_its_task_handed_out_again(cluster, victim, tmp_path):
    tasks = [{"value": 1, "sleep": 2.0, "parent": True}, {"value": 2}]
    echoed, losses = [], []

    def recover(loss):
        losses.append(loss)
        return dispatch.Recovery([{"value": 10}], {"note": loss.end.cause})

    for message in run(tasks, recover=recover):
        if "parent" in message:
            os.kill(message["process"] if victim == "process" else message["parent"], signal.SIGKILL)
        if "echo" in message:
            echoed.append(message["echo"])
    assert sorted(echoed) == [6, 30]
    (loss,) = losses
    assert loss.task == tasks[0]
    assert loss.end.lost
    assert loss.end.memory == (victim == "process")
    assert ("SIGKILL" if victim == "process" else "a worker of the cluster was lost (") in loss.end.cause


def test_without_recovery_a_loss_ends_everything(cluster):
    with pytest.raises(dispatch.WorkerError, match=r"(?s)status 3 on .*what was finished is kept.*some last words"):
        list(run([{"exit": True}]))


def test_an_error_of_the_user_comes_through_as_it_is(cluster):
    with pytest.raises(dispatch.TaskError, match=r"^--flag=7: expected 8$"):
        list(run([{"refuse": True}]))


def test_workers_of_other_code_are_refused_with_both_versions(cluster, monkeypatch):
    monkeypatch.setattr(code_version, "identity", lambda: {"version": "0.0.1", "digest": "0123"})
    with pytest.raises(dispatch.TaskError, match=r"the worker on .* runs Heldout .* this program Heldout 0\.0\.1"):
        list(run([{"value": 1}]))


def test_no_process_is_left_when_the_caller_stops_listening(cluster):
    stream = run([{"value": 1, "sleep": 60}], num_workers=1)
    process = next(m["process"] for m in stream if "process" in m)
    stream.close()
    assert workers_test.gone_soon(process)


def test_workers_leave_no_temporary_files(cluster):
    pool = ray_runner.ActorPool("tests.heldout.running.scratch_worker", {}, PLACES, {})
    (left,) = [m["left"] for m in dispatch.run(pool, [{}], 1) if "left" in m]
    assert re.fullmatch(r"heldout-[0-9a-f]{8}-\d+-.+", pathlib.Path(left).parent.name)
    assert not pathlib.Path(left).parent.exists()


@pytest.mark.parametrize(
    ("runner", "device", "message"),
    [
        (runners.Runner("cloud"), "cpu", "--runner=cloud: expected one of local, ray"),
        (runners.Runner(ray_address="auto"), "cpu", "--ray_address says nothing without --runner=ray"),
        (runners.Runner(num_cpus_per_worker=2), "cpu", "--num_cpus_per_worker says nothing without --runner=ray"),
        (runners.Runner("ray", num_cpus_per_worker=0), "cpu", "--num_cpus_per_worker=0: expected at least 1"),
        (runners.Runner("ray", num_gpus_per_worker=-1), "cpu", "--num_gpus_per_worker=-1: expected 0 or more"),
        (runners.Runner("ray"), "gpu", "add --num_gpus_per_worker=1"),
    ],
)
def test_contradictions_are_refused_before_anything_is_started(runner, device, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        runners.check(runner, device)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_is_refused_at_once(address):
    connecting = ray_runner.cluster(ray_runner.Places(address))
    with pytest.raises(errors.NetworkError, match=rf"--ray_address={address}: nobody answers there .*`ray start"):
        connecting.__enter__()


def test_a_cluster_that_ray_cannot_find_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("no running instance")))
    connecting = ray_runner.cluster(ray_runner.Places("auto"))
    with pytest.raises(errors.NetworkError, match=r"--ray_address=auto: no cluster could be reached \(no running"):
        connecting.__enter__()


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.InvalidValueError, match=r"--runner=ray: Ray cannot be imported .*pip install"):
        runners.check(runners.Runner("ray"), "cpu")

"""`train_runs` on a real Ray cluster of this machine, whose processes are killed: the zoo is the undisturbed one."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import cases
from zoo import layout, run_table

pytest.importorskip("ray", reason="pip install 'heldout[ray]'")

_ROOT = pathlib.Path(__file__).parents[2]
_WORKER, _ACTOR = "heldout.training.train_worker", "ray::Host"


def start(zoo, dataset, num_runs, *arguments, num_epochs=3):
    """Groups of one run, so that what is trained again is the same to the last bit."""
    flags = [f"--zoo={zoo}", f"--dataset={dataset}", "--experiment=e", f"--run_ids=0:{num_runs}", "--batch_size=10"]
    flags += [
        '--arch_options={"hidden_sizes": [16]}',
        f"--num_epochs={num_epochs}",
        "--runs_per_group=1",
        "--workers=2",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.train_runs", *flags, *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(ancestor):
    """Ids and command lines of a process's children, their children and so on."""
    parents, commands = {}, {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found = {ancestor}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return {process: commands.get(process, "") for process in found - {ancestor}}
        found |= more


def kill_one(driver, name, choose=min):
    """Kills a descendant of the program by its command line; whether there was one."""
    there = [process for process, command in descendants(driver.pid).items() if name in command]
    if there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(choose(there), signal.SIGKILL)
    return bool(there)


def num_records(zoo):
    return len(list(zoo.glob(f"e/*/*/{layout.AUX_ARRAYS_NAME}")))


def wait_until(condition, driver, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def all_gone(processes, seconds=20):
    deadline = time.monotonic() + seconds
    while any(alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(alive(process) for process in processes)


def alive(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def assert_equal_zoos(one, other):
    """Every file but the table byte for byte; the table, which notes when records were written, by its content."""
    names = [sorted(str(path.relative_to(zoo)) for path in zoo.rglob("*") if path.is_file()) for zoo in (one, other)]
    # Of the files that a kill may leave behind, hidden temporary ones are all there can be.
    assert names[0] == [name for name in names[1] if ".tmp-" not in name]
    for name in names[0]:
        if name.endswith(layout.RUN_TABLE_NAME):
            assert run_table.read(one / name).digest() == run_table.read(other / name).digest()
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset):
    """Trained without a cluster."""
    zoo = tmp_path_factory.mktemp("undisturbed")
    process = start(zoo, dataset, 8)
    assert process.communicate()[0].startswith("training 8 runs")
    assert process.returncode == 0
    return zoo


@pytest.mark.slow
def test_a_cluster_whose_processes_are_killed_trains_the_same_zoo(undisturbed, dataset, tmp_path):
    driver = start(tmp_path, dataset, 8, "--runner=ray")
    wait_until(lambda: num_records(tmp_path) >= 1, driver)
    assert kill_one(driver, _WORKER)
    wait_until(lambda: num_records(tmp_path) >= 3, driver)
    # Not Ray's own agents: they try to tell of the death of their cluster before they end, for a minute and more.
    family = [
        process for process, command in descendants(driver.pid).items() if _WORKER in command or _ACTOR in command
    ]
    assert len(family) >= 2
    driver.kill()
    driver.communicate()
    assert all_gone(family)
    assert num_records(tmp_path) < 8
    driver = start(tmp_path, dataset, 8, "--runner=ray")
    wait_until(lambda: kill_one(driver, _ACTOR), driver)
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert "a worker of the cluster was lost" in errors
    assert_equal_zoos(undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_cluster_of_this_machine_ends_with_the_program(dataset, tmp_path, number, status):
    driver = start(tmp_path, dataset, 400, "--runner=ray")
    wait_until(lambda: num_records(tmp_path) >= 1, driver)
    family = list(descendants(driver.pid))
    assert len(family) > 3
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == status, errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert all_gone(family)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_killed_at_random_moments_the_zoo_is_the_same(runner, undisturbed, dataset, tmp_path):
    moments = random.Random(runner)
    num_kills = {_WORKER: 0, _ACTOR: 0, "driver": 0}
    while num_records(tmp_path) < 8:  # a quick machine may be done before its driver has been killed
        driver = start(tmp_path, dataset, 8, f"--runner={runner}")
        deadline = time.monotonic() + moments.uniform(6, 25)
        while driver.poll() is None and time.monotonic() < deadline:
            time.sleep(moments.uniform(0.2, 3))
            name = moments.choice([_WORKER, _ACTOR])
            num_kills[name] += kill_one(driver, name, moments.choice)
        num_kills["driver"] += driver.poll() is None
        driver.kill()
        driver.communicate()
    last = start(tmp_path, dataset, 8, f"--runner={runner}")
    _, errors = last.communicate(timeout=200)
    assert last.returncode == 0, errors
    assert num_kills[_WORKER] + num_kills[_ACTOR] >= 2
    assert_equal_zoos(undisturbed, tmp_path)

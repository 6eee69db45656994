"""zoo_stream, zoo_download and zoo_fetch, killed at random moments until they are done, equal undisturbed ones."""

import dataclasses
import os
import pathlib
import random
import subprocess
import time

import pytest

from tests.scripts import archive_programs
from tests.zoo.archive import archives
from tests.zoo.remote import fault_server
from zoo import files, layout
from zoo.archive import index, indexing, seek_plan

PROGRAMS = ("zoo_stream", "zoo_download", "zoo_fetch")
# The largest of the published archives, for which the index is to stay small, too.
_PUBLISHED_BYTES = 239 * 10**9
_LARGEST_INDEX_SHARE = 0.0005


@dataclasses.dataclass
class Served:
    """A zoo, the server with its archive, and what undisturbed programs made of it, each in a folder of its name."""

    zoo: pathlib.Path
    server: fault_server.FaultServer
    results: pathlib.Path
    small_steps: bool

    @property
    def archive(self) -> pathlib.Path:
        return self.server.root / archive_programs.ARCHIVE_NAME

    @property
    def index(self) -> pathlib.Path:
        return layout.archive_index_path(self.results / "zoo_stream", archive_programs.EXPERIMENT)

    def command(self, program, dest, *arguments):
        arguments = [f"--archive={self.server.url(self.archive.name)}", f"--dest={dest}", *arguments]
        if program == "zoo_fetch":
            arguments += [f"--index={self.index}", *([] if any("--runs" in a for a in arguments) else ["--runs=all"])]
        return archive_programs.command(program, *arguments, small_steps=self.small_steps)

    def make_results(self):
        for program in PROGRAMS:
            subprocess.run(
                self.command(program, self.results / program), cwd=archive_programs.ROOT, check=True, timeout=120
            )
        return self


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    runs = [(ratio, run_id) for ratio in (0.3, 0.5, 0.7) for run_id in range(4)]
    zoo, served = archive_programs.make(folder, runs, num_parameters=100_000)
    with fault_server.FaultServer(served) as server:
        yield Served(zoo, server, folder, small_steps=True).make_results()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    runs = [(ratio, run_id) for ratio in (0.3, 0.5, 0.7) for run_id in range(15)]
    zoo, served = archive_programs.make(folder, runs, num_train=50_000, num_test=10_000, num_parameters=1_600_000)
    with fault_server.FaultServer(served) as server:
        yield Served(zoo, server, folder, small_steps=False).make_results()


def kill_until(case, tmp_path, program, num_kills, moments, *most):
    """Fresh folders, each filled by a program that is killed until it is done, until there were enough kills."""
    tally = archive_programs.Tally()
    while tally.num_kills < num_kills:
        dest = tmp_path / str(tally.num_finished)
        left = num_kills - tally.num_kills
        archive_programs.run_killed(case.command(program, dest), case.server, moments, left, *most, tally)
        archive_programs.assert_same(case.results / program, dest)
        if program == "zoo_fetch":
            archive_programs.assert_only_true_files(dest, case.zoo)
    return tally


@pytest.mark.parametrize("program", PROGRAMS)
def test_killed_anywhere_a_program_ends_as_if_undisturbed(tmp_path, small, program):
    size = small.archive.stat().st_size
    small.server.faults = fault_server.Faults(bytes_per_s=size / 3)
    tally = kill_until(small, tmp_path, program, 4, random.Random(PROGRAMS.index(program)), size / 2, 0.4)
    assert tally.num_resumed > 0
    # A start that was killed has saved all but its last steps, and what was on the way.
    assert tally.num_bytes <= tally.num_finished * size + tally.num_kills * 16 * archive_programs.STEP_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(("program", "num_kills"), [("zoo_stream", 80), ("zoo_download", 60), ("zoo_fetch", 60)])
def test_200_kills_on_a_large_zoo(tmp_path, large, program, num_kills):
    size = large.archive.stat().st_size
    started = time.monotonic()
    tally = kill_until(large, tmp_path, program, num_kills, random.Random(PROGRAMS.index(program)), 2.4e8, 3.0)
    excess = tally.num_bytes - tally.num_finished * size
    print(f"{program}: {tally}, {excess} bytes in excess, {time.monotonic() - started:.0f} s")
    assert tally.num_resumed > num_kills // 4
    # 64 MiB lie between two saves; six ranges of 8 MiB are under way, and as much in the sockets.
    assert excess <= tally.num_kills * 150e6


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("zoo_stream", "synthetic/run_table.npz"),
        ("zoo_stream", f"synthetic/.{layout.ARCHIVE_INDEX_NAME}.tmp-"),
        ("zoo_download", f"..{archive_programs.ARCHIVE_NAME}.part.json.tmp-"),
        ("zoo_fetch", "synthetic/0.5/1/.aux_arrays.npz.tmp-"),
    ],
)
def test_killed_while_it_writes_a_file_a_program_writes_it_again(tmp_path, small, program, name):
    # It may be gone again before the kill arrives.
    for attempt in range(20):
        dest = tmp_path / str(attempt)
        kill_when_it_appears(name, dest, small, program)
        if any(dest.glob(f"{name}*")):
            break
    assert any(dest.glob(f"{name}*"))
    subprocess.run(small.command(program, dest), cwd=archive_programs.ROOT, check=True)
    archive_programs.assert_same(small.results / program, dest)


def kill_when_it_appears(name, dest, case, program):
    case.server.faults = fault_server.Faults()
    start = dest / name
    process = subprocess.Popen(case.command(program, dest), cwd=archive_programs.ROOT, stdout=subprocess.PIPE)
    while process.poll() is None and not (
        start.parent.exists() and any(found.startswith(start.name) for found in os.listdir(start.parent))
    ):
        pass
    process.kill()
    process.communicate()


def test_what_a_kill_leaves_beside_a_finished_index_goes(tmp_path, small):
    # It may have ended before the kill arrives.
    for attempt in range(20):
        dest = tmp_path / str(attempt)
        folder = layout.experiment_directory(dest, archive_programs.EXPERIMENT)
        kill_when_it_appears(f"{folder.name}/{layout.RECIPE_NAME}", dest, small, "zoo_stream")
        if (folder / f".{small.index.name}.part").exists():
            break
    assert (folder / f".{small.index.name}.part").exists()
    # The next that it would have done.
    (folder / small.index.name).write_bytes(small.index.read_bytes())
    again = subprocess.run(small.command("zoo_stream", dest), cwd=archive_programs.ROOT, stdout=subprocess.PIPE)
    assert b"complete already" in again.stdout
    archive_programs.assert_same(small.results / "zoo_stream", dest)


def test_a_damaged_archive_gives_the_same_index_however_often_the_pass_is_killed(tmp_path, small):
    size = small.archive.stat().st_size
    folder = tmp_path / "served"
    folder.mkdir()
    damaged = folder / small.archive.name
    damaged.write_bytes(small.archive.read_bytes())
    archives.flip(damaged, size // 3, 0x10)
    archives.flip(damaged, size // 2, 0x10)
    with fault_server.FaultServer(folder) as server:
        case = dataclasses.replace(small, server=server)
        subprocess.run(case.command("zoo_stream", tmp_path / "undisturbed"), cwd=archive_programs.ROOT, check=False)
        server.faults = fault_server.Faults(bytes_per_s=size / 3)
        tally = archive_programs.Tally()
        command = case.command("zoo_stream", tmp_path / "disturbed")
        archive_programs.run_killed(command, server, random.Random(0), 3, size / 2, 0.4, tally, status=3)
    assert tally.num_kills == 3
    archive_programs.assert_same(tmp_path / "undisturbed", tmp_path / "disturbed")
    assert index_facts(tmp_path / "disturbed").state == "damaged"


def index_facts(zoo):
    with index.Index(layout.archive_index_path(zoo, archive_programs.EXPERIMENT)) as stored:
        return stored.facts


@pytest.mark.slow
def test_one_run_of_a_large_archive_costs_its_bytes_and_two_seek_intervals(tmp_path, large):
    run = layout.Run(large.zoo, archive_programs.EXPERIMENT, 0.5, 7)
    num_bytes = sum(path.stat().st_size for path in run.directory.rglob("*") if path.is_file())
    large.server.faults = fault_server.Faults()
    before = large.server.bytes_sent
    subprocess.run(
        large.command("zoo_fetch", tmp_path, "--runs=0.5/7"), cwd=archive_programs.ROOT, check=True, timeout=60
    )
    sent = large.server.bytes_sent - before
    print(f"run of {num_bytes} bytes: {sent} bytes were sent")
    assert archive_programs.assert_only_true_files(tmp_path, large.zoo) == 3
    assert sent <= num_bytes + 2 * seek_plan.SPACING
    # Points lie before the headers of members, so there is hardly anything else in between.
    assert sent <= num_bytes


@pytest.mark.slow
def test_the_index_of_a_large_archive_is_small(large):
    size, index_size = large.archive.stat().st_size, large.index.stat().st_size
    print(f"index of {index_size} bytes for {size}: {index_size / size:.6%}, {index_size / size * 239e9 / 1e6:.1f} MB")
    assert index_size / size * _PUBLISHED_BYTES < _LARGEST_INDEX_SHARE * _PUBLISHED_BYTES


@pytest.mark.slow
def test_a_pass_over_a_large_archive_takes_little_memory_and_disk(tmp_path, large):
    large.server.faults = fault_server.Faults()
    usage = archive_programs.run_measured(large.command("zoo_stream", tmp_path), tmp_path)
    print(f"zoo_stream: {files.size_text(usage.memory)} of memory, {files.size_text(usage.disk)} of disk")
    assert usage.memory < 1e9
    assert usage.disk < indexing.disk_needed(large.archive.stat().st_size)
    archive_programs.assert_same(large.results / "zoo_stream", tmp_path)

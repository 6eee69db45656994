"""What is fetched is right to the byte, or it is not there; whatever happens, nothing half done is left."""

import contextlib
import pathlib
import sqlite3
import subprocess
import sys
import zlib

import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from tests.zoo.remote import fault_server
from zoo import errors, files, inventory
from zoo.archive import extract, extract_plan, index
from zoo.remote import source

RUNS = [(0.3, 0), (0.3, 4), (0.5, 1)]
FAST = source.Options(num_tries=2, backoff_s=0.01, timeout_s=2.0)


def zoo_files(num_values=30_000):
    """Between the first run and the second lies what nobody wants, near enough to be read along."""
    contents = passes.run_files(*RUNS[0], num_values=num_values)
    contents["e/between.bin"] = np.random.default_rng(0).bytes(200_000)
    for run in RUNS[1:]:
        contents |= passes.run_files(*run, num_values=num_values)
    return contents


FILES = zoo_files()
WANTED = {name: data for name, data in FILES.items() if not name.endswith(".bin")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    archive = passes.write(folder / "a.tar.gz", FILES)
    _, places = passes.indexed(archive, folder / "zoo")
    return archive, places.index


def changed(made, tmp_path, *statements):
    path = tmp_path / "changed.sqlite"
    path.write_bytes(made[1].read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


def fetched(archive, index_path, zoo, runs=RUNS, **options):
    with index.Index(index_path) as stored, source.open_source(str(archive), FAST) as opened:
        todo = extract_plan.plan(stored, zoo, "e", runs)
        return extract.fetch(opened, todo, **options), todo


@pytest.mark.parametrize("chunk_bytes", [8 << 20, 10_000])
def test_runs_come_out_as_they_went_in(made, tmp_path, chunk_bytes):
    calls = []
    result, todo = fetched(*made, tmp_path, chunk_bytes=chunk_bytes, progress=lambda *numbers: calls.append(numbers))
    assert passes.files_below(tmp_path) == WANTED
    assert (result.num_files, result.problems) == (9, ())
    assert result.num_compressed == todo.num_compressed
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert {total for _, total in calls} == {todo.num_compressed}
    again, todo = fetched(*made, tmp_path)
    assert (again.num_files, again.num_compressed, todo.num_there) == (0, 0, 9)


def test_no_more_is_asked_for_than_is_needed(made, tmp_path):
    with (
        fault_server.FaultServer(made[0].parent) as server,
        index.Index(made[1]) as stored,
        source.open_source(server.url("a.tar.gz"), FAST) as opened,
    ):
        before = server.bytes_sent
        todo = extract_plan.plan(stored, tmp_path, "e", RUNS[2:])
        result = extract.fetch(opened, todo)
        sent = server.bytes_sent - before
    assert result.problems == ()
    assert passes.files_below(tmp_path) == passes.run_files(*RUNS[2], num_values=30_000)
    assert sent == todo.num_compressed < 0.3 * made[0].stat().st_size


@pytest.mark.parametrize("name", WANTED)
def test_an_index_with_a_wrong_checksum(made, tmp_path, name):
    path = changed(made, tmp_path, f"UPDATE member SET crc32 = crc32 + 1 WHERE name = '{name}'")
    zoo = tmp_path / "zoo"
    result, todo = fetched(made[0], path, zoo)
    (problem,) = result.problems
    assert problem.reason.startswith(f"{name}: {len(FILES[name])} bytes with CRC32 ")
    assert "the index says" in problem.reason
    run = problem.run
    # The run does not count as complete without the file, nor is it there without a record.
    lost = {name, f"e/{run[0]}/{run[1]}/aux_arrays.npz"}
    assert passes.files_below(zoo) == {other: data for other, data in WANTED.items() if other not in lost}
    # A record that arrived is withheld where its checkpoint is not there.
    record = [] if name.endswith("npz") else [f"e/{run[0]}/{run[1]}/aux_arrays.npz"]
    assert [item.member.name for item in result.withheld] == record
    assert {item.member.name for item in result.arrived} == WANTED.keys() - lost
    assert result.num_bytes == sum(len(WANTED[other]) for other in WANTED.keys() - lost)
    wanted = next(item for group in todo.groups for item in group if item.member.name == name)
    with pytest.raises(errors.IntegrityError, match="CRC32"):
        extract._write(wanted, iter([FILES[name]]), extract._Unfinished(todo))
    assert not [path for path in zoo.rglob("*") if files.is_temporary(path.name)]


def test_a_size_that_is_wrong(made, tmp_path):
    path = changed(made, tmp_path, "UPDATE member SET size = size + 100000000 WHERE run_id = 1")
    result, _ = fetched(made[0], path, tmp_path / "zoo")
    assert {problem.run for problem in result.problems} == {(0.5, 1)}
    assert passes.files_below(tmp_path / "zoo").keys() == {name for name in WANTED if "/0.5/" not in name}


def damaged(made, tmp_path, offset):
    path = tmp_path / "damaged.tar.gz"
    path.write_bytes(made[0].read_bytes())
    archives.flip(path, offset, 0x55)
    return path


def test_damage_in_what_lies_between_two_members_of_a_group_hurts_none(made, tmp_path):
    with index.Index(made[1]) as stored:
        between = next(member for member in stored.members() if member.name == "e/between.bin")
    path = damaged(made, tmp_path, between.end_offset - 60_000)
    zoo = tmp_path / "zoo"
    result, todo = fetched(path, made[1], zoo, chunk_bytes=50_000)
    assert len(todo.groups) == 1
    assert result.problems == ()
    assert passes.files_below(zoo) == WANTED


@pytest.mark.parametrize("share", np.linspace(0.02, 0.98, 13).tolist())
def test_damage_since_the_index_was_made_costs_what_it_hits(made, tmp_path, share):
    path = damaged(made, tmp_path, int(share * made[0].stat().st_size))
    result, _ = fetched(path, made[1], tmp_path / "zoo")
    found = passes.files_below(tmp_path / "zoo")
    assert all(WANTED[name] == data for name, data in found.items())
    assert {problem.run for problem in result.problems} == {
        run for run in RUNS if any(name not in found for name in passes.run_files(*run))
    }
    assert len(result.problems) <= 2
    assert len(found) >= 6


@pytest.mark.parametrize("level", [1, 9])
def test_what_is_sound_can_be_fetched_up_to_the_damage(tmp_path, level):
    """Whatever is found sound in an archive that is damaged already when its index is made; checkpoints as pairs."""
    archive = passes.write(tmp_path / "a.tar.gz", passes.run_files(0.3, 0) | passes.run_files(0.5, 1), level)
    content, num_sound = archive.read_bytes(), 0
    for number, offset in enumerate(range(1000, len(content), 499)):
        archive.write_bytes(content[:offset] + bytes([0xFF]) * 80 + content[offset + 80 :])
        zoo = tmp_path / str(number)
        _, places = passes.indexed(archive, zoo)
        sound = passes.fetchable(places)
        passes.fetched(archive, zoo)
        assert passes.run_files_below(zoo).keys() == sound
        assert not any(ratio.count("damaged") for ratio in inventory.take(zoo, "e", deep=True).ratios)
        num_sound += len(sound)
    assert num_sound >= 15


CONTENT = {
    "a record of another ratio": ("e/0.3/4/aux_arrays.npz", archives.record(5, 0.9), "trained on 19 of 21"),
    "no record": ("e/0.3/4/aux_arrays.npz", b"no npz", "not a sound npz file"),
    "a bomb": ("e/0.3/4/aux_arrays.npz", archives.npz_bomb(300 << 20), "the limit is 268435456"),
    "other values": ("e/0.3/4/checkpoints/ckpt-3.data-00000-of-00001", bytes(120_000), "0.3/4/checkpoints/ckpt-3"),
    "no index": ("e/0.3/4/checkpoints/ckpt-3.index", b"no index", "0.3/4/checkpoints/ckpt-3"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_what_an_index_calls_sound_is_looked_into_all_the_same(tmp_path, kind):
    name, data, reason = CONTENT[kind]
    archive = passes.write(tmp_path / "a.tar.gz", FILES | {name: data})
    _, places = passes.indexed(archive, tmp_path / "scan")
    path = changed(
        (archive, places.index),
        tmp_path,
        "UPDATE member SET state = 'sound', reason = ''",
        "UPDATE fact SET value = '\"sound\"' WHERE key = 'state'",
    )
    result, _ = fetched(archive, path, tmp_path / "zoo")
    (problem,) = result.problems
    assert problem.run == (0.3, 4)
    assert reason in problem.reason
    assert passes.files_below(tmp_path / "zoo") == {
        name: data for name, data in WANTED.items() if not name.startswith("e/0.3/4/")
    }
    assert {item.member.name for item in result.withheld} == {n for n in WANTED if n.startswith("e/0.3/4/")}
    assert result.num_files == len(WANTED) - 3


def test_halves_of_a_checkpoint_that_come_at_different_times_are_held_against_each_other(made, tmp_path):
    name, other = (f"e/0.3/4/checkpoints/ckpt-3{end}" for end in (".index", ".data-00000-of-00001"))
    (tmp_path / other).parent.mkdir(parents=True)
    (tmp_path / other).write_bytes(bytes(120_000))
    path = changed(made, tmp_path, f"UPDATE member SET crc32 = {zlib.crc32(bytes(120_000))} WHERE name = '{other}'")
    result, _ = fetched(made[0], path, tmp_path, RUNS[1:2])
    assert [problem.run for problem in result.problems] == [(0.3, 4)]
    assert not (tmp_path / name).exists()
    assert not (tmp_path / "e/0.3/4/aux_arrays.npz").exists()


def test_a_server_that_fails_leaves_whole_files_and_the_same_plan_goes_on(made, tmp_path):
    with (
        fault_server.FaultServer(made[0].parent) as server,
        index.Index(made[1]) as stored,
        source.open_source(server.url("a.tar.gz"), FAST) as opened,
    ):
        todo = extract_plan.plan(stored, tmp_path, "e", RUNS)
        # The record of a run has come, its checkpoint has not.
        server.faults = fault_server.Faults(only=lambda _, __, asked: asked.startswith("bytes=60"), status=503)
        with pytest.raises(errors.NetworkError):
            extract.fetch(opened, todo, chunk_bytes=1000)
    found = passes.files_below(tmp_path)
    assert found
    assert found.items() < WANTED.items()
    result, _ = fetched(*made, tmp_path)
    assert result.problems == ()
    assert passes.files_below(tmp_path) == WANTED


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("num_calls", range(1, 9))
def test_who_stops_leaves_whole_files(made, tmp_path, num_calls):
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == num_calls:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        fetched(*made, tmp_path, progress=progress)
    found = passes.files_below(tmp_path)
    assert found.items() <= WANTED.items()
    # Records come last.
    assert sum(name.endswith("npz") for name in found) == num_calls // 3
    assert fetched(*made, tmp_path)[0].num_files == 9 - len(found)
    assert passes.files_below(tmp_path) == WANTED


KILLED = """
import os, signal, sys
from zoo.archive import extract, extract_plan, index
from zoo.remote import source
archive, index_path, zoo, num_calls = sys.argv[1:]
calls = []
def progress(done, total):
    calls.append(done)
    if len(calls) == int(num_calls):
        os.kill(os.getpid(), signal.SIGKILL)
with index.Index(index_path) as stored, source.open_source(archive) as opened:
    extract.fetch(opened, extract_plan.plan(stored, zoo, "e", stored.runs()), progress=progress)
"""


@pytest.mark.parametrize("num_calls", [1, 5])
def test_a_kill_while_a_record_is_held_back(made, tmp_path, num_calls):
    command = [sys.executable, "-c", KILLED, str(made[0]), str(made[1]), str(tmp_path), str(num_calls)]
    assert subprocess.run(command, check=False, cwd=pathlib.Path(__file__).parents[3]).returncode == -9
    found = passes.files_below(tmp_path)
    held = [name for name in found if files.is_temporary(pathlib.Path(name).name)]
    assert len(held) == 1
    assert sum(name.endswith("/aux_arrays.npz") for name in found) == num_calls // 3
    result, _ = fetched(*made, tmp_path)
    assert result.problems == ()
    assert passes.files_below(tmp_path) == WANTED


@pytest.mark.parametrize("name", ["e/0.3/0/aux_arrays.npz", "e/0.3/0/checkpoints/ckpt-3.index", "e/0.3"])
def test_a_place_that_cannot_be_written_to(made, tmp_path, name):
    """Something stands in the way, which no permission of the user who runs the tests changes."""
    place = tmp_path / name
    if name == "e/0.3":
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
    else:
        (place / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|exists") as caught:
        fetched(*made, tmp_path)
    assert caught.value.filename is not None
    assert not [path for path in tmp_path.rglob("*") if files.is_temporary(path.name)]
    assert place.exists()


def test_a_server_without_ranges_is_named(made, tmp_path):
    with fault_server.FaultServer(made[0].parent) as server:
        server.faults = fault_server.Faults(ignore_range=True)
        with pytest.raises(errors.NetworkError, match="zoo_download"):
            fetched(server.url("a.tar.gz"), made[1], tmp_path)
    assert passes.files_below(tmp_path) == {}


def test_a_stale_index_of_an_archive_of_the_same_size_accepts_nothing_wrong(made, tmp_path):
    content = bytearray(made[0].read_bytes())
    other = passes.write(tmp_path / "other.tar.gz", zoo_files(num_values=31_000)).read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(other[: len(content)].ljust(len(content), b"\0"))
    result, _ = fetched(path, made[1], tmp_path / "zoo")
    assert {problem.run for problem in result.problems} == set(RUNS)
    assert passes.files_below(tmp_path / "zoo").items() <= WANTED.items()
    assert not [name for name in passes.files_below(tmp_path / "zoo") if name.endswith("0.5/1/aux_arrays.npz")]


def test_nothing_to_fetch(made, tmp_path):
    result, _ = fetched(*made, tmp_path, [])
    assert result == extract.Result((), 0, ())


def test_a_run_that_is_replaced_only_in_part_does_not_count_as_complete(made, tmp_path):
    """What is there is another run of the same name; of the archive's one the data file cannot be had."""
    folder = tmp_path / "e" / "0.3" / "4"
    own = {name.replace("0.9", "0.3"): data for name, data in passes.run_files(0.9, 4, num_values=30_000).items()}
    for name, data in own.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    lost = "UPDATE member SET crc32 = 1 WHERE name LIKE '%0.3/4/%data%'"
    path = changed(made, tmp_path, lost)
    with index.Index(path) as stored, source.open_source(str(made[0]), FAST) as opened:
        kept = extract.fetch(opened, extract_plan.plan(stored, tmp_path, "e", [(0.3, 4)]))
        assert "--overwrite replaces it" in kept.problems[0].reason
        assert passes.run_files_below(tmp_path) == own
        todo = extract_plan.plan(stored, tmp_path, "e", [(0.3, 4)], overwrite=True)
        assert len(extract.fetch(opened, todo).problems) == 1
    assert (folder / "checkpoints" / "ckpt-3.index").read_bytes() == WANTED["e/0.3/4/checkpoints/ckpt-3.index"]
    assert not (folder / "aux_arrays.npz").exists()
    with index.Index(made[1]) as stored, source.open_source(str(made[0]), FAST) as opened:
        extract.fetch(opened, extract_plan.plan(stored, tmp_path, "e", [(0.3, 4)], overwrite=True))
    assert passes.run_files_below(tmp_path) == passes.run_files(0.3, 4, num_values=30_000)

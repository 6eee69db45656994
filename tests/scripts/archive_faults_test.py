"""zoo_stream, zoo_download and zoo_fetch where servers, archives and disks fail.

After every fault the same command finishes, or says why it cannot; no run ever has other bytes than the zoo it is of.
"""

from concurrent import futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess

import pytest

from tests.scripts import archive_programs
from tests.zoo.archive import archives
from tests.zoo.remote import fault_server
from zoo import inventory, layout, run_table
from zoo.archive import index

PROGRAMS = ("zoo_stream", "zoo_download", "zoo_fetch")
ARCHIVE_NAME = archive_programs.ARCHIVE_NAME
RUNS = tuple((ratio, run_id) for ratio in (0.3, 0.7) for run_id in range(6))
_NAMESPACE = ["unshare", "--mount", "--map-root-user"]


@dataclasses.dataclass
class Case:
    """A server with the archive of a zoo, the folder that a program writes to, and what it should make of it."""

    zoo: pathlib.Path
    sound: bytes
    server: fault_server.FaultServer
    dest: pathlib.Path
    results: pathlib.Path

    @property
    def size(self):
        return len(self.sound)

    @property
    def archive(self):
        return self.server.root / ARCHIVE_NAME

    @property
    def sound_index(self):
        return layout.archive_index_path(self.results / "zoo_stream", archive_programs.EXPERIMENT)

    @property
    def own_index(self):
        return layout.archive_index_path(self.dest, archive_programs.EXPERIMENT)

    def flags(self, program, *more):
        """Of flags that are given twice the later ones count."""
        flags = [f"--archive={self.server.url(ARCHIVE_NAME)}", f"--dest={self.dest}", "--num_tries=3"]
        if program == "zoo_fetch":
            flags += ["--runs=all", f"--index={self.sound_index}"]
        return [*flags, *more]

    def run(self, program, *more):
        return archive_programs.run(program, *self.flags(program, *more))

    def assert_finishes(self, program, *more):
        """The command succeeds, and with the results of an undisturbed one."""
        result = self.run(program, *more)
        assert result.returncode == 0, result.stderr
        archive_programs.assert_same(self.results / program, self.dest)
        return result

    def replace_archive(self, content):
        """Puts another object in the archive's place, at once."""
        path = self.archive.with_name("new")
        path.write_bytes(content)
        path.replace(self.archive)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The zoo, its archive, and the results of undisturbed programs."""
    folder = tmp_path_factory.mktemp("made")
    zoo, served = archive_programs.make(folder, RUNS, num_parameters=100_000)
    with fault_server.FaultServer(served) as server:
        for program in PROGRAMS:
            case = Case(
                zoo, (served / ARCHIVE_NAME).read_bytes(), server, folder / "results" / program, folder / "results"
            )
            assert case.run(program).returncode == 0
    return case


@pytest.fixture
def case(tmp_path, made):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / ARCHIVE_NAME).write_bytes(made.sound)
    with fault_server.FaultServer(folder) as server:
        yield dataclasses.replace(made, server=server, dest=tmp_path / "dest")


def near_the_end(size):
    """Whether a request is for bytes of the last fifth."""

    def is_near(method, path, wanted):
        match = re.match(r"bytes=(\d+)-", wanted)
        return match is not None and int(match[1]) > 0.8 * size

    return is_near


def at_once(case, action):
    """Calls action(program, case) for all programs at the same time, since they mostly wait; each has its folder."""
    with futures.ThreadPoolExecutor(len(PROGRAMS)) as pool:
        cases = [dataclasses.replace(case, dest=case.dest.with_name(program)) for program in PROGRAMS]
        list(pool.map(action, PROGRAMS, cases))


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_after": 50_000, "every": 10},
        {"status": 503, "times": 9, "only": lambda method, path, wanted: wanted not in ("", "bytes=0-0")},
        {"stall_after": 50_000, "every": 2, "times": 9},
    ],
    ids=["cut", "503", "stall"],
)
def test_what_fails_for_a_moment_is_tried_again(case, fault):
    case.server.faults = fault_server.Faults(**fault)
    at_once(case, lambda program, own: own.assert_finishes(program, "--timeout_s=1", "--num_tries=6"))
    assert case.server.faults.num_struck >= 9


def test_a_server_that_keeps_failing_is_given_up_and_the_same_command_continues(case):
    case.server.faults = fault_server.Faults(status=503, only=near_the_end(case.size))
    at_once(case, assert_is_given_up)
    case.server.faults = fault_server.Faults()
    before = case.server.bytes_sent
    at_once(case, lambda program, own: own.assert_finishes(program))
    assert case.server.bytes_sent - before < 0.9 * len(PROGRAMS) * case.size


def assert_is_given_up(program, case):
    result = case.run(program, "--num_tries=2")
    assert result.returncode == 4
    assert f"{ARCHIVE_NAME}: failed 2 times in a row, the last time because the server answered 503" in result.stderr
    assert "run the same command again: it continues where it stopped" in result.stderr
    assert not [name for name in archive_programs.files_below(case.dest) if ".tmp-" in name]


def test_a_socket_that_stays_silent_is_given_up(case):
    case.server.faults = fault_server.Faults(stall_after=0, only=near_the_end(case.size))
    result = case.run("zoo_stream", "--num_tries=1", "--timeout_s=1")
    assert result.returncode == 4
    assert "failed once, because no byte came in time" in result.stderr
    case.server.faults = fault_server.Faults()
    case.assert_finishes("zoo_stream")


@pytest.mark.parametrize("program", ["zoo_stream", "zoo_download"])
def test_a_server_that_ignores_ranges_serves_for_the_whole(case, program):
    case.server.faults = fault_server.Faults(ignore_range=True)
    case.assert_finishes(program)


def test_a_server_that_ignores_ranges_cannot_serve_single_runs_but_a_download_can(case):
    case.server.faults = fault_server.Faults(ignore_range=True)
    result = case.run("zoo_fetch")
    assert result.returncode == 4
    assert (
        "the server sends the whole object where a part of it was asked for; download it with zoo_dow" in result.stderr
    )
    copies = case.dest.with_name("copies")
    assert case.run("zoo_download", f"--dest={copies}").returncode == 0
    case.assert_finishes("zoo_fetch", f"--archive={copies / ARCHIVE_NAME}")


@pytest.fixture(scope="module")
def other_archive(tmp_path_factory):
    """Another archive of the same name."""
    folder = tmp_path_factory.mktemp("other")
    return (archive_programs.make(folder, RUNS, num_parameters=90_000, seed=1)[1] / ARCHIVE_NAME).read_bytes()


@pytest.mark.parametrize(
    ("program", "second_message", "repair"),
    [
        ("zoo_stream", "Delete that file to start anew", "synthetic/.archive.index.sqlite.part"),
        ("zoo_download", f"delete it and .{ARCHIVE_NAME}.part to begin anew", f".{ARCHIVE_NAME}.part.json"),
        ("zoo_fetch", "Get the index that belongs to it", None),
    ],
)
def test_an_object_that_changes_meanwhile_is_never_mixed(case, other_archive, program, second_message, repair):
    case.server.change_after = (30, lambda: case.replace_archive(other_archive))
    result = case.run(program)
    assert result.returncode == 1
    assert "changed on the server" in result.stderr
    again = case.run(program)
    assert again.returncode == 1
    assert second_message in again.stderr
    archive_programs.assert_only_true_files(case.dest, case.zoo)
    if repair is None:
        case.replace_archive(case.sound)
        case.assert_finishes(program)
    else:
        (case.dest / repair).unlink()
        assert case.run(program).returncode == 0
    if program == "zoo_download":
        assert (case.dest / ARCHIVE_NAME).read_bytes() == other_archive
    if program == "zoo_stream":
        with index.Index(case.own_index) as stored:
            assert stored.facts.md5 == hashlib.md5(other_archive).hexdigest()
            assert stored.facts.state == "sound"


def registry(case, md5):
    """Flags by which the archive is known, with an MD5."""
    path = case.dest.with_name("registry.json")
    entry = {"name": archive_programs.EXPERIMENT, "url": case.server.url(ARCHIVE_NAME), "md5": md5}
    path.write_text(json.dumps({"schema_version": 1, "experiments": [entry]}))
    return f"--registry={path}", f"--experiment={archive_programs.EXPERIMENT}"


def test_the_right_md5_is_verified(case):
    flags = registry(case, hashlib.md5(case.sound).hexdigest())
    assert "MD5 verified" in case.assert_finishes("zoo_download", *flags).stdout
    streamed = case.run("zoo_stream", *flags)
    assert streamed.returncode == 0
    assert "verified: MD5 known for this archive" in streamed.stdout


def test_a_wrong_md5_is_no_download(case):
    wrong, right = 32 * "0", hashlib.md5(case.sound).hexdigest()
    result = case.run("zoo_download", *registry(case, wrong))
    assert result.returncode == 3
    assert f"the MD5 of what arrived for {case.dest / ARCHIVE_NAME} is {right}, expected {wrong}" in result.stderr
    assert archive_programs.files_below(case.dest) == []
    case.server.hashes = True
    result = case.run("zoo_download", *registry(case, wrong))
    assert result.returncode == 3
    assert "nothing was downloaded" in result.stderr
    case.assert_finishes("zoo_download", *registry(case, right))


def test_a_wrong_md5_is_damage_of_which_the_pass_tells(case):
    wrong, right = 32 * "0", hashlib.md5(case.sound).hexdigest()
    for _ in range(2):
        result = case.run("zoo_stream", *registry(case, wrong))
        assert result.returncode == 3
        assert f"damaged: MD5 is {right}, the one known for this archive is {wrong}" in result.stdout
    result = case.run("zoo_fetch", f"--index={case.own_index}", *registry(case, wrong))
    assert result.returncode == 3
    # Nothing else is wrong with it, so it is another archive and not a damaged copy.
    assert f"index of an archive with MD5 {right}, the one that is known has {wrong}" in result.stderr
    assert archive_programs.assert_only_true_files(case.dest, case.zoo) == 0


def assert_the_rest_is_usable(case, num_lost):
    """The run table holds true rows, and the runs fetched are those of the zoo."""
    table = run_table.read(layout.run_table_path(case.dest, archive_programs.EXPERIMENT))
    full = run_table.read(layout.run_table_path(case.results / "zoo_stream", archive_programs.EXPERIMENT))
    known = {bytes(row) for row in full.source_sha256}
    assert all(bytes(row) in known for row in table.source_sha256)
    assert len(table.source_sha256) >= len(RUNS) - num_lost
    fetched = case.run("zoo_fetch", f"--index={case.own_index}")
    assert fetched.returncode == 3
    assert "not fetched: " in fetched.stdout
    assert archive_programs.assert_only_true_files(case.dest, case.zoo) >= 3 * (len(RUNS) - num_lost)
    found = inventory.take(case.dest, archive_programs.EXPERIMENT, deep=True)
    assert sum(ratio.num_complete for ratio in found.ratios) >= len(RUNS) - num_lost
    return fetched


def test_of_a_truncated_archive_the_first_runs_are_usable(case):
    archives.truncate(case.archive, int(0.6 * case.size))
    result = case.run("zoo_stream")
    assert result.returncode == 3
    assert re.search(
        r"  damaged: synthetic/0\.7/\d/checkpoints/\S+: the archive is damaged near .* it is truncated", result.stdout
    ), result.stdout
    assert_the_rest_is_usable(case, num_lost=5)
    assert case.run("zoo_stream").returncode == 3
    refused = case.run("zoo_fetch")
    assert refused.returncode == 1
    assert f"it has {int(0.6 * case.size)} bytes, the index says {case.size}" in refused.stderr
    refused = case.run("zoo_download", *registry(case, hashlib.md5(case.sound).hexdigest()))
    assert refused.returncode == 3


def test_a_flipped_byte_costs_the_members_that_it_hits(case):
    archives.flip(case.archive, case.size // 2, 0x10)
    result = case.run("zoo_stream")
    assert result.returncode == 3
    assert re.search(r"  damaged: synthetic/0\.\d/\d/\S+: ", result.stdout), result.stdout
    fetched = assert_the_rest_is_usable(case, num_lost=2)
    assert re.search(r"not fetched: synthetic/0\.\d/\d/\S+ is damaged in the archive", fetched.stdout), fetched.stdout
    refused = case.run("zoo_download", *registry(case, hashlib.md5(case.sound).hexdigest()))
    assert refused.returncode == 3
    assert not (case.dest / ARCHIVE_NAME).exists()


def test_a_flipped_byte_is_found_by_an_index_of_the_sound_archive(case):
    archives.flip(case.archive, case.size // 2, 0x10)
    result = case.run("zoo_fetch")
    assert result.returncode == 3
    assert result.stdout.count("not fetched: ") == 1
    assert re.search(r"not fetched: synthetic/0\.\d/\d/checkpoints/\S+: ", result.stdout)
    assert archive_programs.assert_only_true_files(case.dest, case.zoo) >= 3 * (len(RUNS) - 1)
    case.archive.write_bytes(case.sound)
    case.assert_finishes("zoo_fetch")


def covering(offset):
    """Whether a request is for a range with a byte in it."""

    def is_covering(method, path, wanted):
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        return match is not None and int(match[1]) <= offset <= int(match[2])

    return is_covering


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_pass_never_accepts_a_byte_that_is_flipped_on_the_way(case, share):
    case.server.hashes = True
    place = int(share * case.size)
    case.server.faults = fault_server.Faults(flip_at=place, only=covering(place), times=1)
    result = case.run("zoo_stream")
    if result.returncode == 4:
        assert "came differently when they were read again" in result.stderr
    else:
        # Deflate can take it for data; then the digest of the server is what tells.
        assert result.returncode == 3
        assert f"the one stated by the server is {hashlib.md5(case.sound).hexdigest()}" in result.stdout
        for path in re.search(r"To read the archive again, delete (.*)", result.stdout)[1].split(" and "):
            pathlib.Path(path).unlink()
    assert case.run("zoo_stream").returncode == 0
    tables = [
        run_table.read(layout.run_table_path(zoo, "synthetic")) for zoo in (case.dest, case.results / "zoo_stream")
    ]
    assert tables[0].digest() == tables[1].digest()


def test_a_download_never_accepts_a_byte_that_is_flipped_on_the_way(case):
    case.server.hashes = True
    case.server.faults = fault_server.Faults(flip_at=case.size // 2, only=covering(case.size // 2), times=1)
    result = case.run("zoo_download")
    assert result.returncode == 3
    assert "it has been deleted, the same command begins anew" in result.stderr
    assert archive_programs.files_below(case.dest) == []
    case.assert_finishes("zoo_download")


def test_a_member_with_a_byte_that_is_flipped_on_the_way_is_read_again(case):
    case.server.faults = fault_server.Faults(flip_at=case.size // 2, only=covering(case.size // 2), times=1)
    case.assert_finishes("zoo_fetch")
    assert case.server.faults.num_struck == 1


def on_small_disk(case, program, size, script):
    """Runs a shell script where `case.dest` is a disk of its own; $COMMAND is the program. Returns its output."""
    case.dest.mkdir()
    mount = f"mount -t tmpfs -o size={size} tmpfs {case.dest}"
    try:
        possible = subprocess.run([*_NAMESPACE, "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    command = shlex.join(archive_programs.command(program, *case.flags(program)))
    result = subprocess.run(
        [*_NAMESPACE, "sh", "-c", f"{mount}\ncommand() {{\n{command}\n}}\n{script}"],
        capture_output=True, text=True, cwd=archive_programs.ROOT, check=False, env=os.environ,
    )  # fmt: skip
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout, result.stderr


# What is there when the work has begun.
MARKS = {"zoo_stream": "synthetic/.archive.index.sqlite.part", "zoo_download": f".{ARCHIVE_NAME}.part"}
MARKS["zoo_fetch"] = "synthetic/0.3"


def test_a_disk_that_fills_up_ends_the_work_and_keeps_what_is_finished(case):
    case.server.faults = fault_server.Faults(bytes_per_s=case.size / 4)
    at_once(case, assert_ends_where_the_disk_is_full)


def assert_ends_where_the_disk_is_full(program, case):
    copy = case.dest.with_name(f"copy-{program}")
    out, err = on_small_disk(
        case, program, "24m" if program == "zoo_stream" else "8m",
        f"command & while [ ! -e {case.dest / MARKS[program]} ]; do sleep 0.05; done\n"
        f"dd if=/dev/zero of={case.dest}/filler bs=4k 2>/dev/null\nwait $!\necho status $?\n"
        f"find {case.dest} -name '.*tmp-*'\nrm {case.dest}/filler\necho again\ncommand\necho status $?\n"
        f"cp -r {case.dest} {copy}\n",
    )  # fmt: skip
    message = "disk is full; " if program == "zoo_stream" else "No space left on device: "
    assert f"{message}make room or choose another folder; " in err
    assert err.count("error: ") == 1
    assert out.split("again")[0].split("status 1\n")[1] == "", "no temporary files may be left"
    assert "status 0" in out.split("again")[1]
    archive_programs.assert_same(case.results / program, copy)


def test_a_disk_that_is_too_small_is_refused_beforehand(case):
    at_once(case, assert_is_refused_on_a_small_disk)
    assert case.server.bytes_sent <= len(PROGRAMS)


def assert_is_refused_on_a_small_disk(program, case):
    out, err = on_small_disk(case, program, "1m", f"command\necho status $?\nfind {case.dest} -size +1k\n")
    assert re.search(r"need \d\S* [kM]B, \d\S* [kM]B are free; make room or choose another folder", err)
    assert out.endswith("status 1\n")

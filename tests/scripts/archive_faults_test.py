"""zoo_stream, zoo_index, zoo_download and zoo_fetch where servers fail, ignore ranges, or change what they serve.

After every fault the same command finishes, or says why it cannot; no run ever has other bytes than the zoo it is of.
"""

import hashlib

import pytest

from tests.scripts import archive_cases, archive_programs
from tests.zoo.remote import fault_server
from zoo.archive import index


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
    archive_cases.at_once(case, lambda program, own: own.assert_finishes(program, "--timeout_s=1", "--num_tries=6"))
    assert case.server.faults.num_struck >= 9


def test_a_server_that_keeps_failing_is_given_up_and_the_same_command_continues(case):
    case.server.faults = fault_server.Faults(status=503, only=archive_cases.near_the_end(case.size))
    archive_cases.at_once(case, assert_is_given_up)
    case.server.faults = fault_server.Faults()
    before = case.server.bytes_sent
    archive_cases.at_once(case, lambda program, own: own.assert_finishes(program))
    assert case.server.bytes_sent - before < 0.9 * len(archive_cases.PROGRAMS) * case.size


def assert_is_given_up(program, case):
    result = case.run(program, "--num_tries=2")
    assert result.returncode == 4
    assert (
        f"{archive_programs.ARCHIVE_NAME}: failed 2 times in a row, the last time because the server answered 503"
        in result.stderr
    )
    assert "run the same command again: it continues where it stopped" in result.stderr
    assert not [name for name in archive_programs.files_below(case.dest) if ".tmp-" in name]


def test_a_socket_that_stays_silent_is_given_up(case):
    case.server.faults = fault_server.Faults(stall_after=0, only=archive_cases.near_the_end(case.size))
    result = case.run("zoo_stream", "--num_tries=1", "--timeout_s=1")
    assert result.returncode == 4
    assert "failed once, because no byte came in time" in result.stderr
    case.server.faults = fault_server.Faults()
    case.assert_finishes("zoo_stream")


@pytest.mark.parametrize("program", ["zoo_stream", "zoo_index", "zoo_download"])
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
    case.assert_finishes("zoo_fetch", f"--archive={copies / archive_programs.ARCHIVE_NAME}")


@pytest.fixture(scope="module")
def other_archive(tmp_path_factory):
    """Another archive of the same name."""
    folder = tmp_path_factory.mktemp("other")
    return (
        archive_programs.make(folder, archive_cases.RUNS, num_parameters=90_000, seed=1)[1]
        / archive_programs.ARCHIVE_NAME
    ).read_bytes()


@pytest.mark.parametrize(
    ("program", "second_message", "repair"),
    [
        ("zoo_stream", "Delete that file to start anew", "synthetic/.archive.index.sqlite.part"),
        ("zoo_index", "Delete that file to start anew", f".{archive_cases.INDEX_NAME}.part"),
        (
            "zoo_download",
            f"delete it and .{archive_programs.ARCHIVE_NAME}.part to begin anew",
            f".{archive_programs.ARCHIVE_NAME}.part.json",
        ),
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
        assert (case.dest / archive_programs.ARCHIVE_NAME).read_bytes() == other_archive
    if program in ("zoo_stream", "zoo_index"):
        made = case.own_index if program == "zoo_stream" else case.dest / archive_cases.INDEX_NAME
        with index.Index(made) as stored:
            assert stored.facts.md5 == hashlib.md5(other_archive).hexdigest()
            assert stored.facts.state == "sound"

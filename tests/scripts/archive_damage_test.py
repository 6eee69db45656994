"""zoo_stream, zoo_download and zoo_fetch where archives are damaged, or become so on the way.

What is damaged is named and never believed, and the rest is usable.
"""

import hashlib
import pathlib
import re

import pytest

from tests.scripts import archive_cases, archive_programs
from tests.zoo.archive import archives
from tests.zoo.remote import fault_server
from zoo import inventory, layout, run_table


def test_the_right_md5_is_verified(case):
    flags = archive_cases.registry(case, hashlib.md5(case.sound).hexdigest())
    assert "MD5 verified" in case.assert_finishes("zoo_download", *flags).stdout
    streamed = case.run("zoo_stream", *flags)
    assert streamed.returncode == 0
    assert "verified: MD5 known for this archive" in streamed.stdout


def test_a_wrong_md5_is_no_download(case):
    wrong, right = 32 * "0", hashlib.md5(case.sound).hexdigest()
    result = case.run("zoo_download", *archive_cases.registry(case, wrong))
    assert result.returncode == 3
    assert (
        f"the MD5 of what arrived for {case.dest / archive_programs.ARCHIVE_NAME} is {right}, expected {wrong}"
        in result.stderr
    )
    assert archive_programs.files_below(case.dest) == []
    case.server.hashes = True
    result = case.run("zoo_download", *archive_cases.registry(case, wrong))
    assert result.returncode == 3
    assert "nothing was downloaded" in result.stderr
    case.assert_finishes("zoo_download", *archive_cases.registry(case, right))


def test_a_wrong_md5_is_damage_of_which_the_pass_tells(case):
    wrong, right = 32 * "0", hashlib.md5(case.sound).hexdigest()
    for _ in range(2):
        result = case.run("zoo_stream", *archive_cases.registry(case, wrong))
        assert result.returncode == 3
        assert f"damaged: MD5 is {right}, the one known for this archive is {wrong}" in result.stdout
    result = case.run("zoo_fetch", f"--index={case.own_index}", *archive_cases.registry(case, wrong))
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
    assert len(table.source_sha256) >= len(archive_cases.RUNS) - num_lost
    fetched = case.run("zoo_fetch", f"--index={case.own_index}")
    assert fetched.returncode == 3
    assert "not fetched: " in fetched.stdout
    assert archive_programs.assert_only_true_files(case.dest, case.zoo) >= 3 * (len(archive_cases.RUNS) - num_lost)
    found = inventory.take(case.dest, archive_programs.EXPERIMENT, deep=True)
    assert sum(ratio.num_complete for ratio in found.ratios) >= len(archive_cases.RUNS) - num_lost
    assert not any(ratio.count("damaged") for ratio in found.ratios)
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
    refused = case.run("zoo_download", *archive_cases.registry(case, hashlib.md5(case.sound).hexdigest()))
    assert refused.returncode == 3


def test_a_flipped_byte_costs_the_members_that_it_hits(case):
    archives.flip(case.archive, case.size // 2, 0x10)
    result = case.run("zoo_stream")
    assert result.returncode == 3
    assert re.search(r"  damaged: synthetic/0\.\d/\d/\S+: ", result.stdout), result.stdout
    fetched = assert_the_rest_is_usable(case, num_lost=2)
    assert re.search(r"not fetched: synthetic/0\.\d/\d/\S+ is damaged in the archive", fetched.stdout), fetched.stdout
    refused = case.run("zoo_download", *archive_cases.registry(case, hashlib.md5(case.sound).hexdigest()))
    assert refused.returncode == 3
    assert not (case.dest / archive_programs.ARCHIVE_NAME).exists()


def test_a_flipped_byte_is_found_by_an_index_of_the_sound_archive(case):
    archives.flip(case.archive, case.size // 2, 0x10)
    result = case.run("zoo_fetch")
    assert result.returncode == 3
    assert result.stdout.count("not fetched: ") == 1
    assert re.search(r"not fetched: synthetic/0\.\d/\d/checkpoints/\S+: ", result.stdout)
    assert archive_programs.assert_only_true_files(case.dest, case.zoo) >= 3 * (len(archive_cases.RUNS) - 1)
    case.archive.write_bytes(case.sound)
    case.assert_finishes("zoo_fetch")


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_pass_never_accepts_a_byte_that_is_flipped_on_the_way(case, share):
    case.server.hashes = True
    place = int(share * case.size)
    case.server.faults = fault_server.Faults(flip_at=place, only=archive_cases.covering(place), times=1)
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
    case.server.faults = fault_server.Faults(
        flip_at=case.size // 2, only=archive_cases.covering(case.size // 2), times=1
    )
    result = case.run("zoo_download")
    assert result.returncode == 3
    assert "it has been deleted, the same command begins anew" in result.stderr
    assert archive_programs.files_below(case.dest) == []
    case.assert_finishes("zoo_download")


def test_a_member_with_a_byte_that_is_flipped_on_the_way_is_read_again(case):
    case.server.faults = fault_server.Faults(
        flip_at=case.size // 2, only=archive_cases.covering(case.size // 2), times=1
    )
    case.assert_finishes("zoo_fetch")
    assert case.server.faults.num_struck == 1

"""Programs that read archives onto disks that are too small, for real: each in a mount namespace."""

import os
import re
import shlex
import subprocess

import pytest

from tests.scripts import archive_cases, archive_programs
from tests.zoo.remote import fault_server

_NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def on_small_disk(case, program, size, script):
    """Runs a shell script where `case.dest` is a disk of its own and `command` the program. Returns its output."""
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
MARKS = {
    "zoo_stream": "synthetic/.archive.index.sqlite.part",
    "zoo_index": f".{archive_cases.INDEX_NAME}.part",
    "zoo_download": f".{archive_programs.ARCHIVE_NAME}.part",
    "zoo_fetch": "synthetic/0.3",
}
# They work with a journal, which says itself that the disk is full.
PASSES = ("zoo_stream", "zoo_index")


def test_a_disk_that_fills_up_ends_the_work_and_keeps_what_is_finished(case):
    case.server.faults = fault_server.Faults(bytes_per_s=case.size / 4)
    archive_cases.at_once(case, assert_ends_where_the_disk_is_full)


def assert_ends_where_the_disk_is_full(program, case):
    copy = case.dest.with_name(f"copy-{program}")
    out, err = on_small_disk(
        case, program, "24m" if program in PASSES else "8m",
        f"command & while [ ! -e {case.dest / MARKS[program]} ]; do sleep 0.05; done\n"
        f"dd if=/dev/zero of={case.dest}/filler bs=4k 2>/dev/null\nwait $!\necho status $?\n"
        f"find {case.dest} -name '.*tmp-*'\nrm {case.dest}/filler\necho again\ncommand\necho status $?\n"
        f"cp -r {case.dest} {copy}\n",
    )  # fmt: skip
    message = "disk is full; " if program in PASSES else "No space left on device: "
    assert f"{message}make room or choose another folder; " in err
    assert err.count("error: ") == 1
    assert out.split("again")[0].split("status 1\n")[1] == "", "no temporary files may be left"
    assert "status 0" in out.split("again")[1]
    archive_programs.assert_same(case.results / program, copy)


def test_a_disk_that_is_too_small_is_refused_beforehand(case):
    archive_cases.at_once(case, assert_is_refused_on_a_small_disk)
    assert case.server.bytes_sent <= len(archive_cases.PROGRAMS)


def assert_is_refused_on_a_small_disk(program, case):
    out, err = on_small_disk(case, program, "1m", f"command\necho status $?\nfind {case.dest} -size +1k\n")
    assert re.search(r"need \d\S* [kM]B, \d\S* [kM]B are free; make room or choose another folder", err)
    assert out.endswith("status 1\n")

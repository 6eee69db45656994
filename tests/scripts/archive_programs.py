"""The programs that read archives, as processes: started, killed, and their results compared."""

from collections.abc import Iterable
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

from tests.zoo.archive import archives
from tests.zoo.remote import fault_server

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = "synthetic"
ARCHIVE_NAME = f"{EXPERIMENT}.tar.gz"
STEP_BYTES = 1 << 17

# An archive of a few MB is to be read in as many steps, and its progress saved as often, as a large one.
_IN_SMALL_STEPS = f"""
import dataclasses
from zoo.archive import download, extract, scan
scan.SAVE_BYTES = download._JOURNAL_BYTES = extract.fetch.__kwdefaults__["chunk_bytes"] = {STEP_BYTES}
from scripts import archive_flags, {{program}}
as_given = archive_flags.options
archive_flags.options = lambda: dataclasses.replace(as_given(), chunk_bytes={STEP_BYTES})
{{program}}.main()
"""
# A process begins with the memory of the one that starts it, so that one must be small.
_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def make(folder: pathlib.Path, runs: Iterable[tuple[float, int]], **options: int) -> tuple[pathlib.Path, pathlib.Path]:
    """A zoo with a recipe, and a folder for a server with the archive of it."""
    zoo, served = folder / "zoo", folder / "served"
    archives.make_zoo(zoo, experiment=EXPERIMENT, runs=runs, recipe={"architecture": "mlp"}, **options)
    served.mkdir()
    archives.write_archive(zoo, EXPERIMENT, served / ARCHIVE_NAME)
    return zoo, served


def command(program: str, *arguments: object, small_steps: bool = True) -> list[str]:
    """The command line of a program.

    Args:
        program: name of its module.
        arguments: its flags.
        small_steps: whether ranges, and what lies between two saves of its progress, are small.
    """
    code = ["-c", _IN_SMALL_STEPS.format(program=program)] if small_steps else ["-m", f"scripts.{program}"]
    return [sys.executable, *code, *map(str, arguments)]


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program in small steps until it ends. Whatever happens, it prints no traceback."""
    result = subprocess.run(command(program, *arguments), capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.stderr.count("error: ") == (result.returncode in (1, 4)) or result.returncode == 3, result.stderr
    return result


@dataclasses.dataclass
class Tally:
    """What a program went through.

    Attributes:
        num_kills: how often it was killed.
        num_resumed: starts that did not read the archive from its beginning again.
        num_finished: how often it came to its end, in a fresh folder each time.
        num_bytes: sent by the server, for all of it.
    """

    num_kills: int = 0
    num_resumed: int = 0
    num_finished: int = 0
    num_bytes: int = 0


def run_killed(
    arguments: list[str],
    server: fault_server.FaultServer,
    moments: random.Random,
    most_kills: int,
    most_bytes: float,
    most_quiet_s: float,
    tally: Tally,
    status: int = 0,
) -> None:
    """Starts a program until it ends by itself, killing it at random moments.

    The moments are counted in bytes that the server has sent, so that they lie all over the transfer on fast and on
    slow machines, and in fractions of a second where it sends none, as at the beginning and at the end.

    Args:
        arguments: the command line.
        server: where it reads from.
        moments: random moments.
        most_kills: after so many it is left alone.
        most_bytes: most bytes that are sent before a kill.
        most_quiet_s: most seconds without a byte before a kill.
        tally: counted on.
        status: with which it ends.
    """
    before, num_kills = server.bytes_sent, 0
    while True:
        num_requests = len(server.requests)
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        if num_kills < most_kills:
            _wait(process, server, moments.uniform(-0.1, 1) * most_bytes, moments.uniform(0, most_quiet_s))
        alive = num_kills < most_kills and process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        tally.num_resumed += _first_byte(server.requests[num_requests:]) > STEP_BYTES
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == status, errors
            break
        assert not errors, errors
        num_kills += 1
    tally.num_kills += num_kills
    tally.num_finished += 1
    tally.num_bytes += server.bytes_sent - before


def _first_byte(requests: Iterable[tuple[str, str, str]]) -> int:
    """Where the first of the ranges asked for begins; 0 if there is none. How long a file is, is asked by 0-0."""
    matches = [match for *_, text in requests if (match := _RANGE.fullmatch(text))]
    return min((int(match[1]) for match in matches if match[0] != "bytes=0-0"), default=0)


def _wait(process: subprocess.Popen[str], server: fault_server.FaultServer, num_bytes: float, quiet_s: float) -> None:
    """Waits until the server has sent `num_bytes` more, or nothing for some time, or the program has ended."""
    start = sent = server.bytes_sent
    since = time.monotonic()
    while process.poll() is None and sent - start < num_bytes:
        time.sleep(0.003)
        if server.bytes_sent != sent:
            sent, since = server.bytes_sent, time.monotonic()
        elif sent > start and time.monotonic() - since > quiet_s:
            return
    if num_bytes < 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(quiet_s)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a program used: bytes of memory, and bytes below a folder, both at the worst moment."""

    memory: int
    disk: int


def run_measured(arguments: list[str], folder: pathlib.Path) -> Usage:
    """Runs a program to its sound end, looking at its memory and at what it keeps in a folder."""
    ended, most = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], _bytes_below(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        command = [sys.executable, "-c", _MEASURED, *arguments]
        memory = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    finally:
        ended.set()
        watcher.join()
    return Usage(int(memory) * 1024, most[0])


def _bytes_below(folder: pathlib.Path) -> int:
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            # Files come and go.
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


def files_below(folder: pathlib.Path) -> list[str]:
    """Paths of all files, but locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(folder)) for path in paths)


def assert_same(folder: pathlib.Path, other: pathlib.Path) -> None:
    """Holds two folders to have the same files with the same bytes, and nothing unfinished beside them."""
    names = files_below(folder)
    found = files_below(other)
    assert names == found, set(names) ^ set(found)
    for name in names:
        if name.endswith(".sqlite"):
            assert _rows(folder / name) == _rows(other / name)
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def _rows(path: pathlib.Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything in an index."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in ("fact", "point", "member")}


def assert_only_true_files(folder: pathlib.Path, zoo: pathlib.Path) -> int:
    """Holds every file of a run to have the bytes that it has in the zoo it comes from; returns how many there are."""
    names = [name for name in files_below(folder) if name.count("/") > 1]
    for name in names:
        assert (folder / name).read_bytes() == (zoo / name).read_bytes(), name
    return len(names)

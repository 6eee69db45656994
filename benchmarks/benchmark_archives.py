"""Times zoo_stream beside what one would do without it, on an archive served by HTTP on loopback.

    python -m benchmarks.benchmark_archives

Makes a synthetic zoo of real records and checkpoints (random float32 variables: what a trained network looks like to
deflate), packs it with tar and gzip -6, serves it from a process of its own, and times, in turn,

    zoo_stream      MD5, CRC32C, inflation, contents, run table and seek index, in one pass
    two passes      curl | md5sum, then curl | tar xzf onto the disk
    tarfile         one pass of Python's tarfile (r|gz) with hashlib's MD5, keeping the records

and, as limits, from memory and on one core, MD5 alone, inflation alone by Python's zlib, and by the library that
zoo_stream uses, which stops at every block and checks CRC32. Results go to benchmarks/results/archives.json.
"""

from collections.abc import Callable, Sequence
import contextlib
import hashlib
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
import zlib

from absl import app, flags

from benchmarks import environment
from zoo import layout
from zoo.archive import gzip_stream, index, zlib_library

_RUNS = flags.DEFINE_integer("num_runs", 130, "Runs in the archive, of 6.4 MB each.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timings of each; the median counts.", 1)
_EXPERIMENT = "synthetic"
_MAKE = """
import pathlib, sys
from tests.zoo.archive import archives
zoo, target, num_runs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
runs = [(0.5, run_id) for run_id in range(num_runs)]
archives.make_zoo(zoo, runs=runs, num_train=50_000, num_test=10_000, num_parameters=1_600_000)
archives.write_archive(zoo, "synthetic", target)
"""
_TARFILE_PASS = """
import hashlib, io, sys, tarfile, urllib.request
digest, size = hashlib.md5(), 0
class Digested:
    def __init__(self, stream): self.stream = stream
    def read(self, size):
        data = self.stream.read(size)
        digest.update(data)
        return data
kept = 0
with tarfile.open(fileobj=Digested(urllib.request.urlopen(sys.argv[1])), mode="r|gz", bufsize=1 << 20) as archive:
    for member in archive:
        if member.isfile():
            stream = archive.extractfile(member)
            while data := stream.read(1 << 20):
                size += len(data)
                if member.name.endswith("aux_arrays.npz"):
                    kept += len(data)
print(digest.hexdigest(), size, kept)
"""


def _timed(command: Sequence[str] | str, **options: Any) -> tuple[float, float]:
    """Wall time in seconds and peak memory in MiB of a command, which must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{command} ended with status {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def _make_archive(folder: pathlib.Path, num_runs: int) -> pathlib.Path:
    """The archive, made by a process of its own: peak memory of what is timed begins with that of this one."""
    served = folder / "served" / f"{_EXPERIMENT}.tar.gz"
    served.parent.mkdir()
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-c", _MAKE, str(folder / "zoo"), str(served), str(num_runs)],
        check=True,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    shutil.rmtree(folder / "zoo")
    return served


@contextlib.contextmanager
def _served(folder: pathlib.Path) -> Any:
    """Address of a web server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.zoo.remote.fault_server", str(folder), f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _contenders(url: str, work: pathlib.Path) -> dict[str, Callable[[], tuple[float, float]]]:
    def zoo_stream() -> tuple[float, float]:
        shutil.rmtree(work, ignore_errors=True)
        return _timed([sys.executable, "-m", "scripts.zoo_stream", f"--archive={url}", f"--dest={work}"])

    def two_passes() -> tuple[float, float]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        first, _ = _timed(f"set -o pipefail; curl -sf {url} | md5sum", shell=True, executable="/bin/bash")
        second, memory = _timed(
            f"set -o pipefail; curl -sf {url} | tar xzf - -C {work}", shell=True, executable="/bin/bash"
        )
        return first + second, memory

    def tarfile_pass() -> tuple[float, float]:
        return _timed([sys.executable, "-c", _TARFILE_PASS, url])

    return {"zoo_stream": zoo_stream, "two_passes": two_passes, "tarfile": tarfile_pass}


def _limits(archive: pathlib.Path) -> dict[str, float]:
    """Seconds for inflating and for digesting the archive, from memory, on one core."""
    content = archive.read_bytes()
    start = time.perf_counter()
    decompressor = zlib.decompressobj(31)
    for at in range(0, len(content), 1 << 20):
        decompressor.decompress(content[at : at + (1 << 20)])
    inflated = time.perf_counter()
    hashlib.md5(content, usedforsecurity=False).hexdigest()
    digested = time.perf_counter()
    by_blocks = gzip_stream.GzipInflater()
    for at in range(0, len(content), 1 << 23):
        for _ in by_blocks.feed(content[at : at + (1 << 23)]):
            pass
    by_blocks.finish()
    seconds = {"inflate_by_zlib": inflated - start, "md5": digested - inflated}
    return seconds | {f"inflate_by_{zlib_library.functions().name}_block_by_block": time.perf_counter() - digested}


def measure(folder: pathlib.Path) -> dict[str, Any]:
    """All figures."""
    archive = _make_archive(folder, _RUNS.value)
    work = folder / "work"
    timings: dict[str, list[tuple[float, float]]] = {}
    with _served(archive.parent) as address:
        contenders = _contenders(f"{address}/{archive.name}", work)
        for _ in range(_REPEATS.value):
            for name, contender in contenders.items():
                timings.setdefault(name, []).append(contender())
                print(f"{name}: {timings[name][-1][0]:.2f} s", flush=True)
        contenders["zoo_stream"]()
    limits = [_limits(archive) for _ in range(_REPEATS.value)]
    seconds = {name: statistics.median(wall for wall, _ in runs) for name, runs in timings.items()}
    seconds |= {f"{name}_alone": statistics.median(limit[name] for limit in limits) for name in limits[0]}
    index_path = layout.archive_index_path(work, _EXPERIMENT)
    with index.Index(index_path) as stored:
        facts = stored.facts
    return {
        "compressed_bytes": facts.size,
        "uncompressed_bytes": facts.uncompressed_size,
        "seconds": seconds,
        "uncompressed_mb_per_s": {name: facts.uncompressed_size / value / 1e6 for name, value in seconds.items()},
        "compressed_mb_per_s": {name: facts.size / value / 1e6 for name, value in seconds.items()},
        "peak_mib": {name: max(memory for _, memory in runs) for name, runs in timings.items()},
        "index_bytes": index_path.stat().st_size,
        "index_share": index_path.stat().st_size / facts.size,
        "two_passes_over_zoo_stream": seconds["two_passes"] / seconds["zoo_stream"],
        "tarfile_over_zoo_stream": seconds["tarfile"] / seconds["zoo_stream"],
    }


def main(argv: Sequence[str]) -> None:
    """Measures, prints, stores."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(pathlib.Path(folder))
    for name, value in figures["seconds"].items():
        print(f"{name:>38}: {value:6.2f} s, {figures['uncompressed_mb_per_s'][name]:6.1f} MB/s uncompressed")
    print(f"two passes take {figures['two_passes_over_zoo_stream']:.2f} times as long as zoo_stream")
    print(f"tarfile takes {figures['tarfile_over_zoo_stream']:.2f} times as long as zoo_stream")
    print(environment.save("archives", figures))


if __name__ == "__main__":
    app.run(main)

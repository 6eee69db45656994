"""The program that packs a zoo, as a user starts it."""

import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.zoo.archive import packing
from zoo import layout

_ROOT = pathlib.Path(__file__).parents[2]
_COMMAND = [sys.executable, "-m", "scripts.zoo_pack"]


def start(*arguments):
    return subprocess.run([*_COMMAND, *arguments], capture_output=True, text=True, cwd=_ROOT, check=False)


@pytest.fixture
def zoo(tmp_path):
    return packing.make_zoo(tmp_path / "zoo")


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_it_packs_says_so_and_then_does_nothing(zoo, tmp_path):
    first = start(f"--zoo={zoo}")
    assert (first.returncode, first.stderr) == (0, "")
    output = tmp_path / "zoo-packed"
    md5 = (output / "e.tar.gz.md5").read_text()[:32]
    expected = rf"packed 4 runs, 4 with checkpoint: {output}/e\.tar\.gz, \d+\.\d kB of \d+\.\d kB, MD5 {md5}\n"
    expected += rf"published once e\.\* of {output} are on a server; others read them as here, .*\n"
    expected += rf"next: python -m scripts\.zoo_stream --registry={output}/e\.json --dest=streamed\n"
    assert re.fullmatch(expected, first.stdout)
    assert {"e.json", "e.run_table.npz", "e.tar.gz", "e.tar.gz.md5"} <= set(names(output))
    again = start(f"--zoo={zoo}")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("up to date, nothing to do: 4 runs, 4 with checkpoint")


def test_a_dry_run_writes_nothing(zoo, tmp_path):
    output = tmp_path / "packed"
    before = sorted(tmp_path.rglob("*"))
    result = start(f"--zoo={zoo}", f"--output={output}", "--dry_run")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(
        rf"would pack 4 runs, 4 with checkpoint: \d+\.\d kB before compression, to {output}; nothing was written\n"
        r"disk: \d+\.\d MB at most are needed, .*B are free\n",
        result.stdout,
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_left_out_is_named(zoo, tmp_path):
    layout.Run(zoo, "e", 0.3, 2).aux_arrays_path.unlink()
    damaged = layout.Run(zoo, "e", 0.7, 1).aux_arrays_path
    damaged.write_bytes(b"not a zip")
    refused = start(f"--zoo={zoo}", f"--output={tmp_path}/packed")
    assert refused.returncode == 1
    assert "1 damaged run to mend, or to leave out with --skip_damaged:" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not names(tmp_path / "packed")
    for arguments in ([], ["--max_problems=1"]):
        result = start(f"--zoo={zoo}", f"--output={tmp_path}/packed", "--skip_damaged", *arguments)
        assert result.returncode == 0
        assert "left out, partial: " in result.stdout
        assert (f"left out, damaged: {damaged}" in result.stdout) == (not arguments)
        assert ("and 1 more: --max_problems=2 names them all" in result.stdout) == bool(arguments)
    assert "2 runs, 2 with checkpoint" in result.stdout


def test_flags_reach_the_archive(zoo, tmp_path):
    start(f"--zoo={zoo}", f"--output={tmp_path}/small", "--level=9", "--num_workers=1")
    start(f"--zoo={zoo}", f"--output={tmp_path}/large", "--level=1", "--url=gs://bucket/")
    small, large = tmp_path / "small", tmp_path / "large"
    assert (small / "e.tar.gz").stat().st_size < (large / "e.tar.gz").stat().st_size
    assert '"gs://bucket/e.tar.gz"' in (large / "e.json").read_text()
    packing.touch(layout.recipe_path(zoo, "e"))
    arguments = [f"--zoo={zoo}", f"--output={small}", "--level=9"]
    refused = start(*arguments)
    assert refused.returncode == 1
    assert "--overwrite replaces" in refused.stderr
    assert start(*arguments, "--overwrite").stdout.startswith("packed 4 runs")


@pytest.mark.parametrize("argument", ["--level=10", "--num_workers=0"])
def test_values_out_of_range_are_refused_in_a_line(zoo, argument):
    result = start(f"--zoo={zoo}", argument)
    assert result.returncode == 2
    assert re.match(rf"error: {argument[2:].split('=')[0]} is \d+, expected", result.stderr)


def test_terminated_it_leaves_nothing_that_could_be_taken_for_an_archive_and_continues(tmp_path):
    packing.make_zoo(tmp_path / "zoo", data_bytes=5_000_000)
    output = tmp_path / "packed"
    arguments = [f"--zoo={tmp_path}/zoo", f"--output={output}", "--level=9"]
    process = subprocess.Popen([*_COMMAND, *arguments], cwd=_ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (output / ".e.tar.gz.packing").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert "terminated: the same command continues with what is left to do" in process.communicate(timeout=20)[1]
    assert process.returncode == 143
    assert names(output) == []
    assert start(*arguments).returncode == 0
    assert packing.tar_files((output / "e.tar.gz").read_bytes()) == packing.packed_files(tmp_path / "zoo")

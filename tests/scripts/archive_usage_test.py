"""What who uses the programs for archives for the first time meets: plans, warnings, lists, and what to type next."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.zoo.archive import archives, packing, passes
from tests.zoo.remote import fault_server
from zoo import files, layout, registry
from zoo.archive import digests, pack

_ROOT = pathlib.Path(__file__).parents[2]


def start(program, *arguments, **environment):
    without = {name: value for name, value in os.environ.items() if not name.startswith("HELDOUT_")}
    result = subprocess.run(
        [sys.executable, "-m", f"scripts.{program}", *map(str, arguments)],
        capture_output=True, text=True, cwd=_ROOT, check=False, env=without | environment,
    )  # fmt: skip
    assert "Traceback" not in result.stderr, result.stderr
    return result


def ended(program, *arguments, status=0, **environment):
    """What a program prints that ends with a status."""
    result = start(program, *arguments, **environment)
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stderr.count("error: ") == (status in (1, 2, 4))
    return result.stderr if status in (1, 2, 4) else result.stdout


def next_command(printed):
    """Program and flags of the last line."""
    match = re.fullmatch(r"next: python -m scripts\.(\w+) (.*)", printed.splitlines()[-1])
    return match[1], shlex.split(match[2])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `zoo_pack` makes of a zoo."""
    folder = tmp_path_factory.mktemp("made")
    zoo = packing.make_zoo(folder / "zoo")
    layout.recipe_path(zoo, "e").unlink()
    ended("zoo_pack", f"--zoo={zoo}", f"--output={folder / 'packed'}")
    return folder / "packed"


@pytest.fixture
def packed(made, tmp_path):
    """A copy of one's own."""
    return pathlib.Path(shutil.copytree(made, tmp_path / "packed"))


def test_every_program_says_what_to_type_next_and_that_runs(made, tmp_path):
    zoo = made.with_name("zoo")
    program, flags = next_command(ended("zoo_pack", f"--zoo={zoo}", f"--output={made}"))
    assert (program, flags[0]) == ("zoo_stream", f"--registry={made}/e.json")
    printed = ended(program, flags[0], f"--dest={tmp_path / 'a zoo'}")
    program, flags = next_command(printed)
    assert (program, flags) == ("compute_scores", [f"--zoo={tmp_path / 'a zoo'}", "--experiment=e"])
    ended(program, *flags, "--num_draws=10")
    program, flags = next_command(ended("zoo_download", f"--registry={made}/e.json", f"--dest={tmp_path}"))
    assert program == "zoo_index"
    program, flags = next_command(ended(program, *flags))
    assert (program, flags[-1]) == ("zoo_fetch", "--dest=runs")
    printed = ended(program, *flags[:-1], f"--dest={tmp_path / 'runs'}")
    assert printed.startswith("1 run: 3 files, ")
    assert next_command(printed) == ("evaluate_run", [f"--run={tmp_path}/runs/e/0.3/0"])
    records = ended(program, *flags[:-1], f"--dest={tmp_path / 'records'}", "--parts=aux_arrays")
    assert next_command(records) == ("compute_scores", [f"--zoo={tmp_path}/records", "--experiment=e"])


def test_an_index_that_lies_elsewhere_is_named_to_the_next_program(made, tmp_path):
    elsewhere = tmp_path / "elsewhere.sqlite"
    printed = ended("zoo_index", f"--archive={made}/e.tar.gz", f"--output={elsewhere}", HELDOUT_ZOO=f"{tmp_path}/z")
    program, flags = next_command(printed)
    assert flags == [f"--archive={made}/e.tar.gz", f"--index={elsewhere}", "--runs=0.3/0", f"--dest={tmp_path}/z"]
    assert "1 run: 3 files" in ended(program, *flags)


def test_signatures_are_not_printed(made, tmp_path):
    with fault_server.FaultServer(made) as server:
        flags = [f"--archive={server.url('e.tar.gz')}?X-Signature=SECRET", f"--output={tmp_path}/x.sqlite"]
        assert "SECRET" not in ended("zoo_index", *flags)


@pytest.mark.parametrize("program", ["zoo_stream", "zoo_index", "zoo_fetch", "zoo_download", "zoo_pack"])
def test_plans_tell_of_the_disk_and_warn_of_what_would_be_refused(made, tmp_path, program):
    (tmp_path / "file").touch()
    flags = {
        "zoo_stream": [f"--archive={made}/e.tar.gz", f"--dest={tmp_path}/file/zoo"],
        "zoo_index": [f"--archive={made}/e.tar.gz", f"--output={tmp_path}/file/index"],
        "zoo_fetch": [f"--archive={made}/e.tar.gz", "--runs=all", f"--dest={tmp_path}/file/zoo"],
        "zoo_download": [f"--archive={made}/e.tar.gz", f"--dest={tmp_path}/file/zoo"],
        "zoo_pack": [f"--zoo={made.with_name('zoo')}", f"--output={tmp_path}/file/packed"],
    }[program]
    printed = ended(program, *flags, "--dry_run")
    assert re.search(r"^disk: \S+ .?B at most are needed, \S+ .B are free$", printed, re.MULTILINE)
    assert f"\nwarning: {tmp_path}/file: is a file, expected a folder; choose another path\n" in printed
    assert f"{tmp_path}/file" in ended(program, *flags, status=1)
    there = [flag.replace("/file", "/new/folder") for flag in flags]
    planned = ended(program, *there, "--dry_run")
    assert "warning" not in planned
    assert (f"{tmp_path}/new/folder/zoo/e/recipe.json if the archive has one" in planned) == (program == "zoo_stream")
    assert not (tmp_path / "new").exists()


def test_a_plan_of_a_download_counts_what_is_there(made, tmp_path):
    size = (made / "e.tar.gz").stat().st_size
    flags = [f"--archive={made}/e.tar.gz", f"--dest={tmp_path}", "--dry_run"]
    (tmp_path / ".e.tar.gz.part").write_bytes(bytes(size))
    assert "disk: 0 B at most are needed" in ended("zoo_download", *flags)
    (tmp_path / ".e.tar.gz.part").write_bytes(bytes(size - 1000))
    planned = ended("zoo_download", *flags)
    assert "disk: 1.0 kB at most are needed" in planned
    # What the journal does not tell of is written anew.
    assert "are missing in the download that was begun" not in planned
    begun = digests.StreamDigests()
    begun.update(bytes(size - 2000))
    files.write_json(tmp_path / ".e.tar.gz.part.json", {"digests": begun.state()})
    assert ", 2.0 kB of them are missing in the download that was begun\n" in ended("zoo_download", *flags)
    (tmp_path / "e.tar.gz").write_bytes(bytes(size - 1))
    assert f"warning: {tmp_path}/e.tar.gz: is there with another size" in ended("zoo_download", *flags)
    (tmp_path / "e.tar.gz").write_bytes(bytes(size))
    assert "there already, nothing would be written" in ended("zoo_download", *flags)


@pytest.mark.parametrize("program", ["zoo_stream", "zoo_index", "zoo_fetch", "zoo_download"])
def test_plans_warn_of_a_server_that_gives_no_parts(made, tmp_path, program):
    with fault_server.FaultServer(made) as server:
        flags = [f"--archive={server.url('e.tar.gz')}", "--dry_run"]
        flags += [f"--output={tmp_path}/x"] if program == "zoo_index" else [f"--dest={tmp_path}"]
        flags += ["--runs=all"] if program == "zoo_fetch" else []
        server.faults = fault_server.Faults(ignore_range=True)
        warned = f"\nwarning: {server.url('e.tar.gz')}: the server sends the whole object whatever is asked for"
        assert warned in ended(program, *flags)
    assert not list(tmp_path.iterdir())


def test_offline_a_download_of_another_size_is_none(made, tmp_path):
    flags = [f"--registry={made}/e.json", f"--dest={tmp_path}", "--offline"]
    (tmp_path / "e.tar.gz").write_bytes((made / "e.tar.gz").read_bytes())
    assert "there already; its digest was not computed again" in ended("zoo_download", *flags)
    archives.truncate(tmp_path / "e.tar.gz", 1000)
    error = ended("zoo_download", *flags, status=1)
    assert f"{tmp_path}/e.tar.gz: has 1000 bytes, the archive that is known has " in error
    assert "leave out --offline" in error


def test_an_index_that_is_not_the_manifest_s_is_not_used(packed, tmp_path):
    changed = passes.changed_index(packed / "e.tar.gz.index.sqlite", tmp_path, "UPDATE member SET run_id = run_id")
    changed.write_bytes(changed.read_bytes() + bytes(4096))
    changed.replace(packed / "e.tar.gz.index.sqlite")
    with fault_server.FaultServer(packed) as server:
        manifest = f"--registry={server.url('e.json')}"
        for program, flags in (
            ("zoo_fetch", [manifest, "--runs=all", f"--dest={tmp_path}/zoo"]),
            ("zoo_verify", [manifest, f"--work_dir={tmp_path}"]),
        ):
            result = start(program, *flags)
            assert result.returncode == 3
            assert f"{server.url('e.tar.gz.index.sqlite')}: its SHA-256 is " in result.stderr
    assert passes.run_files_below(tmp_path / "zoo") == {}


def test_a_recipe_that_cannot_be_had_is_told(tmp_path):
    pack.pack(packing.make_zoo(tmp_path / "zoo"), "e", tmp_path / "packed")
    with fault_server.FaultServer(tmp_path / "packed") as server:
        server.faults = fault_server.Faults(ignore_range=True)
        printed = ended("zoo_stream", f"--registry={server.url('e.json')}", f"--dest={tmp_path}/new", "--published")
    assert f"without {tmp_path}/new/e/recipe.json: the server gives no parts of the archive" in printed


def test_a_flag_with_an_impossible_value_is_named(made, tmp_path):
    flags = [f"--archive={made}/e.tar.gz", f"--dest={tmp_path}", "--timeout_s=-1"]
    assert "flag --timeout_s=-1: -1.0 is not " in ended("zoo_stream", *flags, status=2)


def test_the_runs_of_an_archive_are_listed(packed, tmp_path):
    flags = [f"--archive={packed}/e.tar.gz"]
    assert ended("zoo_fetch", *flags, "--list") == (
        "e.tar.gz: 4 runs\n"
        "  0.3: 2 runs, 2 with checkpoint: 0.3/0, 0.3/2\n"
        "  0.7: 2 runs, 2 with checkpoint: 0.7/1, 0.7/10\n"
    )
    error = ended("zoo_fetch", *flags, "--runs=0.3/1", f"--dest={tmp_path / 'zoo'}", status=2)
    assert "--runs=0.3/1: there is no such run; there are 0.3/0 to 0.3/2 (2 runs)" in error
    assert "--list" in error
    ranges = ended("zoo_fetch", *flags, "--runs=0.3/0:9", f"--dest={tmp_path / 'zoo'}", "--dry_run")
    assert ranges.startswith("not in the archive: 0.3/1\nnot in the archive: 0.3/3:9\n")
    assert "leave out --runs or --list" in ended("zoo_fetch", *flags, "--list", "--runs=all", status=2)
    with fault_server.FaultServer(packed) as server:
        remote = [f"--archive={server.url('e.tar.gz')}", "--list"]
        assert ended("zoo_fetch", *remote).count("\n") == 3
    assert not (tmp_path / "zoo").exists()


def test_parts_are_explained(made, tmp_path):
    assert "--parts=A,B,..." in ended("zoo_fetch", "--help")
    flags = [f"--archive={made}/e.tar.gz", "--runs=0.3/0", f"--dest={tmp_path}"]
    error = ended("zoo_fetch", *flags, "--parts=weights", status=2)
    assert "--parts=weights: 'weights' is none of aux_arrays, checkpoints; give one of them, or several" in error
    assert "1 run: 3 files" in ended("zoo_fetch", *flags, "--parts=aux_arrays,checkpoints")


def test_one_variable_stands_for_the_zoo_in_every_program(made, tmp_path):
    ended("zoo_stream", f"--registry={made}/e.json", HELDOUT_ZOO=f"{tmp_path}")
    assert "0.3            2" in ended("list_zoo", HELDOUT_ZOO=f"{tmp_path}")
    assert "no/such" in ended("list_zoo", "--zoo=no/such", status=1, HELDOUT_ZOO=f"{tmp_path}")
    ended("list_zoo", status=2)


def test_the_only_experiment_of_a_registry_needs_no_name(made, tmp_path):
    with fault_server.FaultServer(made) as server:
        manifest = f"--registry={server.url('e.json')}"
        assert f"4 runs: {tmp_path}/e/run_table.npz" in ended("zoo_stream", manifest, f"--dest={tmp_path}")
        error = ended("zoo_stream", manifest, f"--dest={tmp_path}", "--offline", status=2)
        assert "e.json is not asked which experiment it names; give --experiment" in error


def test_what_is_published_is_taken_instead_of_the_archive(made, tmp_path):
    with fault_server.FaultServer(made) as server:
        flags = [f"--registry={server.url('e.json')}", f"--dest={tmp_path}"]
        assert "--published takes these instead" in ended("zoo_stream", *flags, "--dry_run")
        planned = ended("zoo_stream", *flags, "--dry_run", "--published")
        assert "e.run_table.npz: " in planned
        assert "disk: " in planned
        assert not list(tmp_path.iterdir())
        before = server.bytes_sent
        printed = ended("zoo_stream", *flags, "--published")
        assert server.bytes_sent - before < (made / "e.tar.gz").stat().st_size + 100_000
    assert next_command(printed) == ("compute_scores", [f"--zoo={tmp_path}", "--experiment=e"])
    assert "(when the index was made)" in printed
    again = ended("zoo_stream", f"--registry={made}/e.json", f"--dest={tmp_path}", "--published")
    assert "complete already, nothing to do" in again
    planned = ended("zoo_stream", f"--registry={made}/e.json", f"--dest={tmp_path}", "--published", "--dry_run")
    assert "complete already, nothing would be read" in planned


def test_what_is_not_published_is_named(made, tmp_path):
    known = ["--experiment=cifar10-inception", f"--dest={tmp_path}", "--published"]
    assert "no run table and no seek index of cifar10-inception" in ended("zoo_stream", *known, status=2)
    other = [f"--archive={made}/e.tar.gz", f"--dest={tmp_path}", "--published"]
    assert "--published takes what a manifest names" in ended("zoo_stream", *other, status=2)
    assert registry.PUBLISHED["cifar10-inception"].index is None


def test_an_archive_that_was_replaced_by_another_of_its_size_is_noticed(packed, tmp_path):
    archive = packed / "e.tar.gz"
    streamed = [f"--archive={archive}", f"--dest={tmp_path / 'zoo'}"]
    indexed = [f"--archive={archive}"]
    ended("zoo_stream", *streamed)
    for program, flags in (("zoo_stream", streamed), ("zoo_index", indexed)):
        again = ended(program, *flags)
        assert "complete already, nothing to do" in again
        assert "read again: 4 files of the archive, as the index says; zoo_verify --archive reads all of it" in again
    archive.write_bytes(os.urandom(archive.stat().st_size))
    kept = (
        layout.archive_index_path(tmp_path / "zoo", "e").read_bytes(),
        (packed / "e.tar.gz.index.sqlite").read_bytes(),
    )
    for program, flags in (("zoo_stream", streamed), ("zoo_index", indexed), ("zoo_index", [*indexed, "--dry_run"])):
        assert "index of another archive than" in ended(program, *flags, status=1)
    assert kept == (
        layout.archive_index_path(tmp_path / "zoo", "e").read_bytes(),
        (packed / "e.tar.gz.index.sqlite").read_bytes(),
    )


def test_a_published_index_beside_a_damaged_archive_is_neither_believed_nor_replaced(packed):
    archive, beside = packed / "e.tar.gz", packed / "e.tar.gz.index.sqlite"
    sound = beside.read_bytes()
    archives.truncate(archive, archive.stat().st_size // 2)
    error = ended("zoo_index", f"--archive={archive}", status=1)
    assert f"{beside}: index of an archive of" in error
    assert "Get the archive again if it is not whole" in error
    assert beside.read_bytes() == sound
    own = ended("zoo_index", f"--archive={archive}", f"--output={packed}/own.sqlite", status=3)
    assert "damaged: " in own
    assert "next: " not in own
    beside.write_bytes(b"no index")
    assert "not a sound index of an archive" in ended("zoo_index", f"--archive={archive}", status=1)


def test_runs_that_could_not_be_had_are_not_counted_and_named_with_their_files(tmp_path):
    lost = passes.run_files(0.3, 1)
    damaged = {name: bytes(len(data)) if "data" in name else data for name, data in lost.items()}
    archive = passes.write(tmp_path / "e.tar.gz", passes.run_files(0.3, 0) | damaged)
    ended("zoo_index", f"--archive={archive}", status=3)
    # As who does not look into checkpoints would have made it.
    trusting = passes.changed_index(
        tmp_path / "e.tar.gz.index.sqlite",
        tmp_path,
        "UPDATE member SET state = 'sound', reason = ''",
        "UPDATE fact SET value = '\"sound\"' WHERE key = 'state'",
    )
    flags = [f"--archive={archive}", f"--index={trusting}", "--runs=all", f"--dest={tmp_path / 'zoo'}"]
    printed = ended("zoo_fetch", *flags, status=3)
    assert printed.startswith("1 run: 3 files, ")
    assert printed.count("not fetched: ") == 1
    assert re.findall(r"^withheld: (\S+) arrived whole and does not count", printed, re.MULTILINE) == list(lost)
    assert "next: " not in printed
    assert passes.run_files_below(tmp_path / "zoo") == passes.run_files(0.3, 0)
    again = ended("zoo_fetch", *flags, status=3)
    assert again.startswith("1 run: 0 files, 0 B (")
    assert "3 files there already" in again

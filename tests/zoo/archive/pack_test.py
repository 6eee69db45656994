"""A packed experiment: five files that others can use, made once, continued after every kill."""

import contextlib
import dataclasses
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib

import numpy as np
import pytest

from tests.zoo import runs
from tests.zoo.archive import packing
from zoo import errors, files, layout, registry, run_table
from zoo.archive import index, indexing, lock, pack, pack_checks, pack_files, pack_plan, pack_tar

_ROOT = pathlib.Path(__file__).parents[3]
PUBLISHED = ["e.json", "e.run_table.npz", "e.tar.gz", "e.tar.gz.index.sqlite", "e.tar.gz.md5"]


@pytest.fixture
def zoo(tmp_path):
    return packing.make_zoo(tmp_path / "zoo")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "packed"


def visible(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if not path.name.startswith(".")}


def test_five_files_are_made(zoo, output):
    result = pack.pack(zoo, "e", output)
    assert sorted(visible(output)) == PUBLISHED
    assert packing.tar_files(result.archive.read_bytes()) == packing.packed_files(zoo)
    assert (result.num_runs, result.num_with_checkpoint, result.problems, result.up_to_date) == (4, 4, [], False)
    assert result.num_bytes == len(gzip.decompress(result.archive.read_bytes()))


@pytest.mark.parametrize("mode", ["r:gz", "r|gz"])
def test_pythons_tarfile_unpacks_what_was_packed(zoo, output, tmp_path, mode):
    with tarfile.open(pack.pack(zoo, "e", output).archive, mode) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert_unpacked(zoo, tmp_path / "unpacked")


def test_gnu_tar_and_gzip_unpack_what_was_packed(zoo, output, tmp_path):
    archive = pack.pack(zoo, "e", output).archive
    (tmp_path / "unpacked").mkdir()
    for command in (["gzip", "-t", archive], ["tar", "xzf", archive, "-C", tmp_path / "unpacked"]):
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not result.stdout + result.stderr
    assert_unpacked(zoo, tmp_path / "unpacked")


def assert_unpacked(zoo, folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == dict(packing.packed_files(zoo))
    assert pack_plan.make(folder, "e").table.digest() == pack_plan.make(zoo, "e").table.digest()


def test_md5sum_confirms_the_archive(zoo, output):
    pack.pack(zoo, "e", output)
    result = subprocess.run(["md5sum", "-c", "e.tar.gz.md5"], cwd=output, capture_output=True, text=True, check=True)
    assert result.stdout == "e.tar.gz: OK\n"


def test_equal_zoos_give_equal_files(zoo, output, tmp_path):
    pack.pack(zoo, "e", output)
    other = shutil.copytree(zoo, tmp_path / "other")
    for path in other.rglob("*.npz"):
        packing.touch(path)
    pack.pack(other, "e", tmp_path / "packed_other", pack.Options(num_workers=1))
    files_of_other = visible(tmp_path / "packed_other")
    for name, content in visible(output).items():
        assert name.endswith(".sqlite") or files_of_other[name] == content or name == "e.json", name
    manifests = [json.loads(made["e.json"]) for made in (visible(output), files_of_other)]
    assert manifests[0]["experiments"] == manifests[1]["experiments"]


def test_the_run_table_holds_the_packed_runs_and_the_labels(zoo, output):
    labels = {"train_label": np.arange(runs.N), "test_label": np.arange(runs.M)}
    run_table.write(layout.run_table_path(zoo, "e"), runs.example_table(**labels))
    layout.Run(zoo, "e", 0.3, 2).aux_arrays_path.unlink()
    pack.pack(zoo, "e", output)
    table = run_table.read(output / "e.run_table.npz")
    runs.assert_holds(table, [name for name in runs.RUNS if name != (0.3, 2)])
    np.testing.assert_array_equal(table.train_label, labels["train_label"])
    assert not table.source_mtime_ns.any()
    assert table.source_size.all()


def test_the_manifest_tells_what_there_is(zoo, output):
    result = pack.pack(zoo, "e", output)
    stored = files.read_json(output / "e.json")
    assert stored["experiments"] == [
        {
            "name": "e",
            "url": "e.tar.gz",
            "md5": result.written.md5,
            "size": result.archive.stat().st_size,
            "crc32c": result.written.crc32c,
            "architecture": "mlp",
            "dataset": "digits",
            "num_classes": 10,
        }
    ]
    assert stored["num_runs"] == {"0.3": 2, "0.7": 2}
    assert (stored["num_train"], stored["num_test"], stored["num_with_checkpoint"]) == (runs.N, runs.M, 4)
    assert stored["num_bytes"] == result.num_bytes
    for name in ("e.run_table.npz", "e.tar.gz.index.sqlite"):
        path = output / name
        assert stored["files"][name] == {"size": path.stat().st_size, "sha256": files.sha256_of_file(path)}


def test_the_manifest_is_a_registry(zoo, output):
    result = pack.pack(zoo, "e", output)
    entry = registry.find("e", str(output / "e.json"))
    assert entry.url == str(result.archive)
    assert (entry.md5, entry.architecture, entry.dataset, entry.num_classes) == (
        result.written.md5,
        "mlp",
        "digits",
        10,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [("gs://b/f/", "gs://b/f/e.tar.gz"), ("https://h/x.tar.gz", "https://h/x.tar.gz"), (None, "e.tar.gz")],
)
def test_the_manifest_says_where_the_archive_will_be(zoo, output, url, expected):
    pack.pack(zoo, "e", output)
    before = times(output)
    result = pack.pack(zoo, "e", output, pack.Options(url=url))
    assert files.read_json(output / "e.json")["experiments"][0]["url"] == expected
    changed = {name for name, time_ns in times(output).items() if time_ns != before[name]}
    assert changed == ({"e.json"} if url else set()), "a new address changes the manifest alone"
    assert result.up_to_date == (url is None)


def test_without_recipe_the_list_of_published_zoos_tells_the_architecture(zoo, output):
    recipe = layout.recipe_path(zoo, "e")
    files.write_json(recipe, {"architecture": 3, "dataset": []})
    places = pack_files.Places(output, "e")
    written = pack.pack(zoo, "e", output).written
    entry = files.read_json(places.manifest)["experiments"][0]
    assert (entry["architecture"], entry["dataset"], entry["num_classes"]) == (None, None, None)
    recipe.unlink()
    plan = pack_plan.make(zoo, "e")
    for name, expected in (("e", None), ("cifar100-inception", "cifar100")):
        named = dataclasses.replace(plan, experiment=name)
        assert pack_files.manifest(named, places, written, None)["experiments"][0]["dataset"] == expected


def test_again_it_does_nothing(zoo, output):
    first = pack.pack(zoo, "e", output)
    before = times(output)
    second = pack.pack(zoo, "e", output)
    assert second == dataclasses.replace(first, up_to_date=True)
    assert times(output) == before
    assert not [path for path in output.iterdir() if "packing" in path.name]


@pytest.mark.parametrize("missing", [["e.json"], ["e.tar.gz.md5", "e.json"], [n for n in PUBLISHED if n != "e.tar.gz"]])
def test_what_is_missing_beside_the_archive_is_made_again(zoo, output, missing):
    pack.pack(zoo, "e", output)
    before, made = times(output), visible(output)
    for name in missing:
        (output / name).unlink()
    assert not pack.pack(zoo, "e", output).up_to_date
    assert {name for name, time_ns in times(output).items() if time_ns != before[name]} >= set(missing)
    assert times(output)["e.tar.gz"] == before["e.tar.gz"]
    if "e.tar.gz.index.sqlite" not in missing:
        assert visible(output) == made


def test_an_archive_that_is_whole_and_has_no_name_yet_gets_it(zoo, output):
    pack.pack(zoo, "e", output)
    before, made = times(output), visible(output)
    places = pack_files.Places(output, "e")
    places.archive.rename(places.unfinished)
    assert not pack.pack(zoo, "e", output).up_to_date
    assert times(output)["e.tar.gz"] == before["e.tar.gz"], "it need not be written again"
    assert visible(output)["e.tar.gz.md5"] == made["e.tar.gz.md5"]
    assert sorted(visible(output)) == PUBLISHED


def test_a_zoo_that_changed_is_packed_anew_only_if_asked(zoo, output):
    pack.pack(zoo, "e", output)
    made = visible(output)
    runs.add_run(zoo, 0.3, 7)
    with pytest.raises(errors.MismatchError, match=r"e\.tar\.gz: there already, and not packed from .*--overwrite"):
        pack.pack(zoo, "e", output)
    assert visible(output) == made
    result = pack.pack(zoo, "e", output, pack.Options(overwrite=True))
    assert (result.num_runs, result.up_to_date) == (5, False)
    assert sorted(visible(output)) == PUBLISHED
    assert not [name for name, content in visible(output).items() if made[name] == content]
    assert files.read_json(output / "e.json")["num_runs"] == {"0.3": 3, "0.7": 2}
    assert pack.pack(zoo, "e", output).up_to_date


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_of_others_are_not_replaced(zoo, output, name):
    files.write_text(output / name, "mine")
    with pytest.raises(errors.MismatchError, match=f"{name}: there already"):
        pack.pack(zoo, "e", output)
    assert visible(output) == {name: b"mine"}


@pytest.mark.parametrize("content", ["{", "{}", '{"sources": "", "archive": {"size": 1}}'])
def test_without_a_sound_note_of_its_sources_an_archive_is_not_taken_for_ours(zoo, output, content):
    pack.pack(zoo, "e", output)
    files.write_text(pack_files.Places(output, "e").finished, content)
    with pytest.raises(errors.MismatchError, match="there already"):
        pack.pack(zoo, "e", output)


def test_an_archive_of_another_size_is_not_taken_for_ours(zoo, output):
    archive = pack.pack(zoo, "e", output).archive
    os.truncate(archive, 100)
    with pytest.raises(errors.MismatchError, match="there already"):
        pack.pack(zoo, "e", output)


def test_an_archive_that_the_disk_gives_back_otherwise_is_not_published(zoo, output):
    archive = pack.pack(zoo, "e", output).archive
    made = visible(output)
    for name in ("e.json", "e.tar.gz.index.sqlite"):
        (output / name).unlink()
    content = bytearray(made["e.tar.gz"])
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(errors.IntegrityError, match=rf"{archive}: read back it is not what was .*MD5.* --overwrite"):
        pack.pack(zoo, "e", output)
    assert not (output / "e.json").exists()
    with pytest.raises(errors.MismatchError, match="there already"):
        pack.pack(zoo, "e", output)
    pack.pack(zoo, "e", output, pack.Options(overwrite=True))
    assert visible(output)["e.tar.gz"] == made["e.tar.gz"]


def test_the_index_leads_to_every_file_without_a_window(zoo, output):
    archive = pack.pack(zoo, "e", output).archive
    with index.Index(output / "e.tar.gz.index.sqlite") as stored:
        members = [
            member
            for run in [None, *stored.runs()]
            for member in (stored.members(run) if run else stored.members_of_no_run())
        ]
        points = [stored.point(member.point_id) for member in members]
    assert [member.name for member in members] == [name for name, _ in packing.packed_files(zoo)]
    assert {(point.bits, point.window) for point in points} == {(0, b"")}
    compressed = archive.read_bytes()
    for member, point, (_, content) in zip(members, points, packing.packed_files(zoo), strict=True):
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed[point.offset :])
        assert inflated[member.position - point.position :][: member.size] == content


def test_the_run_table_is_the_one_that_a_pass_over_the_archive_gives(zoo, output, tmp_path):
    archive = pack.pack(zoo, "e", output).archive
    indexing.make(str(archive), indexing.Places(tmp_path / "index", tmp_path / "table.npz"))
    assert (tmp_path / "table.npz").read_bytes() == (output / "e.run_table.npz").read_bytes()


def test_work_on_other_files_that_was_given_up_is_removed(zoo, output):
    pack.pack(zoo, "e", output)
    before = times(output)
    places = pack_files.Places(output, "e")
    places.unfinished.write_bytes(b"begun")
    assert pack.pack(zoo, "e", output).up_to_date
    assert times(output) == before
    assert not places.unfinished.exists()


def test_one_process_at_a_time(zoo, output):
    with lock.held(pack_files.Places(output, "e").lock), pytest.raises(errors.BusyError):
        pack.pack(zoo, "e", output)


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 10}, {"num_workers": 0}])
def test_options_out_of_range(options):
    with pytest.raises(errors.InvalidValueError, match=rf"{next(iter(options))} is \d+, expected"):
        pack.Options(**options)


def test_stages_are_reported(zoo, output):
    stages = {}
    pack.pack(zoo, "e", output, progress=lambda stage, done, total: stages.update({stage: (done, total)}))
    assert list(stages) == [pack_checks.READING_RECORDS, pack_checks.READING_CHECKPOINTS, pack.PACKING, pack.INDEXING]
    del stages[pack.INDEXING]  # counts up to the last boundary of a block
    assert all(done == total for done, total in stages.values())


def test_a_disk_that_is_too_small_is_refused_beforehand(zoo, output, tmp_path):
    plan = pack_plan.make(zoo, "e")
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 2 * shutil.disk_usage(zoo).free)  # sparse: it takes no room
    segment = pack_tar.Segment((pack_tar.source(tmp_path, large),), 0, large.stat().st_size)
    with pytest.raises(errors.DiskSpaceError, match=r"packed: the packed files of e need .*B, .*B are free; make room"):
        pack.check_disk(dataclasses.replace(plan, segments=[segment]), output)
    pack.check_disk(plan, output)
    assert not output.exists()


def test_what_is_packed_already_needs_no_room(zoo, output):
    plan, places = pack_plan.make(zoo, "e"), pack_files.Places(output, "e")
    output.mkdir()
    places.unfinished.touch()
    room = 3 * shutil.disk_usage(zoo).free
    os.truncate(places.unfinished, room)  # sparse
    too_large = dataclasses.replace(plan, segments=[pack_tar.Segment((), 0, room)])
    pack.check_disk(too_large, output)
    assert pack.disk_missing(too_large, output) == pack.disk_bytes(too_large) - room < shutil.disk_usage(zoo).free


def test_the_estimate_of_the_disk_space_suffices_for_what_cannot_be_compressed(zoo, output):
    run = layout.Run(zoo, "e", 0.3, 0)
    shutil.rmtree(zoo / "e" / "0.7")
    shutil.rmtree(zoo / "e" / "0.3" / "2")
    packing.write_checkpoint(run, np.random.default_rng(0).bytes(20_000_000))
    plan = pack_plan.make(zoo, "e")
    pack.pack(zoo, "e", output)
    used = sum(len(content) for content in visible(output).values())
    assert 20_000_000 < used < pack.disk_bytes(plan) < 1.1 * used + 2e7


_KILLED = (
    "import sys\n"
    "from zoo.archive import pack, pack_stream, pack_tar\n"
    "pack_tar.SEGMENT_BYTES, pack_stream.JOURNAL_BYTES = 1 << 16, 1 << 18\n"
    "pack.pack(sys.argv[1], 'e', sys.argv[2], pack.Options(level=9))\n"
)


def start(zoo, output):
    return subprocess.Popen([sys.executable, "-c", _KILLED, zoo, output], cwd=_ROOT, stderr=subprocess.PIPE)


def offset(places):
    """Where the journal says that the archive goes on."""
    with contextlib.suppress(errors.MissingFileError):
        return files.read_json(places.journal)["state"]["digests"]["num_bytes"]
    return 0


def wait_for_the_journal(process, places):
    begun_at = offset(places)
    while process.poll() is None and offset(places) == begun_at:
        time.sleep(0.002)


@pytest.mark.parametrize("most_kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_anywhere_it_ends_as_if_undisturbed(tmp_path, most_kills):
    packing.make_zoo(tmp_path / "zoo", data_bytes=600_000 * most_kills)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    process = start(tmp_path / "zoo", undisturbed)
    assert process.communicate()[1] == b""
    moments, offsets, places = random.Random(0), [], pack_files.Places(disturbed, "e")
    while len(offsets) < most_kills and not places.manifest.exists():
        process = start(tmp_path / "zoo", disturbed)
        wait_for_the_journal(process, places)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        offsets.append(offset(places))
    assert len(offsets) >= 3
    assert offsets[1] > offsets[0] > 0
    assert start(tmp_path / "zoo", disturbed).communicate()[1] == b""
    made, expected = visible(disturbed), visible(undisturbed)
    assert sorted(made) == sorted(expected)
    for name in ("e.tar.gz", "e.tar.gz.md5", "e.run_table.npz"):
        assert made[name] == expected[name], name

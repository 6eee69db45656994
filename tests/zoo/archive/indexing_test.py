"""One pass over archives as different programs write them: index, run table, and the runs fetched by it."""

import hashlib
import json
import shutil
import tarfile
import zlib

import numpy as np
import pytest

from tests.zoo import runs as simulated_runs
from tests.zoo.archive import archives
from zoo import errors, layout, run_table, run_table_update
from zoo.archive import extract, extract_plan, index, indexing, journal, lock, scan
from zoo.remote import source

RUNS = ((0.3, 0), (0.3, 5), (0.5, 1), (0.7, 0), (0.7, 12))
RECIPE = {"architecture": "mlp"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return archives.make_zoo(folder, runs=RUNS, num_parameters=40_000, recipe=RECIPE)


@pytest.fixture(scope="module")
def table(zoo):
    return run_table_update.update(zoo, "synthetic")[0]


def streamed(archive, folder, **expected):
    places = indexing.places_in_zoo(folder, "synthetic")
    return indexing.make(str(archive), places, scan.Expected(**({"experiment": "synthetic"} | expected))), places


def fetch_all(archive, folder, **options):
    with index.Index(layout.archive_index_path(folder, "synthetic")) as stored:
        todo = extract_plan.plan(stored, folder, "synthetic", stored.runs(), **options)
        with source.open_source(str(archive)) as opened:
            extract_plan.check_same(stored, opened.state)
            return extract.fetch(opened, todo)


def assert_same_files(folder, other, but=()):
    names = [
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (folder, other)
    ]
    extra = {"synthetic/archive.index.sqlite", "synthetic/run_table.npz", "synthetic/.archive.index.sqlite.lock", *but}
    assert set(names[0]) - extra == set(names[1]) - extra
    for name in set(names[1]) - extra:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(
    "options",
    [
        {"tar_format": "v7"},
        {"tar_format": "ustar", "order": "reversed", "num_gzip_members": 3},
        {"tar_format": "gnu", "order": 7, "prefix": "./"},
        {"tar_format": "pax", "order": 8, "with_directories": False, "prefix": "some/where/", "level": 1},
        {"tar_format": "gnu", "level": 0},
        {"tar_format": "gnu", "level": 9, "num_gzip_members": 20},
    ],
    ids=str,
)
def test_archives_of_all_kinds_give_the_zoo_again(tmp_path, zoo, table, options):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz", **options)
    result, places = streamed(archive, tmp_path / "new")
    assert result.is_new
    assert result.facts.state == "sound", result.facts.faults
    assert result.facts.num_runs == len(RUNS)
    found = run_table.read(places.run_table)
    assert found.digest() == table.digest()
    np.testing.assert_array_equal(found.source_sha256, table.source_sha256)
    assert_members_are_those_of_tarfile(archive, places.index)
    fetched = fetch_all(archive, tmp_path / "new")
    assert fetched.problems == ()
    assert_same_files(tmp_path / "new", zoo)


def assert_members_are_those_of_tarfile(archive, index_path):
    with tarfile.open(archive) as reference, index.Index(index_path) as stored:
        expected = [
            (member.name, member.size, member.offset_data, zlib.crc32(reference.extractfile(member).read()))
            for member in reference
            if member.isfile()
        ]
        assert [(m.name, m.size, m.position, m.crc32) for m in stored.members()] == expected


def test_records_without_checkpoints_and_checkpoints_without_records(tmp_path):
    zoo = archives.make_zoo(tmp_path / "zoo", runs=RUNS, num_parameters=1000)
    (layout.Run(zoo, "synthetic", 0.3, 5).aux_arrays_path).unlink()
    for path in layout.Run(zoo, "synthetic", 0.7, 0).checkpoints_directory.iterdir():
        path.unlink()
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    result, places = streamed(archive, tmp_path / "new")
    assert result.facts.state == "sound"
    assert simulated_runs.runs_of(run_table.read(places.run_table)) == [run for run in RUNS if run != (0.3, 5)]
    with index.Index(places.index) as stored:
        assert stored.runs() == list(RUNS)
    fetch_all(archive, tmp_path / "new")
    assert_same_files(tmp_path / "new", zoo)


def test_one_byte_at_a_time_is_the_same_index(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz", order=3)
    places = [indexing.places_in_zoo(tmp_path / name, "synthetic") for name in ("whole", "pieces")]
    indexing.make(str(archive), places[0], scan.Expected(experiment="synthetic"))
    options = source.Options(chunk_bytes=997)
    indexing.make(str(archive), places[1], scan.Expected(experiment="synthetic"), options, save_bytes=1)
    assert places[0].index.read_bytes() == places[1].index.read_bytes()
    assert places[0].run_table.read_bytes() == places[1].run_table.read_bytes()


class _InterruptedError(Exception):
    pass


def test_a_pass_that_is_broken_off_again_and_again_ends_as_if_undisturbed(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz", order=3, num_gzip_members=2)
    _, undisturbed = streamed(archive, tmp_path / "undisturbed")
    places = indexing.places_in_zoo(tmp_path / "disturbed", "synthetic")
    options = source.Options(chunk_bytes=20_000)
    reached = [0]

    def progress(done, total):
        assert total == archive.stat().st_size
        if done > reached[-1] + 30_000:
            reached.append(done)
            raise _InterruptedError

    num_breaks = 0
    while True:
        try:
            result = indexing.make(
                str(archive), places, scan.Expected(experiment="synthetic"), options, progress, save_bytes=5000
            )
            break
        except _InterruptedError:
            num_breaks += 1
            assert not places.index.exists()
    assert num_breaks > 15
    assert result.facts.md5 == hashlib.md5(archive.read_bytes()).hexdigest()
    assert places.index.read_bytes() == undisturbed.index.read_bytes()
    assert places.run_table.read_bytes() == undisturbed.run_table.read_bytes()
    assert sorted(path.name for path in places.index.parent.iterdir()) == sorted(
        path.name for path in undisturbed.index.parent.iterdir()
    )


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_flipped_byte_costs_what_it_hits(tmp_path, zoo, level):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz", level=level)
    size = archive.stat().st_size
    sound = archive.read_bytes()
    with tarfile.open(archive) as opened:
        num_files = sum(member.isfile() for member in opened)
    num_with_damage = 0
    for number, offset in enumerate(range(size // 7, size, size // 7)):
        archive.write_bytes(sound)
        archives.flip(archive, offset, 0x10)
        folder = tmp_path / str(number)
        result, places = streamed(archive, folder, md5=hashlib.md5(sound).hexdigest())
        assert result.facts.state == "damaged"
        assert any("MD5 is " in fault for fault in result.facts.faults)
        with index.Index(places.index) as stored:
            members = list(stored.members())
            bad = [member for member in members if member.state == "damaged"]
        # At these sizes what is lost reaches over a checkpoint and the small files beside it.
        assert len(members) - len(bad) >= num_files - 6
        problems = fetch_all(archive, folder).problems
        assert {problem.run for problem in problems} >= {member.run for member in bad if member.run}
        assert_only_true_files(folder, zoo)
        if not bad and len(members) == num_files:  # the byte belongs to padding, headers or checksums
            # Nothing proves the recipe.
            assert_same_files(folder, zoo, but=["synthetic/recipe.json"])
        num_with_damage += bool(bad or len(members) < num_files)
    assert num_with_damage >= 4


def assert_only_true_files(folder, zoo):
    for path in (folder / "synthetic").rglob("*/*/*.*"):
        assert path.read_bytes() == (zoo / path.relative_to(folder)).read_bytes()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 0.9999])
def test_of_a_truncated_archive_the_first_runs_remain(tmp_path, zoo, share):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    archives.truncate(archive, int(share * archive.stat().st_size))
    result, places = streamed(archive, tmp_path / "new")
    assert result.facts.state == "damaged"
    with index.Index(places.index) as stored:
        bad = [member for member in stored.members() if member.state == "damaged"]
        assert len(bad) <= 1
        assert result.facts.num_runs == sum(
            member.state == "sound" for member in stored.members() if member.name.endswith("aux_arrays.npz")
        )
    fetch_all(archive, tmp_path / "new")
    assert_only_true_files(tmp_path / "new", zoo)


def test_what_is_there_is_not_made_again_and_what_a_kill_left_beside_it_goes(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    first, places = streamed(archive, tmp_path / "new")
    places.journal.write_bytes(b"left by a kill between the index and its own end")
    calls = []
    again = indexing.make(str(archive), places, progress=lambda *numbers: calls.append(numbers))
    assert (again.facts, again.is_new, calls) == (first.facts, False, [])
    assert not places.journal.exists()
    places.run_table.unlink()
    assert indexing.existing(places) is None
    assert streamed(archive, tmp_path / "new")[0].is_new
    assert places.run_table.exists()


def test_what_an_index_or_a_table_in_the_way_is_of(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    _, places = streamed(archive, tmp_path / "new")
    index_bytes = places.index.read_bytes()
    archives.truncate(archive, -5)
    with pytest.raises(errors.MismatchError, match=r"archive\.index\.sqlite: index of an archive of [0-9]+ bytes, but"):
        streamed(archive, tmp_path / "new")
    assert places.index.read_bytes() == index_bytes


def test_a_run_table_that_is_there_is_replaced_if_the_archive_says_the_same_of_its_runs(tmp_path, zoo, table):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    places = indexing.places_in_zoo(tmp_path / "new", "synthetic")
    labels = np.arange(60) % 3
    run_table.write(places.run_table, table.take(np.array([1, 3])).with_labels(labels, None))
    result, _ = streamed(archive, tmp_path / "new")
    assert result.is_new
    found = run_table.read(places.run_table)
    assert found.digest() == table.digest()
    np.testing.assert_array_equal(found.train_label, labels)
    # An index alone, as a fetch leaves it, or with a smaller table, is no finished pass.
    run_table.write(places.run_table, table.take(np.array([0])))
    assert indexing.existing(places) is None


def test_a_run_table_that_says_otherwise_is_left_alone(tmp_path, zoo, table):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    places = indexing.places_in_zoo(tmp_path / "new", "synthetic")
    mine = run_table.from_arrays(
        "synthetic", np.array([5]), np.array([0.3]), *(np.zeros((1, size), bool) for size in (60, 60, 20))
    )
    run_table.write(places.run_table, mine)
    before = places.run_table.read_bytes()
    with pytest.raises(errors.MismatchError, match=r"run_table\.npz: .* of run 0\.3/5 is not what the archive says"):
        streamed(archive, tmp_path / "new")
    assert places.run_table.read_bytes() == before
    places.run_table.unlink()
    assert streamed(archive, tmp_path / "new")[0].facts.num_runs == len(RUNS)


def test_one_process_at_a_time_and_only_where_there_is_room(tmp_path, zoo, monkeypatch):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    places = indexing.places_in_zoo(tmp_path / "new", "synthetic")
    with lock.held(places.lock), pytest.raises(errors.BusyError, match="held by another process"):
        streamed(archive, tmp_path / "new")
    monkeypatch.setattr(indexing, "_DISK_LEAST", 1 << 60)
    with pytest.raises(errors.DiskSpaceError, match="the index of an archive, with its journal and run table, need"):
        streamed(archive, tmp_path / "new")
    assert [path.name for path in places.index.parent.iterdir()] == [places.lock.name]


def test_an_index_of_another_archive_than_the_known_one_is_refused(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    _, places = streamed(archive, tmp_path / "new")
    with pytest.raises(errors.IntegrityError, match=r"index of an archive with MD5 .*, the one that is known has 0000"):
        indexing.existing(places, scan.Expected("0" * 32))


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_a_recipe_that_lies_elsewhere_belongs_to_nothing(tmp_path, zoo, order):
    folder = tmp_path / "zoo"
    shutil.copytree(zoo, folder)
    (folder / "synthetic" / "another").mkdir()
    (folder / "synthetic" / "another" / "recipe.json").write_text('{"of": "something else"}')
    archive = archives.write_archive(folder, "synthetic", tmp_path / "a.tar.gz", order=order)
    result, places = streamed(archive, tmp_path / "new")
    assert result.facts.folder == "synthetic"
    assert json.loads(places.recipe.read_text()) == RECIPE
    places.recipe.unlink()
    fetch_all(archive, tmp_path / "new")
    assert json.loads(places.recipe.read_text()) == RECIPE


def test_what_is_there_with_other_bytes_is_left_alone(tmp_path, zoo):
    archive = archives.write_archive(zoo, "synthetic", tmp_path / "a.tar.gz")
    streamed(archive, tmp_path / "new")
    mine = layout.Run(tmp_path / "new", "synthetic", 0.3, 0).aux_arrays_path
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = fetch_all(archive, tmp_path / "new")
    assert [problem.reason for problem in result.problems] == [
        f"{mine}: is there with other bytes; --overwrite replaces it"
    ]
    assert mine.read_bytes() == b"mine"
    assert not layout.Run(tmp_path / "new", "synthetic", 0.3, 0).checkpoints_directory.exists()
    assert layout.Run(tmp_path / "new", "synthetic", 0.3, 5).aux_arrays_path.exists()
    assert fetch_all(archive, tmp_path / "new", overwrite=True).problems == ()
    assert_same_files(tmp_path / "new", zoo)


def test_recipes_of_many_folders_are_not_gathered_for_ever(tmp_path):
    recipe = b'{"a": "' + bytes(b"x" * 1000) + b'"}'
    members = [archives.member(f"f{number}/recipe.json", recipe) for number in range(40)]
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archives.gz(archives.tar_bytes(members)))
    with source.open_source(str(archive)) as opened, journal.Journal(tmp_path / "journal") as log:
        passing = scan.Scan(opened, log, scan.Expected())
        passing.run()
        assert len(log.progress()["kept"]) == scan._MOST_RECIPES

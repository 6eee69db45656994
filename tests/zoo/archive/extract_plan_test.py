"""What is planned is what is missing, of what is sound, in as few ranges as pay."""

import dataclasses

import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from zoo import errors, layout
from zoo.archive import contents, extract_plan, index
from zoo.remote import source

RUNS = [(0.3, 0), (0.3, 4), (0.5, 1)]
GAP_BYTES = 400_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An archive with something large between the second run and the third, and its index."""
    folder = tmp_path_factory.mktemp("made")
    files = {"e/recipe.json": b'{"seed": 1}'} | passes.run_files(*RUNS[0]) | passes.run_files(*RUNS[1])
    files |= {"e/large.bin": np.random.default_rng(0).bytes(GAP_BYTES)} | passes.run_files(*RUNS[2])
    archive = passes.write(folder / "a.tar.gz", files)
    _, places = passes.indexed(archive, folder / "zoo")
    return archive, places.index


def planned(path, zoo, runs=RUNS, *arguments, **options):
    with index.Index(path) as stored:
        return extract_plan.plan(stored, zoo, "e", runs, *arguments, **options)


def targets(todo, zoo):
    return [str(wanted.target.relative_to(zoo)) for group in todo.groups for wanted in group]


def test_neighbours_are_read_together_and_what_lies_between_is_not(made, tmp_path):
    todo = planned(made[1], tmp_path)
    assert [len(group) for group in todo.groups] == [7, 3]
    assert targets(todo, tmp_path) == ["e/recipe.json", *(name for run in RUNS for name in passes.run_files(*run))]
    assert (todo.num_files, todo.num_there, todo.problems) == (10, 0, ())
    assert todo.num_bytes == 11 + sum(len(data) for run in RUNS for data in passes.run_files(*run).values())
    (first_start, first_stop), (second_start, second_stop) = todo.ranges
    assert first_start < first_stop < second_start < second_stop <= made[0].stat().st_size
    assert todo.num_compressed == first_stop - first_start + second_stop - second_start
    assert todo.num_compressed < made[0].stat().st_size - 0.5 * GAP_BYTES


def test_how_much_is_read_together(made, tmp_path, monkeypatch):
    monkeypatch.setattr(extract_plan, "_GAP", 1 << 30)
    assert len(planned(made[1], tmp_path).groups) == 1
    monkeypatch.setattr(extract_plan, "_LARGEST_GROUP", 150_000)
    assert [len(group) for group in planned(made[1], tmp_path).groups] == [7, 3]
    monkeypatch.setattr(extract_plan, "_LARGEST_GROUP", 1)
    todo = planned(made[1], tmp_path)
    assert [len(group) for group in todo.groups] == [1] * 10
    assert len(targets(todo, tmp_path)) == 10


def test_runs_and_parts_that_are_asked_for(made, tmp_path):
    todo = planned(made[1], tmp_path, [RUNS[1], RUNS[1]], ("aux_arrays",))
    assert targets(todo, tmp_path) == ["e/recipe.json", "e/0.3/4/aux_arrays.npz"]
    checkpoints = planned(made[1], tmp_path, [RUNS[1]], ("checkpoint_index", "checkpoint_data"))
    assert targets(checkpoints, tmp_path)[1:] == list(passes.run_files(*RUNS[1]))[1:]
    nothing = planned(made[1], tmp_path, [(0.3, 1), (0.9, 0)])
    assert [(problem.run, problem.reason) for problem in nothing.problems] == [
        (run, f"run {run[0]}/{run[1]}: the archive has none of its aux_arrays, checkpoint_index, checkpoint_data")
        for run in ((0.3, 1), (0.9, 0))
    ]


def test_what_is_there_is_not_fetched_again(made, tmp_path):
    zoo = tmp_path / "zoo"
    passes.fetched(made[0], made[1].parents[1])
    contents_there = passes.run_files_below(made[1].parents[1])
    for name, data in contents_there.items():
        (zoo / name).parent.mkdir(parents=True, exist_ok=True)
        (zoo / name).write_bytes(data)
    layout.recipe_path(zoo, "e").write_text("{}")  # one's own is left alone
    todo = planned(made[1], zoo)
    assert (todo.groups, todo.num_there, todo.problems) == ((), 9, ())
    assert (todo.num_compressed, todo.num_bytes, todo.ranges) == (0, 0, [])
    changed_file, short, folder, missing = (zoo / name for name in list(contents_there)[:4])
    archives.flip(changed_file, 50)
    archives.truncate(short, -1)
    missing.unlink()
    folder.unlink()
    folder.mkdir()
    assert {problem.run for problem in planned(made[1], zoo).problems} == {(0.3, 0)}
    todo = planned(made[1], zoo, overwrite=True)
    assert set(targets(todo, zoo)) == {str(path.relative_to(zoo)) for path in (changed_file, short, missing, folder)}
    layout.experiment_directory(zoo, "e").joinpath("0.5").rename(zoo / "aside")
    layout.experiment_directory(zoo, "e").joinpath("0.5").write_text("a file in the way")
    assert planned(made[1], zoo, overwrite=True).num_files == 4 + 3


def test_a_folder_of_the_size_of_the_file_is_not_the_file(made, tmp_path):
    folder = tmp_path / "zoo" / "e/0.3/0/aux_arrays.npz"
    folder.mkdir(parents=True)
    path = passes.changed_index(
        made[1], tmp_path, f"UPDATE member SET size = {folder.stat().st_size} WHERE name LIKE '%npz'"
    )
    assert planned(path, tmp_path / "zoo", RUNS[:1]).num_there == 0


def test_members_that_are_not_sound_are_problems(made, tmp_path):
    path = passes.changed_index(
        made[1],
        tmp_path,
        "UPDATE member SET state = 'damaged', reason = 'why' WHERE name = 'e/0.3/0/checkpoints/ckpt-3.index'",
        "UPDATE member SET state = 'unchecked' WHERE ratio = '0.3' AND run_id = 4 AND name LIKE '%npz'",
        "UPDATE fact SET value = '\"damaged\"' WHERE key = 'state'",
    )
    todo = planned(path, tmp_path)
    assert [(problem.run, problem.reason) for problem in todo.problems] == [
        (None, "e/recipe.json: nothing proves it sound, and the archive is damaged"),
        ((0.3, 0), "e/0.3/0/checkpoints/ckpt-3.index is damaged in the archive: why"),
        ((0.3, 4), "e/0.3/4/aux_arrays.npz: nothing proves it sound, and the archive is damaged"),
    ]
    # Of the first run only its record: the other half of a checkpoint is of no use.
    assert targets(todo, tmp_path) == [name for name in passes.run_files(*RUNS[0]) if name.endswith("npz")] + [
        name for run in RUNS[1:] for name in passes.run_files(*run) if "0.3/4/aux" not in name
    ]
    only_records = planned(path, tmp_path, [(0.3, 0)], ("aux_arrays",))
    assert [problem.run for problem in only_records.problems] == [None]


def test_half_a_checkpoint_is_not_fetched(tmp_path):
    first, second = passes.run_files(0.3, 0), passes.run_files(0.3, 1, epoch=30)
    files = first | {name: data for name, data in second.items() if "index" not in name}
    # Another epoch is another checkpoint.
    files |= {name.replace("ckpt-30", "ckpt-3"): data for name, data in second.items() if "ckpt" in name}
    archive = passes.write(tmp_path / "a.tar.gz", files)
    _, places = passes.indexed(archive, tmp_path / "zoo")
    todo = planned(places.index, tmp_path, [(0.3, 0), (0.3, 1)])
    (problem,) = todo.problems
    half = "e/0.3/1/checkpoints/ckpt-30.data-00000-of-00001"
    assert (problem.run, problem.reason) == ((0.3, 1), f"{half}: the archive has no other file of this checkpoint")
    assert targets(todo, tmp_path) == [name for name in files if name != half]
    # Who asks for it by its part alone gets it.
    assert planned(places.index, tmp_path, [(0.3, 1)], ("checkpoint_data",)).num_files == 2


@pytest.mark.parametrize("name", ["e/recipe.json", "e/0.3/0/aux_arrays.npz"])
def test_members_too_large_to_be_looked_into_are_problems(made, tmp_path, name):
    part = "recipe" if name.endswith("json") else "aux_arrays"
    size = contents.LARGEST[part] + 1
    path = passes.changed_index(made[1], tmp_path, f"UPDATE member SET size = {size} WHERE name = '{name}'")
    (problem,) = planned(path, tmp_path, RUNS[:1]).problems
    assert problem.reason.startswith(f"{name}: ")
    assert problem.reason.endswith("expected 268 MB at most" if part == "aux_arrays" else "expected 1.0 MB at most")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE point SET position = position + 1000000",
        "UPDATE member SET position = 0, point_id = 1",
        "UPDATE member SET end_offset = 3",
    ],
)
def test_an_index_that_contradicts_itself_is_refused(made, tmp_path, statement):
    path = passes.changed_index(made[1], tmp_path, statement)
    with pytest.raises(errors.DamagedFileError, match=r"changed\.sqlite: .*does not lie behind point .*make it again"):
        planned(path, tmp_path)


def test_another_archive_than_that_of_the_index_is_refused(made):
    with index.Index(made[1]) as stored:
        facts = stored.facts
        right = source.ObjectState("a.tar.gz", facts.size, "1", facts.md5, facts.crc32c)
        extract_plan.check_same(stored, right)
        extract_plan.check_same(stored, dataclasses.replace(right, md5=None, crc32c=None, version="2"))
        for change, message in (
            ({"size": 5}, f"it has 5 bytes, the index says {facts.size}"),
            ({"md5": "0" * 32}, f"its MD5 is {'0' * 32}, the index says {facts.md5}"),
            ({"crc32c": 1}, f"its CRC32C is 00000001, the index says {facts.crc32c:08x}"),
        ):
            with pytest.raises(errors.MismatchError, match=message) as caught:
                extract_plan.check_same(stored, dataclasses.replace(right, **change))
            assert str(caught.value).startswith(f"a.tar.gz: not the archive that {made[1]} is the index of: ")
            assert "zoo_index" in str(caught.value)


def test_the_runs_of_an_archive_by_ratio(made, tmp_path):
    with index.Index(made[1]) as stored:
        assert extract_plan.contents_of(stored) == [
            extract_plan.RatioContents(0.3, (0, 4), 2),
            extract_plan.RatioContents(0.5, (1,), 1),
        ]
    path = passes.changed_index(
        made[1],
        tmp_path,
        "UPDATE member SET state = 'damaged', reason = 'why' WHERE name = 'e/0.3/0/checkpoints/ckpt-3.index'",
        "UPDATE member SET state = 'damaged', reason = 'why' WHERE ratio = '0.5'",
    )
    with index.Index(path) as stored:
        assert extract_plan.contents_of(stored) == [extract_plan.RatioContents(0.3, (0, 4), 1)]


def test_reading_what_is_there_reports_its_progress(made, tmp_path):
    calls = []
    assert planned(made[1], tmp_path, progress=lambda *numbers: calls.append(numbers)).num_there == 0
    assert calls == []
    there = passes.run_files(*RUNS[0]) | passes.run_files(*RUNS[2])
    for name, data in there.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    todo = planned(made[1], tmp_path, progress=lambda *numbers: calls.append(numbers))
    assert todo.num_there == len(calls) == 6
    total = sum(map(len, there.values()))
    assert {of for _, of in calls} == {total}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (total, total)

"""What a zoo is said to hold, against folders made by hand."""

import os
import shutil

import numpy as np
import pytest

from zoo import aux_arrays, inventory, layout, run_table, run_table_update


@pytest.fixture
def zoo(tmp_path):
    generator = np.random.default_rng(0)
    for ratio, run_id in ((0.5, 0), (0.5, 1), (0.5, 2), (0.7, 0)):
        run = layout.Run(tmp_path, "e", ratio, run_id)
        mask = np.isin(np.arange(9), generator.permutation(9)[: round(ratio * 9)])
        aux = aux_arrays.from_masks(mask, generator.random(9) < 0.5, generator.random(4) < 0.5)
        aux_arrays.write(run.aux_arrays_path, aux)
        run.checkpoints_directory.mkdir()
        for suffix in (".index", ".data-00000-of-00001"):
            (run.checkpoints_directory / f"ckpt-3{suffix}").write_bytes(b"1234567")
    return tmp_path


def test_a_sound_zoo(zoo):
    item = inventory.take(zoo, "e")
    assert (item.num_train, item.num_test, item.num_packed, item.complaint) == (9, 4, None, None)
    assert [(r.subset_ratio, r.num_complete, r.num_with_checkpoint) for r in item.ratios] == [(0.5, 3, 3), (0.7, 1, 1)]


def test_partial_damaged_and_bare_runs(zoo):
    layout.Run(zoo, "e", 0.5, 0).aux_arrays_path.unlink()
    layout.Run(zoo, "e", 0.5, 1).aux_arrays_path.write_bytes(b"PK")
    for path in layout.Run(zoo, "e", 0.5, 2).checkpoints_directory.iterdir():
        path.unlink()
    ratio = inventory.take(zoo, "e").ratios[0]
    assert (ratio.num_complete, ratio.num_with_checkpoint) == (1, 0)
    assert (ratio.count("partial"), ratio.count("damaged")) == (1, 1)
    assert all(str(p.run.aux_arrays_path) in p.reason for p in ratio.problems)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_half_a_checkpoint_is_damage(zoo, suffix):
    (layout.Run(zoo, "e", 0.7, 0).checkpoints_directory / f"ckpt-3{suffix}").unlink()
    item = inventory.take(zoo, "e")
    assert item.ratios[1].num_complete == 0
    assert "ckpt-3 lacks its .index or .data file" in item.ratios[1].problems[0].reason


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_empty_checkpoint_files_are_damage(zoo, suffix):
    run = layout.Run(zoo, "e", 0.7, 0)
    (run.checkpoints_directory / f"ckpt-3{suffix}").write_bytes(b"")
    (problem,) = inventory.checkpoint_problems(layout.runs(zoo, "e"))
    assert (problem.run, problem.state) == (run, "damaged")
    assert f"{run.checkpoints_directory}: ckpt-3 has an empty .index or .data file; fetch" in problem.reason


def test_checkpoint_data_may_differ_by_what_tensorflow_notes_beside_it(zoo):
    for position, run in enumerate(layout.runs(zoo, "e")):
        (run.checkpoints_directory / "ckpt-3.data-00000-of-00001").write_bytes(bytes(1000 + 3 * position))
    assert not inventory.checkpoint_problems(layout.runs(zoo, "e"))


@pytest.mark.parametrize("size", [6, 8])
def test_checkpoint_data_of_another_size_is_damage(zoo, size):
    run = layout.Run(zoo, "e", 0.5, 1)
    (run.checkpoints_directory / "ckpt-3.data-00000-of-00001").write_bytes(bytes(size))
    # Sizes are compared at the same epoch only, and index files not at all.
    (layout.Run(zoo, "e", 0.5, 0).checkpoints_directory / "ckpt-3.index").write_bytes(b"1")
    for suffix in (".index", ".data-00000-of-00001"):
        (layout.Run(zoo, "e", 0.7, 0).checkpoints_directory / f"ckpt-4{suffix}").write_bytes(b"12")
    (problem,) = inventory.checkpoint_problems(layout.runs(zoo, "e"))
    assert problem.run == run
    assert f"the .data file of ckpt-3 has {size} bytes, those of other runs 7" in problem.reason
    assert inventory.take(zoo, "e").ratios[0].count("damaged") == 1


def test_of_two_checkpoints_of_different_size_the_smaller_is_damaged(zoo):
    runs = layout.runs(zoo, "e")[:2]
    (runs[0].checkpoints_directory / "ckpt-3.data-00000-of-00001").write_bytes(b"123")
    assert [problem.run for problem in inventory.checkpoint_problems(runs)] == runs[:1]


def test_all_faults_of_a_run_are_one_problem(zoo):
    run = layout.Run(zoo, "e", 0.5, 1)
    (run.checkpoints_directory / "ckpt-3.index").write_bytes(b"")
    (run.checkpoints_directory / "ckpt-5.index").write_bytes(b"1")
    (problem,) = inventory.checkpoint_problems(layout.runs(zoo, "e"))
    assert "ckpt-3 has an empty .index or .data file, ckpt-5 lacks its .index or .data file;" in problem.reason


@pytest.mark.parametrize("deep", [False, True])
def test_folders_without_a_record_are_partial_only_without_a_row(zoo, deep):
    run_table_update.update(zoo, "e")
    layout.Run(zoo, "e", 0.5, 0).aux_arrays_path.unlink()
    layout.Run(zoo, "e", 0.5, 7).directory.mkdir()
    ratio = inventory.take(zoo, "e", deep=deep).ratios[0]
    assert ratio.num_complete == 3
    assert [(problem.run.run_id, problem.state) for problem in ratio.problems] == [(7, "partial")]


def test_the_run_table_decides_on_sizes(zoo):
    run_table_update.update(zoo, "e")
    mask = np.arange(10) < 5
    for run_id in range(3, 9):
        aux = aux_arrays.from_masks(mask, generator_bits(run_id, 10), mask[:4])
        aux_arrays.write(layout.Run(zoo, "e", 0.5, run_id).aux_arrays_path, aux)
    item = inventory.take(zoo, "e")
    assert (item.num_train, item.ratios[0].num_complete, item.ratios[0].count("damaged")) == (9, 3, 6)


def generator_bits(seed, size):
    return np.random.default_rng(seed).random(size) < 0.5


def test_known_records_are_not_read_again_unless_asked(zoo):
    run_table_update.update(zoo, "e")
    path = layout.Run(zoo, "e", 0.7, 0).aux_arrays_path
    status, content = path.stat(), bytearray(path.read_bytes())
    for position in range(len(content) // 3, 2 * len(content) // 3):
        content[position] ^= 0xFF
    path.write_bytes(content)
    # As a failing disk leaves it: other bytes, same size and time.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert inventory.take(zoo, "e").ratios[1].num_complete == 1
    assert inventory.take(zoo, "e", deep=True).ratios[1].count("damaged") == 1


def test_nothing_is_written(zoo):
    before = sorted(zoo.rglob("*"))
    inventory.take(zoo, "e")
    assert sorted(zoo.rglob("*")) == before


def test_a_damaged_run_table_is_named_and_the_runs_are_read(zoo):
    run_table_update.update(zoo, "e")
    layout.run_table_path(zoo, "e").write_bytes(b"no table")
    item = inventory.take(zoo, "e")
    assert "run_table.npz" in item.complaint
    assert item.ratios[0].num_complete == 3


def test_a_packed_experiment_without_run_folders(zoo, tmp_path):
    table, _ = run_table_update.update(zoo, "e")
    target = tmp_path / "packed"
    layout.run_table_path(target, "e").parent.mkdir(parents=True)
    run_table.write(layout.run_table_path(target, "e"), table)
    item = inventory.take(target, "e")
    assert (item.num_train, item.num_test, item.num_packed) == (9, 4, 4)
    # The table is all that is left of these runs, and all that scores need.
    found = [
        (ratio.subset_ratio, ratio.num_complete, ratio.num_with_checkpoint, ratio.num_table_only)
        for ratio in item.ratios
    ]
    assert found == [(0.5, 3, 0, 3), (0.7, 1, 0, 1)]
    assert item.num_table_only == 4


def test_runs_without_a_folder_are_counted(zoo):
    run_table_update.update(zoo, "e")
    assert inventory.take(zoo, "e").num_table_only == 0
    shutil.rmtree(layout.Run(zoo, "e", 0.5, 1).directory)
    layout.Run(zoo, "e", 0.7, 0).aux_arrays_path.unlink()  # its checkpoint is left
    item = inventory.take(zoo, "e")
    assert [ratio.num_table_only for ratio in item.ratios] == [1, 0]
    assert item.num_table_only == 1


def test_strangers_are_named(zoo):
    (zoo / "e" / "notes.txt").write_text("mine")
    (zoo / "e" / "0.50").mkdir()
    (zoo / "e" / "0.7" / "0902").mkdir()
    (zoo / "e" / "0.7" / "12").write_text("no folder")
    (zoo / "e" / "0.7" / ".12.tmp-1-0123abcd").mkdir()
    (zoo / "e" / "0.7" / ".DS_Store").touch()
    (zoo / "e" / "0.25").mkdir()
    (zoo / "e" / "0.3").write_text("no folder")
    (zoo / "e" / "scores").mkdir()
    assert inventory.take(zoo, "e").unknown == ["0.3", "0.50", "0.7/0902", "0.7/12", "notes.txt"]


def test_strangers_in_the_folders_of_runs_are_named(zoo):
    run = layout.Run(zoo, "e", 0.5, 1)
    for name in (
        "core",
        "aux_arrays.npz.bak",
        ".hidden",
        "checkpoints/checkpoint",
        "checkpoints/.ckpt-3.index.tmp-1-2",
    ):
        (run.directory / name).touch()
    (run.checkpoints_directory / "ckpt-9.index").mkdir()
    (layout.Run(zoo, "e", 0.7, 3).directory).mkdir()
    (layout.Run(zoo, "e", 0.7, 3).checkpoints_directory).write_bytes(b"no folder")
    assert inventory.take(zoo, "e").unknown == [
        "0.5/1/aux_arrays.npz.bak",
        "0.5/1/checkpoints/checkpoint",
        "0.5/1/checkpoints/ckpt-9.index",
        "0.5/1/core",
        "0.7/3/checkpoints",
    ]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_recipe_that_is_no_json_object_is_a_complaint(zoo, content):
    layout.recipe_path(zoo, "e").write_bytes(b"{}")
    assert inventory.take(zoo, "e").complaint is None
    layout.recipe_path(zoo, "e").write_bytes(content)
    assert "recipe.json: " in inventory.take(zoo, "e").complaint
    layout.run_table_path(zoo, "e").write_bytes(b"no table")
    first, second = inventory.take(zoo, "e").complaint.split("; ", 1)[0], inventory.take(zoo, "e").complaint
    assert "run_table.npz" in first
    assert "; " + str(layout.recipe_path(zoo, "e")) in second


def test_a_recipe_that_is_a_folder_is_a_complaint(zoo):
    layout.recipe_path(zoo, "e").mkdir()
    assert "recipe.json: no such file" in inventory.take(zoo, "e").complaint

"""What a zoo is said to hold, against folders made by hand."""

import os

import numpy as np
import pytest

from zoo import aux_arrays, inventory, layout, run_table


@pytest.fixture
def zoo(tmp_path):
    generator = np.random.default_rng(0)
    for ratio, run_id in ((0.5, 0), (0.5, 1), (0.5, 2), (0.7, 0)):
        run = layout.Run(tmp_path, "e", ratio, run_id)
        aux = aux_arrays.from_masks(generator.random(9) < ratio, generator.random(9) < 0.5, generator.random(4) < 0.5)
        aux_arrays.write(run.aux_arrays_path, aux)
        run.checkpoints_directory.mkdir()
        for suffix in (".index", ".data-00000-of-00001"):
            (run.checkpoints_directory / f"ckpt-3{suffix}").write_bytes(b"")
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


def test_known_records_are_not_read_again_unless_asked(zoo):
    run_table.update(zoo, "e")
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
    run_table.update(zoo, "e")
    layout.run_table_path(zoo, "e").write_bytes(b"no table")
    item = inventory.take(zoo, "e")
    assert "run_table.npz" in item.complaint
    assert item.ratios[0].num_complete == 3


def test_a_packed_experiment_without_run_folders(zoo, tmp_path):
    table, _ = run_table.update(zoo, "e")
    target = tmp_path / "packed"
    layout.run_table_path(target, "e").parent.mkdir(parents=True)
    run_table.write(layout.run_table_path(target, "e"), table)
    item = inventory.take(target, "e")
    assert (item.num_train, item.num_test, item.num_packed, item.ratios) == (9, 4, 4, [])


def test_strangers_are_named(zoo):
    (zoo / "e" / "notes.txt").write_text("mine")
    (zoo / "e" / "0.50").mkdir()
    assert inventory.take(zoo, "e").unknown == ["0.50", "notes.txt"]

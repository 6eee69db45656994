"""What is found sound before packing is remembered, and nothing else is."""

import os

import pytest

from tests.zoo import runs
from tests.zoo.archive import packing
from zoo import errors, layout
from zoo.archive import pack_checks, pack_plan


@pytest.fixture
def zoo(tmp_path):
    return packing.make_zoo(tmp_path)


@pytest.fixture
def memory(tmp_path):
    return lambda: pack_checks.Memory(tmp_path / "rows.npz", tmp_path / "checkpoints.json")


def spoil(path):
    """Other bytes, the same size and time."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_was_found_sound_is_not_read_again(zoo, memory, which):
    path = [*packing.checkpoint_paths(packing.run_of(zoo)), packing.run_of(zoo).aux_arrays_path][which]
    pack_plan.make(zoo, "e", memory=memory())
    spoil(path)
    plan = pack_plan.make(zoo, "e", memory=memory())
    runs.assert_holds(plan.table)
    packing.touch(path)
    with pytest.raises(errors.DamagedFileError, match="1 damaged run to mend"):
        pack_plan.make(zoo, "e", memory=memory())


def test_what_was_found_damaged_is_read_again(zoo, memory):
    packing.damage_checkpoint(packing.run_of(zoo), 0)
    with pytest.raises(errors.DamagedFileError, match="1 damaged run to mend"):
        pack_plan.make(zoo, "e", memory=memory())
    packing.add_checkpoint(packing.run_of(zoo))
    assert not pack_plan.make(zoo, "e", memory=memory()).problems


def test_a_row_that_is_remembered_does_not_replace_its_record(zoo, memory):
    pack_plan.make(zoo, "e", memory=memory())
    packing.run_of(zoo).aux_arrays_path.unlink()
    plan = pack_plan.make(zoo, "e", memory=memory())
    assert [problem.state for problem in plan.problems] == ["partial"]


@pytest.mark.parametrize("name", ["rows.npz", "checkpoints.json"])
def test_a_memory_that_cannot_be_read_is_made_again(zoo, memory, tmp_path, name):
    pack_plan.make(zoo, "e", memory=memory())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"[]")
    runs.assert_holds(pack_plan.make(zoo, "e", memory=memory()).table)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("stage", [pack_checks.READING_RECORDS, pack_checks.READING_CHECKPOINTS])
def test_what_was_found_is_saved_now_and_then(zoo, memory, monkeypatch, stage):
    monkeypatch.setattr("zoo.run_scan.SAVE_INTERVAL_S", 0.0)

    def stop(*state):
        if state == (stage, 3, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_plan.make(zoo, "e", memory=memory(), progress=stop)
    first = layout.Run(zoo, "e", 0.3, 0)
    spoil(first.aux_arrays_path if stage == pack_checks.READING_RECORDS else packing.checkpoint_paths(first)[0])
    runs.assert_holds(pack_plan.make(zoo, "e", memory=memory()).table)


def test_without_a_memory_nothing_is_written(zoo):
    before = sorted(zoo.rglob("*"))
    pack_plan.make(zoo, "e")
    assert sorted(zoo.rglob("*")) == before


def test_a_checkpoint_that_vanishes_meanwhile_is_named(zoo, monkeypatch):
    # It goes between the listing of its folder and the look at its files.
    monkeypatch.setattr("zoo.layout.checkpoint_epochs", lambda run: [3])
    with pytest.raises(errors.MismatchError, match=r"ckpt-3\.data-00000-of-00001: vanished while"):
        pack_plan.make(zoo, "e")

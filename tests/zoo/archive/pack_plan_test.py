"""What is packed: the right files under the right names, in bytes that depend on nothing else."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from tests.zoo import runs
from tests.zoo.archive import packing
from zoo import errors, files, layout, run_table
from zoo.archive import names, pack_plan, pack_tar


@pytest.fixture
def zoo(tmp_path):
    return packing.make_zoo(tmp_path)


def tar_bytes(plan):
    return b"".join(pack_tar.read_segment(segment) for segment in plan.segments)


def members(plan):
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(plan)), mode="r:") as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]


def test_all_files_of_sound_runs_are_packed_by_ratio_and_run(zoo):
    plan = pack_plan.make(zoo, "e")
    assert [(member.name, content) for member, content in members(plan)] == packing.packed_files(zoo)
    assert [member.name for member, _ in members(plan)][-3:] == [
        "e/0.7/10/checkpoints/ckpt-2.data-00000-of-00001",
        "e/0.7/10/checkpoints/ckpt-2.index",
        "e/0.7/10/aux_arrays.npz",
    ]
    assert (plan.experiment, plan.num_with_checkpoint, plan.problems, plan.recipe) == ("e", 4, [], packing.RECIPE)
    assert plan.num_bytes == len(tar_bytes(plan))
    runs.assert_holds(plan.table)


def test_names_are_recognised_by_the_reader_of_archives(zoo):
    parts = [names.classify(member.name) for member, _ in members(pack_plan.make(zoo, "e"))]
    assert [name.part for name in parts] == [
        "recipe",
        *(["checkpoint_data", "checkpoint_index", "aux_arrays"] * len(runs.RUNS)),
    ]
    assert {(name.subset_ratio, name.run_id) for name in parts[1:]} == set(runs.RUNS)


def test_nothing_of_this_machine_enters(zoo):
    for member, _ in members(pack_plan.make(zoo, "e")):
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.type, member.pax_headers) == (0o644, tarfile.REGTYPE, {})


def test_the_tar_file_ends_as_gnu_tar_ends_it(zoo):
    content = tar_bytes(pack_plan.make(zoo, "e"))
    assert len(content) % 10240 == 0
    assert not any(content[-1024:])


def test_every_run_and_every_record_begins_a_segment(zoo):
    plan = pack_plan.make(zoo, "e")
    assert [len(segment.sources) for segment in plan.segments] == [1, *([2, 1] * len(runs.RUNS)), 0]
    assert all(segment.start == 0 for segment in plan.segments)


def test_names_that_ustar_cannot_hold(tmp_path):
    experiment = "ä" * 120
    runs.add_run(tmp_path, 0.5, 0)
    (tmp_path / "e").rename(tmp_path / experiment)
    run = layout.Run(tmp_path, experiment, 0.5, 0)
    packing.add_checkpoint(run)
    found = members(pack_plan.make(tmp_path, experiment))
    assert [names.classify(member.name).relative for member, _ in found] == [
        "0.5/0/checkpoints/ckpt-2.data-00000-of-00001",
        "0.5/0/checkpoints/ckpt-2.index",
        "0.5/0/aux_arrays.npz",
    ]
    assert {names.classify(member.name).experiment for member, _ in found} == {experiment}
    assert [set(member.pax_headers) for member, _ in found] == [{"path"}] * 3
    assert [content for _, content in found] == [
        path.read_bytes() for path in [*packing.checkpoint_paths(run), run.aux_arrays_path]
    ]


def test_runs_without_checkpoint_are_packed_partial_ones_are_not(zoo):
    shutil.rmtree(packing.run_of(zoo).checkpoints_directory)
    packing.run_of(zoo, 0.3, 2).aux_arrays_path.unlink()
    plan = pack_plan.make(zoo, "e")
    assert (plan.table.num_runs, plan.num_with_checkpoint) == (3, 2)
    assert [(problem.run, problem.state) for problem in plan.problems] == [(packing.run_of(zoo, 0.3, 2), "partial")]
    assert not any(member.name.startswith("e/0.3/2/") for member, _ in members(plan))


def damage_record(zoo):
    packing.run_of(zoo).aux_arrays_path.write_bytes(b"not a zip")
    return packing.run_of(zoo).aux_arrays_path


def lose_half_a_checkpoint(zoo):
    packing.checkpoint_paths(packing.run_of(zoo))[1].unlink()
    return packing.run_of(zoo).checkpoints_directory


def flip(which):
    def damage(zoo):
        return packing.damage_checkpoint(packing.run_of(zoo), which)

    return damage


@pytest.mark.parametrize("damage", [damage_record, lose_half_a_checkpoint, flip(0), flip(1)])
def test_damaged_runs_are_refused_or_left_out(zoo, damage):
    path = damage(zoo)
    with pytest.raises(errors.DamagedFileError, match=rf"(?s)1 damaged run to mend, .* --skip_damaged:\n  {path}"):
        pack_plan.make(zoo, "e")
    plan = pack_plan.make(zoo, "e", skip_damaged=True)
    assert [problem.run for problem in plan.problems] == [packing.run_of(zoo)]
    assert runs.runs_of(plan.table) == [name for name in runs.RUNS if name != (0.7, 1)]
    assert not any(member.name.startswith("e/0.7/1/") for member, _ in members(plan))


def test_of_many_damaged_runs_ten_are_named(tmp_path):
    for run_id in range(12):
        run, _ = runs.add_run(tmp_path, 0.5, run_id)
        run.aux_arrays_path.write_bytes(b"")
    with pytest.raises(errors.DamagedFileError, match=r"(?s)12 damaged runs.*\n  and 2 more$") as caught:
        pack_plan.make(tmp_path, "e")
    assert str(caught.value).count("aux_arrays.npz:") == 10


def test_nothing_to_pack(tmp_path):
    layout.Run(tmp_path, "e", 0.5, 0).directory.mkdir(parents=True)
    with pytest.raises(errors.MissingFileError, match="e: no run to pack: 1 run folder, none"):
        pack_plan.make(tmp_path, "e")


def test_names_that_no_archive_may_hold(tmp_path):
    with pytest.raises(errors.InvalidValueError, match=r"experiment is 'a\\nb'.*rename"):
        pack_plan.make(tmp_path, "a\nb")


def test_sizes_and_labels_come_from_the_stored_table(zoo):
    labels = {"train_label": np.arange(runs.N), "test_label": np.arange(runs.M)}
    run_table.write(layout.run_table_path(zoo, "e"), runs.example_table(**labels))
    odd, _ = runs.add_run(zoo, 0.3, 5, num_train=30)
    plan = pack_plan.make(zoo, "e", skip_damaged=True)
    assert [problem.run for problem in plan.problems] == [odd]
    np.testing.assert_array_equal(plan.table.train_label, labels["train_label"])
    np.testing.assert_array_equal(plan.table.test_label, labels["test_label"])


def test_damaged_recipes_are_refused(zoo):
    files.write_text(layout.recipe_path(zoo, "e"), "{")
    with pytest.raises(errors.DamagedFileError, match=r"recipe\.json: not valid JSON"):
        pack_plan.make(zoo, "e")

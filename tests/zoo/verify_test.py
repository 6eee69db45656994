"""Every kind of damage to a zoo is found, named, and nothing else; held against damage done by hand."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo.archive import archives
from zoo import aux_arrays, checkpoints, errors, files, layout, run_table, run_table_update, verify
from zoo.archive import indexing

RUNS = ((0.5, 0), (0.5, 1), (0.7, 0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    zoo = archives.make_zoo(tmp_path_factory.mktemp("made"), experiment="e", runs=RUNS, recipe={"any": "thing"})
    run_table_update.update(zoo, "e")
    return zoo


@pytest.fixture
def zoo(made, tmp_path):
    shutil.copytree(made, tmp_path / "zoo")
    return tmp_path / "zoo"


def checkpoint_file(zoo, suffix, run_id=0):
    return next(layout.Run(zoo, "e", 0.5, run_id).checkpoints_directory.glob(f"*{suffix}"))


def only(report, state="damaged"):
    """The single finding there is."""
    (finding,) = report.findings
    assert finding.state == state
    return finding


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(bytes(content))


def test_a_sound_zoo(zoo):
    report = verify.verify_zoo(zoo, "e")
    assert report.findings == []
    assert (report.num_runs, report.num_records, report.num_checkpoints, report.num_compared) == (3, 3, 3, 0)
    assert report.to_json() == {
        "experiment": "e",
        "num_runs": 3,
        "num_records": 3,
        "num_checkpoints": 3,
        "num_compared": 0,
        "num_packed": 0,
        "findings": [],
    }


def test_nothing_is_written(zoo):
    before = {path: path.stat().st_mtime_ns for path in zoo.rglob("*")}
    verify.verify_zoo(zoo, "e")
    assert {path: path.stat().st_mtime_ns for path in zoo.rglob("*")} == before


def test_flipped_bits_of_checkpoints(zoo):
    path = checkpoint_file(zoo, ".data-00000-of-00001")
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(whole), size=10):
        path.write_bytes(whole)
        flip(path, int(position))
        report = verify.verify_zoo(zoo, "e")
        finding = only(report)
        assert finding.run == layout.Run(zoo, "e", 0.5, 0)
        assert finding.path == str(finding.run.checkpoint_prefix(2))
        assert str(path) in finding.reason
        assert (report.num_checkpoints, report.count("damaged"), report.count("partial")) == (2, 1, 0)


def test_a_damaged_index_of_a_checkpoint(zoo):
    path = checkpoint_file(zoo, ".index")
    flip(path, 100)
    assert str(path) in only(verify.verify_zoo(zoo, "e")).reason


def test_half_and_unreadable_checkpoints(zoo):
    checkpoint_file(zoo, ".index").unlink()
    finding = only(verify.verify_zoo(zoo, "e"))
    assert "ckpt-2 lacks its .index or .data file" in finding.reason


@pytest.mark.skipif(not pathlib.Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_files_that_the_disk_does_not_give_back(zoo):
    path = checkpoint_file(zoo, ".data-00000-of-00001")
    path.unlink()
    path.symlink_to("/proc/self/mem")
    report = verify.verify_zoo(zoo, "e")
    assert {finding.run for finding in report.findings} == {layout.Run(zoo, "e", 0.5, 0)}
    assert any("check the path and the disk" in finding.reason for finding in report.findings)


def test_a_flipped_bit_of_a_record_that_the_table_knows_unchanged(zoo):
    path = layout.Run(zoo, "e", 0.7, 0).aux_arrays_path
    status = path.stat()
    flip(path, path.stat().st_size // 2)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = verify.verify_zoo(zoo, "e")
    assert str(path) in only(report).reason
    assert report.num_records == 2


def test_partial_runs_and_unknown_files(zoo):
    layout.run_table_path(zoo, "e").unlink()
    layout.Run(zoo, "e", 0.7, 0).aux_arrays_path.unlink()
    (zoo / "e" / "notes.txt").touch()
    report = verify.verify_zoo(zoo, "e")
    assert [(finding.state, finding.path) for finding in report.findings] == [
        ("partial", str(zoo / "e" / "0.7" / "0")),
        ("unknown", str(zoo / "e" / "notes.txt")),
    ]
    assert json.loads(json.dumps(report.to_json()))["findings"][0]["subset_ratio"] == 0.7


def test_unknown_files_in_the_folder_of_a_run_are_its_own(zoo):
    (layout.Run(zoo, "e", 0.5, 1).checkpoints_directory / "core").touch()
    (layout.Run(zoo, "e", 0.5, 1).directory / ".hidden").touch()
    (zoo / "e" / "0.5" / "core").touch()
    (zoo / "e" / "0.7" / "12").touch()
    report = verify.verify_zoo(zoo, "e")
    assert [(finding.run, finding.path, finding.state) for finding in report.findings] == [
        (layout.Run(zoo, "e", 0.5, 1), str(zoo / "e" / "0.5" / "1" / "checkpoints" / "core"), "unknown"),
        (None, str(zoo / "e" / "0.5" / "core"), "unknown"),
        (None, str(zoo / "e" / "0.7" / "12"), "unknown"),
    ]
    assert report.findings[0].reason.endswith("core: no part of a zoo")


@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_record_that_is_gone_while_its_row_is_there(zoo, whole_folder):
    run = layout.Run(zoo, "e", 0.5, 1)
    if whole_folder:
        shutil.rmtree(run.directory)
    else:
        run.aux_arrays_path.unlink()
    report = verify.verify_zoo(zoo, "e")
    finding = only(report, "partial")
    assert (finding.run, finding.path) == (run, str(run.aux_arrays_path))
    assert "gone, only its row in run_table.npz is left; put the run back" in finding.reason
    assert (report.num_records, report.num_packed) == (2, 0)


def test_rows_that_were_never_read_from_a_file_here(zoo):
    path = layout.run_table_path(zoo, "e")
    table = run_table.read(path)
    table.source_mtime_ns[1] = 0
    run_table.write(path, table)
    shutil.rmtree(layout.Run(zoo, "e", 0.5, 1).directory)
    report = verify.verify_zoo(zoo, "e")
    assert (report.num_runs, report.num_records, report.num_packed, report.findings) == (2, 2, 1, [])


def test_a_table_that_is_kept_alone(zoo):
    for ratio in ("0.5", "0.7"):
        shutil.rmtree(zoo / "e" / ratio)
    report = verify.verify_zoo(zoo, "e")
    assert (report.num_runs, report.num_records, report.num_packed, report.findings) == (0, 0, 3, [])


def test_what_would_be_read(zoo):
    whole = verify.reading(zoo, "e")
    sizes = [path.stat().st_size for path in zoo.rglob("*") if path.is_file()]
    assert whole == verify.Reading(3, 3, 3, len(sizes), sum(sizes), 0)
    make_index(zoo)
    layout.Run(zoo, "e", 0.5, 0).aux_arrays_path.unlink()
    checkpoint_file(zoo, ".index", run_id=1).unlink()
    (zoo / "e" / "core").touch()
    part = verify.reading(zoo, "e")
    assert (part.num_runs, part.num_records, part.num_checkpoints, part.num_files) == (3, 2, 2, len(sizes) - 1)
    assert part.num_compared == verify.verify_zoo(zoo, "e").num_compared == 8
    with pytest.raises(errors.MissingFileError, match="check the name of the experiment"):
        verify.reading(zoo, "none")


def test_a_damaged_recipe(zoo):
    layout.recipe_path(zoo, "e").write_text("{")
    finding = only(verify.verify_zoo(zoo, "e"))
    assert (finding.run, finding.path) == (None, str(zoo / "e"))
    assert "recipe.json: not valid JSON" in finding.reason


def changed_table(zoo, change_sha256=lambda sha256: None):
    """The run table with one bit of run 0.5/1 turned over."""
    path = layout.run_table_path(zoo, "e")
    table = run_table.read(path)
    table.train_correctness_bits[1, 0] ^= 1 << 7
    change_sha256(table.source_sha256[1])
    run_table.write(path, table)


def test_a_row_that_its_own_source_contradicts(zoo):
    changed_table(zoo)
    finding = only(verify.verify_zoo(zoo, "e"))
    assert finding.run == layout.Run(zoo, "e", 0.5, 1)
    assert "the run table says otherwise in train_correctness_bits; delete" in finding.reason


def test_a_row_without_source_that_the_record_contradicts(zoo):
    changed_table(zoo, lambda sha256: sha256.fill(0))
    assert "delete" in only(verify.verify_zoo(zoo, "e")).reason


def test_a_row_whose_record_was_replaced(zoo):
    changed_table(zoo, lambda sha256: sha256.fill(7))
    finding = only(verify.verify_zoo(zoo, "e"), "outdated")
    assert "compute_scores brings the table up to date" in finding.reason
    run_table_update.update(zoo, "e")
    assert verify.verify_zoo(zoo, "e").findings


def test_a_record_stored_in_another_way_is_the_same(zoo):
    path = layout.Run(zoo, "e", 0.5, 1).aux_arrays_path
    with np.load(path) as stored:
        np.savez_compressed(path, **stored)
    assert verify.verify_zoo(zoo, "e").findings == []


def test_the_table_of_another_experiment(zoo):
    path = layout.run_table_path(zoo, "e")
    run_table.write(path, dataclasses.replace(run_table.read(path), experiment="other"))
    assert "the table of experiment other" in only(verify.verify_zoo(zoo, "e")).reason


def model_of(shapes):
    model = tf.Module()
    model.layer = tf.Module()
    for name, shape in shapes.items():
        setattr(model.layer, name, tf.Variable(tf.zeros(shape)))
    return model


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ({"w": (1800, 1)}, "1 only there: model/layer/b$"),
        ({"w": (1800, 1), "b": (200,), "c": ()}, "1 only here: model/layer/c$"),
        ({"w": (1, 1800), "b": (200,)}, r"1 of another shape or dtype: model/layer/w \(.*1, 1800.*there .*1800, 1"),
    ],
)
def test_checkpoints_with_other_variables(zoo, shapes, match):
    run = layout.Run(zoo, "e", 0.5, 1)
    checkpoints.write(model_of(shapes), run.checkpoint_prefix(2), 2, 20)
    report = verify.verify_zoo(zoo, "e")
    (finding,) = [item for item in report.findings if "other variables" in item.reason]
    assert (finding.run, finding.state) == (run, "damaged")
    assert str(layout.Run(zoo, "e", 0.5, 0).checkpoint_prefix(2)) in finding.reason
    assert report.num_checkpoints == 2
    assert re.search(match, finding.reason.removesuffix("; fetch the run again, or train it anew"))


def test_checkpoints_without_variables(zoo):
    for run in layout.runs(zoo, "e"):
        checkpoints.write(tf.Module(), run.checkpoint_prefix(2), 2, 20)
    report = verify.verify_zoo(zoo, "e")
    assert report.count("damaged") == 3
    assert all("no variable below model/" in finding.reason for finding in report.findings)


def test_few_checkpoints_with_variables_are_not_the_odd_ones(zoo):
    bare = [layout.Run(zoo, "e", 0.5, run_id) for run_id in range(2)]
    for run in bare:
        checkpoints.write(tf.Module(), run.checkpoint_prefix(2), 2, 20)
    found = [item for item in verify.verify_zoo(zoo, "e").findings if "variable" in item.reason]
    assert [item.run for item in found] == bare
    assert all("no variable below model/" in item.reason for item in found)


def test_a_zoo_without_checkpoints_or_table(zoo):
    layout.run_table_path(zoo, "e").unlink()
    for run in layout.runs(zoo, "e"):
        shutil.rmtree(run.checkpoints_directory)
    report = verify.verify_zoo(zoo, "e")
    assert (report.num_records, report.num_checkpoints, report.findings) == (3, 0, [])


def test_progress_of_every_stage(zoo):
    make_index(zoo)
    calls = []
    verify.verify_zoo(zoo, "e", progress=lambda *call: calls.append(call))
    assert calls[:3] == [("records", 1, 3), ("records", 2, 3), ("records", 3, 3)]
    assert calls[3:6] == [("checkpoints", 1, 3), ("checkpoints", 2, 3), ("checkpoints", 3, 3)]
    assert calls[-1] == ("archive", 10, 10)


def test_no_such_experiment(tmp_path):
    with pytest.raises(errors.MissingFileError, match="check the name of the experiment"):
        verify.verify_zoo(tmp_path, "e")


def make_index(zoo, experiment="e"):
    """Packs an experiment as it is now, and puts the index of the archive into the zoo."""
    archive = archives.write_archive(zoo, experiment, zoo.parent / f"{experiment}.tar.gz")
    path = layout.archive_index_path(zoo, "e")
    indexing.make(str(archive), indexing.Places(path))
    return path


def test_files_are_those_of_the_archive(zoo):
    make_index(zoo)
    run_table_update.update(zoo, "e", train_label=np.zeros(60, int))  # the table may change
    report = verify.verify_zoo(zoo, "e")
    assert (report.num_compared, report.findings) == (10, [])


def test_sound_files_that_are_not_those_of_the_archive(zoo):
    make_index(zoo)
    run = layout.Run(zoo, "e", 0.5, 1)
    aux = aux_arrays.read(run.aux_arrays_path)
    aux.correctness_test[3] ^= True
    aux_arrays.write(run.aux_arrays_path, aux)
    files.write_json(layout.recipe_path(zoo, "e"), {"any": "other thing"})
    report = verify.verify_zoo(zoo, "e")
    of_archive = {item.path: item for item in report.findings if "in the archive" in item.reason}
    assert of_archive.keys() == {str(run.aux_arrays_path), str(layout.recipe_path(zoo, "e"))}
    record = of_archive[str(run.aux_arrays_path)]
    assert (record.run, record.state) == (run, "damaged")
    assert "CRC32" in record.reason
    recipe = of_archive[str(layout.recipe_path(zoo, "e"))]
    assert recipe.run is None
    assert "bytes, in the archive" in recipe.reason


def test_members_that_are_not_here_are_no_damage(zoo):
    make_index(zoo)
    shutil.rmtree(layout.Run(zoo, "e", 0.5, 1).checkpoints_directory)
    report = verify.verify_zoo(zoo, "e")
    assert (report.num_compared, report.findings) == (8, [])


def test_an_index_of_another_archive_and_a_damaged_one(zoo):
    shutil.copytree(zoo / "e", zoo / "other")
    path = make_index(zoo, experiment="other")
    assert "an index of other, not of e" in only(verify.verify_zoo(zoo, "e"), "unknown").reason
    path.write_bytes(b"no database")
    finding = only(verify.verify_zoo(zoo, "e"))
    assert finding.path == str(path)
    assert "not a sound index" in finding.reason

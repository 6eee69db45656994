"""Where things lie, and that only what is named like a run is taken for one."""

import pathlib

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from zoo import errors, layout


@pytest.mark.parametrize(
    ("ratio", "name"),
    [(0.7, "0.7"), (0.1, "0.1"), (0.25, "0.25"), (np.float64(0.5), "0.5"), (1e-5, "0.00001"), (0.1 + 0.2, None)],
)
def test_ratio_name(ratio, name):
    assert layout.ratio_name(ratio) == (name or "0.30000000000000004")


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_ratio_names_say_the_ratio_exactly(ratio):
    run = layout.Run(pathlib.Path("zoo"), "e", ratio, 3)
    assert float(layout.ratio_name(ratio)) == ratio
    assert layout.run_from_directory(run.directory) == run


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_ratios_outside(ratio):
    with pytest.raises(errors.InvalidValueError, match="expected a number above 0 and below 1"):
        layout.ratio_name(ratio)
    with pytest.raises(errors.InvalidValueError, match="subset_ratio"):
        layout.Run(pathlib.Path("zoo"), "e", ratio, 0)


def test_names_that_are_a_ratio():
    assert layout.parse_ratio("0.25") == 0.25
    for name in ("0.70", ".7", "1.0", "0.0", "0", "scores", "٠.٥", "0.7/"):
        assert layout.parse_ratio(name) is None


def test_names_that_are_a_run_id():
    assert [layout.parse_run_id(name) for name in ("0", "7", "4000")] == [0, 7, 4000]
    for name in ("", "07", "-1", "+1", "1.0", "٣", "1\n", "9" * 19):
        assert layout.parse_run_id(name) is None


def test_names_that_are_a_checkpoint_file():
    assert layout.parse_checkpoint_file("ckpt-160.index") == (160, ".index")
    assert layout.parse_checkpoint_file("ckpt-0.data-00000-of-00001") == (0, ".data-00000-of-00001")
    for name in (
        "checkpoint",
        "ckpt-1",
        "ckpt-01.index",
        "ckpt-1.index.tmp",
        ".ckpt-1.index",
        "ckpt-1.data-00000-of-00002",
    ):
        assert layout.parse_checkpoint_file(name) is None


def test_paths_of_a_run():
    run = layout.Run(pathlib.Path("zoo"), "cifar10-inception", 0.7, 12)
    assert run.directory == pathlib.Path("zoo/cifar10-inception/0.7/12")
    assert run.aux_arrays_path == run.directory / "aux_arrays.npz"
    assert run.checkpoints_directory == run.directory / "checkpoints"
    assert run.checkpoint_prefix(160) == run.directory / "checkpoints" / "ckpt-160"


def test_bad_runs():
    with pytest.raises(errors.InvalidValueError, match="run_id is -1"):
        layout.Run(pathlib.Path("zoo"), "e", 0.5, -1)
    with pytest.raises(errors.InvalidValueError, match="epoch is -1"):
        layout.Run(pathlib.Path("zoo"), "e", 0.5, 1).checkpoint_prefix(-1)


def test_paths_of_an_experiment():
    zoo = pathlib.Path("zoo")
    assert layout.experiment_directory("zoo", "e") == zoo / "e"
    assert layout.recipe_path("zoo", "e") == zoo / "e" / "recipe.json"
    assert layout.run_table_path("zoo", "e") == zoo / "e" / "run_table.npz"
    assert layout.scores_directory("zoo", "e") == zoo / "e" / "scores"
    assert layout.report_directory("zoo", "e") == zoo / "e" / "report"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/", "a\\b", "a\0"])
def test_names_that_are_no_experiment(name):
    for function in (layout.experiment_directory, layout.recipe_path, layout.run_table_path, layout.runs):
        with pytest.raises(errors.InvalidValueError, match="expected the name of one folder"):
            function("zoo", name)
    with pytest.raises(errors.InvalidValueError, match="expected the name of one folder"):
        layout.Run(pathlib.Path("zoo"), name, 0.5, 0)


def make(root, *names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def test_experiments(tmp_path):
    make(tmp_path, "b/0.5/", "a/recipe.json", "c/run_table.npz", "empty/", "other/x/", "file", "none/1.5/0/")
    make(tmp_path, ".a.tmp-1-2/0.5/", ".hidden/0.5/", "back\\slash/0.5/")
    assert layout.experiments(tmp_path) == ["a", "b", "c"]


def test_experiments_of_a_missing_zoo(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such folder"):
        layout.experiments(tmp_path / "none")


def test_runs_are_sorted_by_number_and_others_are_ignored(tmp_path):
    make(tmp_path, "e/0.5/10/", "e/0.5/9/", "e/0.25/0/", "e/0.05/3/", "e/0.7/")
    make(tmp_path, "e/0.5/01/", "e/0.5/x/", "e/0.5/-1/", "e/0.5/2", "e/0.50/1/", "e/1.0/1/", "e/0.0/1/", "e/.5/1/")
    make(tmp_path, "e/0.5/.4.tmp-1-2/", "e/.0.5.tmp-1-2/4/", "e/٠.٥/1/", "e/0.5/٣/", "e/scores/1/", "f/0.5/1/")
    found = [(run.subset_ratio, run.run_id) for run in layout.runs(tmp_path, "e")]
    assert found == [(0.05, 3), (0.25, 0), (0.5, 9), (0.5, 10)]
    assert [run.run_id for run in layout.runs(str(tmp_path), "e", 0.5)] == [9, 10]
    assert layout.runs(tmp_path, "e", 0.7) == []
    assert layout.runs(tmp_path, "none") == []
    with pytest.raises(errors.InvalidValueError, match="subset_ratio"):
        layout.runs(tmp_path, "e", 7)


def test_run_from_directory(tmp_path, monkeypatch):
    run = layout.Run(tmp_path, "e", 0.5, 7)
    make(tmp_path, "e/0.5/7/")
    assert layout.run_from_directory(run.directory) == run
    assert layout.run_from_directory(str(run.directory) + "/") == run
    assert layout.run_from_directory("e/0.5/7").directory == pathlib.Path("e/0.5/7")
    monkeypatch.chdir(run.directory)
    assert layout.run_from_directory(".") == run
    assert layout.run_from_directory("../7") == run


@pytest.mark.parametrize(
    "path", ["/", "/0.5/3", "/zoo/e/0.5/03", "/zoo/e/5/3", "/zoo/e/0.5", "/zoo/e/0.5/3/checkpoints"]
)
def test_what_is_no_run_folder(path):
    with pytest.raises(errors.InvalidValueError, match="expected a run folder"):
        layout.run_from_directory(path)


def test_checkpoints(tmp_path):
    run = layout.Run(tmp_path, "e", 0.5, 7)
    assert layout.checkpoint_epochs(run) == []
    with pytest.raises(errors.MissingFileError, match=r"no complete checkpoint, expected ckpt-<epoch>\.index"):
        layout.latest_checkpoint(run)
    data = "data-00000-of-00001"
    make(run.checkpoints_directory, "ckpt-9.index", f"ckpt-9.{data}", "ckpt-10.index", f"ckpt-10.{data}")
    make(run.checkpoints_directory, "ckpt-11.index", f"ckpt-12.{data}", "ckpt-013.index", f"ckpt-013.{data}")
    make(
        run.checkpoints_directory, ".ckpt-14.tmp-1-2.index", f".ckpt-14.tmp-1-2.{data}", "ckpt-15.index/", "checkpoint"
    )
    assert layout.checkpoint_epochs(run) == [9, 10]
    index_sizes, data_sizes = layout.checkpoint_sizes(run)
    assert index_sizes.keys() ^ data_sizes.keys() == {11, 12}
    assert layout.latest_checkpoint(run) == run.checkpoints_directory / "ckpt-10"


def test_checkpoint_sizes(tmp_path):
    run = layout.Run(tmp_path, "e", 0.5, 7)
    assert layout.checkpoint_sizes(run) == ({}, {})
    make(run.checkpoints_directory, "ckpt-9.index", "ckpt-10.index", "checkpoint", "ckpt-11.index/")
    (run.checkpoints_directory / "ckpt-9.data-00000-of-00001").write_bytes(bytes(5))
    assert layout.checkpoint_sizes(run) == ({9: 0, 10: 0}, {9: 5})


def test_zoos_in_a_store_are_to_be_copied_first():
    with pytest.raises(errors.MissingFileError, match=r"^gs://b/zoo: only train_runs works on .* storage cp -r gs://b"):
        layout.experiments("gs://b/zoo")

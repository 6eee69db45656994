"""Files of datamodels of a small zoo: contents, rerun, kill, growth, margins, refusals, damage."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from heldout.scoring import datamodel_files, datamodel_path, datamodels
from zoo import aux_arrays, errors, layout, npz, run_table_update

_ROOT = pathlib.Path(__file__).parents[3]
N, M = 30, 40
_OPTIONS = datamodels.Options(num_lambdas=12, lambda_ratio=0.05, num_folds=3, tolerance=1e-5)


def write_runs(zoo, run_ids, with_margins=(), ratio=0.7):
    """Runs whose margin on test example j is raised by training example j, where there is one, and noise."""
    for run_id in run_ids:
        generator = np.random.default_rng([int(10 * ratio), run_id])
        mask = np.isin(np.arange(N), generator.permutation(N)[: round(ratio * N)])
        train = 2.0 * mask + generator.normal(size=N)
        test = 1.5 * mask[np.arange(M) % N] - 1 + generator.normal(size=M)
        test[5] = 100 if run_id == 2 else test[5]
        stored = (train.astype(np.float16), test.astype(np.float16)) if run_id in with_margins else None
        aux = aux_arrays.from_masks(mask, train > 0, test > 0, stored)
        aux_arrays.write(layout.Run(zoo, "demo", ratio, run_id).aux_arrays_path, aux)


@pytest.fixture
def config(tmp_path):
    write_runs(tmp_path / "zoo", range(40), with_margins=range(40))
    return datamodel_files.DatamodelConfig(str(tmp_path / "zoo"), "demo", options=_OPTIONS)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_file_holds_the_fits(config):
    done = []
    summary = datamodel_files.fit_datamodels(config, lambda count, total: done.append((count, total)))
    assert (summary.up_to_date, summary.num_fitted, summary.num_runs_without) == (False, M, 0)
    assert summary.path == pathlib.Path(config.zoo) / "demo" / "scores" / "datamodels-0.7.npz"
    assert names(summary.path.parent) == ["datamodels-0.7.npz"]
    assert done[0] == (0, M)
    assert done[-1] == (M, M)
    saved = datamodel_files.load(summary.path)
    table, _ = run_table_update.update(config.zoo, "demo")
    masks = datamodel_path.design(table.subset_mask_bits, N)
    assert saved.provenance["output_kind"] == "margin"
    np.testing.assert_array_equal(saved.target_index, np.arange(M))
    assert saved.num_clipped.tolist() == [int(j == 5) for j in range(M)]
    for j in (0, 5, 17, M - 1):
        margin = [
            aux_arrays.read(layout.Run(pathlib.Path(config.zoo), "demo", 0.7, run_id).aux_arrays_path).test_margin()[j]
            for run_id in range(40)
        ]
        expected = datamodels.fit(masks, np.clip(np.array(margin, float), -20, 20), _OPTIONS)
        for field in dataclasses.fields(expected):
            found = getattr(saved.models[j], field.name)
            np.testing.assert_array_equal(found, getattr(expected, field.name), err_msg=field.name)
    strongest = [model.train_index[np.argmax(model.weight)] for model in saved.models if len(model.weight)]
    assert np.mean(strongest == np.array([j % N for j, model in enumerate(saved.models) if len(model.weight)])) > 0.8


def test_correctness_and_targets_of_the_training_set(config):
    chosen = dataclasses.replace(config, output_kind="correctness", split="train", targets=(4, 7))
    saved = datamodel_files.load(datamodel_files.fit_datamodels(chosen).path)
    table, _ = run_table_update.update(config.zoo, "demo")
    assert saved.target_index.tolist() == [4, 5, 6]
    assert saved.provenance["output_kind"] == "correctness"
    assert saved.num_clipped.tolist() == [0, 0, 0]
    for model, column in zip(saved.models, table.train_correctness(4, 7).T, strict=True):
        expected = datamodels.fit(datamodel_path.design(table.subset_mask_bits, N), column.astype(float), _OPTIONS)
        np.testing.assert_array_equal(model.weight, expected.weight)


def test_the_same_command_again_does_nothing_and_new_runs_are_fitted(config):
    path = datamodel_files.fit_datamodels(config).path
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = dataclasses.replace(config, threads=2, memory_limit_mb=999)
    assert datamodel_files.fit_datamodels(again).up_to_date
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    write_runs(pathlib.Path(config.zoo), range(40, 44), with_margins=range(44))
    assert datamodel_files.fit_datamodels(config).num_fitted == M
    assert datamodel_files.load(path).models[0].num_runs == 44


def test_a_kill_loses_a_block_at_most_and_leaves_the_same_bytes(config, tmp_path):
    untouched = dataclasses.replace(config, output=str(tmp_path / "untouched"))
    expected = datamodel_files.fit_datamodels(untouched).path.read_bytes()
    killed = dataclasses.replace(config, output=str(tmp_path / "killed"), threads=2)
    code = f"""
import json, os, signal
from heldout.scoring import datamodel_files, datamodels
def kill(done, total):
    if done == 35:
        os.kill(os.getpid(), signal.SIGKILL)
values = json.loads({json.dumps(dataclasses.asdict(killed))!r})
options = datamodels.Options(**values.pop("options"))
datamodel_files.fit_datamodels(datamodel_files.DatamodelConfig(**values, options=options), kill)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "killed"
    assert names(folder) == ["datamodels-0.7-blocks"]
    assert names(folder / "datamodels-0.7-blocks") == ["00000000.npz", "00000016.npz"]
    (folder / "datamodels-0.7-blocks" / "00000016.npz").write_bytes(b"damaged")
    summary = datamodel_files.fit_datamodels(killed)
    assert summary.num_fitted == M - 16
    assert summary.path.read_bytes() == expected
    assert names(folder) == ["datamodels-0.7.npz"]


def test_another_configuration_is_refused_unless_it_is_to_replace(config):
    path = datamodel_files.fit_datamodels(config).path
    other = dataclasses.replace(config, targets=(0, 3))
    with pytest.raises(errors.MismatchError, match=r'"targets": null(.|\n)*"targets": \[0, 3\](.|\n)*--overwrite'):
        datamodel_files.fit_datamodels(other)
    assert datamodel_files.fit_datamodels(dataclasses.replace(other, overwrite=True)).num_fitted == 3
    assert len(datamodel_files.load(path).models) == 3
    path.write_bytes(b"damaged")
    assert datamodel_files.fit_datamodels(config).num_fitted == M


def test_margins_where_all_runs_have_them_and_runs_without_are_counted(tmp_path):
    write_runs(tmp_path, range(30), with_margins=range(5, 30))
    config = datamodel_files.DatamodelConfig(str(tmp_path), "demo", targets=(0, 2), options=_OPTIONS)
    summary = datamodel_files.fit_datamodels(config)
    assert summary.num_runs_without == 0
    assert datamodel_files.load(summary.path).provenance["output_kind"] == "correctness"
    summary = datamodel_files.fit_datamodels(dataclasses.replace(config, output_kind="margin", overwrite=True))
    assert summary.num_runs_without == 5
    saved = datamodel_files.load(summary.path)
    assert saved.provenance["output_kind"] == "margin"
    assert [model.num_runs for model in saved.models] == [25, 25]


def test_an_experiment_without_margins_says_how_to_get_them(tmp_path):
    write_runs(tmp_path, range(8))
    config = datamodel_files.DatamodelConfig(str(tmp_path), "demo", output_kind="margin", options=_OPTIONS)
    with pytest.raises(
        errors.InvalidValueError, match=r"no run of demo at ratio 0\.7 has margins; train with --margins"
    ):
        datamodel_files.fit_datamodels(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "validation"}, "split: got 'validation', expected one of train, test"),
        ({"output_kind": "loss"}, "output_kind: got 'loss', expected one of auto, margin, correctness"),
        ({"threads": 0}, "threads: got 0, expected at least 1"),
        ({"memory_limit_mb": 0}, "memory_limit_mb: got 0"),
        ({"targets": (0, 41)}, "targets: got 0:41, expected a range that is not empty within 0:40, the test split"),
        ({"targets": (3, 3)}, "targets: got 3:3"),
        ({"subset_ratio": 0.5}, "subset_ratio is 0.5, but demo has runs at 0.7"),
        ({"options": datamodels.Options(num_folds=1)}, "num_folds: got 1"),
    ],
)
def test_values_that_cannot_be_meant_are_named(config, changes, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        datamodel_files.fit_datamodels(dataclasses.replace(config, **changes))


def test_one_of_several_ratios_is_to_be_named(config):
    write_runs(pathlib.Path(config.zoo), range(12), ratio=0.5)
    with pytest.raises(errors.InvalidValueError, match=r"demo has runs at 0\.5, 0\.7; name one of them"):
        datamodel_files.fit_datamodels(config)


def test_a_memory_limit_that_is_too_low_says_what_is_needed(config):
    options = dataclasses.replace(_OPTIONS, num_lambdas=10_000)
    with pytest.raises(
        errors.InvalidValueError, match="memory_limit_mb: got 1, datamodels from 40 runs on 30 examples"
    ):
        datamodel_files.fit_datamodels(dataclasses.replace(config, memory_limit_mb=1, options=options))


def damaged(path, **changes):
    with np.load(path) as stored:
        members = {**stored, **{name: np.asarray(value) for name, value in changes.items()}}
    npz.write(path, members)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, expected 1"),
        ({"provenance": "[]"}, "its provenance is no JSON object with num_train"),
        ({"weight": np.zeros(1)}, "its arrays do not fit together"),
        ({"indptr": np.zeros(4, np.int64)}, "its arrays do not fit together"),
        ({"penalty": np.zeros(2)}, "its arrays do not fit together"),
        ({"target_index": np.int64(1)}, "its arrays do not fit together"),
    ],
)
def test_damage_is_told(config, changes, message):
    path = datamodel_files.fit_datamodels(dataclasses.replace(config, targets=(0, 3))).path
    damaged(path, **changes)
    with pytest.raises(errors.DamagedFileError, match=message):
        datamodel_files.load(path)


def test_an_index_beyond_the_training_set_is_told(config):
    path = datamodel_files.fit_datamodels(dataclasses.replace(config, targets=(0, 3))).path
    with np.load(path) as stored:
        train_index = stored["train_index"]
    damaged(path, train_index=np.where(train_index == train_index.max(), N, train_index))
    with pytest.raises(errors.DamagedFileError, match="its arrays do not fit together"):
        datamodel_files.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"none\.npz"):
        datamodel_files.load(tmp_path / "none.npz")

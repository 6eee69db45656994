"""Score files of a small zoo on disk: contents, rerun, growth, kill, refusals, labels."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from heldout.datasets import registry
from heldout.running import runners
from heldout.scoring import (
    influence_files,
    influence_matrix,
    joint_counts,
    published_formats,
    saved_scores,
    score_files,
    scores,
)
from zoo import aux_arrays, errors, layout, npz, run_table

N, M = 40, 17
RATIOS = (0.3, 0.7)
TRAIN_LABEL, TEST_LABEL = np.arange(N) % 3, np.arange(M) % 3


def write_runs(zoo, run_ids, ratios=RATIOS):
    """Runs that memorize the first ten training examples, each of which helps the test example of its number."""
    for ratio in ratios:
        for run_id in run_ids:
            generator = np.random.default_rng([int(10 * ratio), run_id])
            mask = np.isin(np.arange(N), generator.permutation(N)[: int(ratio * N)])
            train = generator.random(N) < np.where(mask, 0.98, np.where(np.arange(N) < 10, 0.1, 0.9))
            test = generator.random(M) < np.where(mask[:M] & (np.arange(M) < 10), 0.95, 0.2)
            run = layout.Run(zoo, "demo", ratio, run_id)
            aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, train, test))


def write_dataset(path, train_label=TRAIN_LABEL, test_label=TEST_LABEL):
    images = {
        "train__image": np.zeros((len(train_label), 2, 2), np.uint8),
        "test__image": np.zeros((M, 2, 2), np.uint8),
    }
    np.savez(path, **images, train__label=train_label, test__label=test_label)
    return f"npz:{path}"


@pytest.fixture
def config(tmp_path):
    write_runs(tmp_path / "zoo", range(30))
    return score_files.ScoreConfig(
        zoo=str(tmp_path / "zoo"), experiment="demo", num_draws=20, dataset=write_dataset(tmp_path / "data.npz")
    )


def state(directory):
    """Content and time of modification of every file."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def contents(directory):
    return {name: content for name, (content, _) in state(directory).items()}


def table_of(config):
    return run_table.read(layout.run_table_path(config.zoo, config.experiment))


def test_saved_scores_are_the_scores(config):
    summary = score_files.compute_scores(config)
    assert not summary.up_to_date
    assert (summary.num_runs, summary.subset_ratios, summary.problems) == (60, RATIOS, ())
    table, saved = table_of(config), score_files.load_scores(summary.directory)
    assert (saved.experiment, saved.schema_version) == ("demo", 2)
    assert saved.provenance["table_digest"] == table.digest()
    assert saved.provenance["num_runs"] == 60
    assert saved.provenance["dataset"] == " ".join(registry.identify(config.dataset))
    np.testing.assert_array_equal(saved.train_label, TRAIN_LABEL)
    np.testing.assert_array_equal(saved.test_label, TEST_LABEL)
    assert tuple(saved.ratios) == RATIOS
    for ratio, found in saved.ratios.items():
        runs = table.select(ratio)
        for name, expected in vars(scores.memorization(table, ratio)).items():
            np.testing.assert_array_equal(getattr(found.memorization, name), expected)
        dense = influence_matrix.subset_influence(table, ratio)
        assert isinstance(found.subset_influence, np.memmap)
        np.testing.assert_array_equal(found.subset_influence, dense.values)
        found_errors = found.influence_standard_error(np.arange(N)[:, None], np.arange(M), found.subset_influence)
        np.testing.assert_allclose(found_errors, dense.standard_error, rtol=1e-6, atol=1e-9)
        mask, train, test = runs.subset_mask(), runs.train_correctness(), runs.test_correctness()
        np.testing.assert_allclose(found.test_accuracy, test.mean(axis=0))
        assert found.mean_accuracy_in == pytest.approx(train[mask].mean())
        assert found.mean_accuracy_heldout == pytest.approx(train[~mask].mean())
        assert found.mean_test_accuracy == pytest.approx(test.mean())
        assert (found.num_runs, found.memorized.threshold, found.memorized.num_draws) == (30, 0.25, 20)
        assert found.memorized.count == np.sum(found.memorization.values >= 0.25)
        difference = found.accuracy_in - found.accuracy_heldout
        np.testing.assert_array_equal(difference, found.memorization.values)
    for name, expected in vars(scores.consistency(table)).items():
        np.testing.assert_array_equal(getattr(saved.consistency, name), expected)


def test_published_formats_and_tables(config):
    directory = score_files.compute_scores(config).directory
    saved = score_files.load_scores(directory)
    cscores = published_formats.read_cscores(directory / "published/cscores.npz", label=TRAIN_LABEL)
    np.testing.assert_array_equal(cscores.score, saved.consistency.score)
    for ratio, one in saved.ratios.items():
        classes = published_formats.read_class_influence(
            directory / f"published/class_influence-{ratio}.npz", train_label=TRAIN_LABEL, test_label=TEST_LABEL
        )
        np.testing.assert_array_equal(
            classes.subset_influence[2], one.subset_influence[np.ix_(TRAIN_LABEL == 2, TEST_LABEL == 2)]
        )
        pairs = published_formats.read_high_influence_pairs(directory / f"published/high_influence_pairs-{ratio}.npz")
        high = (one.subset_influence >= 0.15) & (one.memorization.values >= 0.25)[:, None]
        assert {*zip(pairs.train_index, pairs.test_index, strict=True)} == {*zip(*np.nonzero(high), strict=True)}
        assert {(i, i) for i in range(10)} <= {*zip(pairs.train_index, pairs.test_index, strict=True)}
        assert (np.diff(pairs.subset_influence) <= 0).all()
        np.testing.assert_array_equal(pairs.memorization, one.memorization.values[pairs.train_index])
    examples = pyarrow.parquet.read_table(directory / "examples.parquet").to_pydict()
    assert len(examples["train_index"]) == 2 * N
    assert examples["label"][N : N + 4] == [0, 1, 2, 0]
    assert examples["subset_ratio"] == [0.3] * N + [0.7] * N
    np.testing.assert_array_equal(examples["memorization"][N:], saved.ratios[0.7].memorization.values)
    np.testing.assert_array_equal(examples["consistency_score"][:N], saved.consistency.score)
    np.testing.assert_array_equal(examples["num_ratios"][N:], saved.consistency.num_ratios)
    pair_table = pyarrow.parquet.read_table(directory / "high_influence_pairs.parquet").to_pydict()
    assert {0.3, 0.7} == set(pair_table["subset_ratio"])
    for index, label in zip(pair_table["train_index"], pair_table["train_label"], strict=True):
        assert TRAIN_LABEL[index] == label


def test_labels_that_were_changed_on_purpose_are_told(config):
    clean = TRAIN_LABEL.copy()
    clean[[3, 5]] = (TRAIN_LABEL[[3, 5]] + 1) % 3
    path = layout.labels_path(config.zoo, "demo")
    npz.write(path, {"train_label": TRAIN_LABEL, "clean_train_label": clean})
    directory = score_files.compute_scores(config).directory
    saved = score_files.load_scores(directory)
    np.testing.assert_array_equal(np.flatnonzero(saved.is_changed), [3, 5])
    examples = pyarrow.parquet.read_table(directory / "examples.parquet").to_pydict()
    assert examples["clean_label"] == clean.tolist() * 2
    npz.write(path, {"train_label": clean, "clean_train_label": clean})
    other = dataclasses.replace(config, output=str(directory.parent / "other"))
    with pytest.raises(errors.MismatchError, match=r"labels\.npz: is of other labels than the run table"):
        score_files.compute_scores(other)


def test_csv_without_labels(config):
    config = dataclasses.replace(config, dataset=None, table_format="csv", subset_ratios=(0.7,))
    summary = score_files.compute_scores(config)
    with open(summary.directory / "examples.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == N
    assert {row["label"] for row in rows} == {""}
    assert float(rows[3]["memorization"]) == scores.memorization(table_of(config), 0.7).values[3]
    assert not (summary.directory / "published/cscores.npz").exists()
    assert score_files.load_scores(summary.directory).train_label is None
    assert summary.num_runs == 30


def test_no_data_is_nan_in_the_tables(tmp_path):
    write_runs(tmp_path / "zoo", range(1), ratios=(0.3,))
    config = score_files.ScoreConfig(str(tmp_path / "zoo"), "demo", num_draws=2)
    directory = score_files.compute_scores(config).directory
    examples = pyarrow.parquet.read_table(directory / "examples.parquet").to_pydict()
    assert np.isnan(examples["memorization"]).all()
    assert examples["label"] == [None] * N
    assert pyarrow.parquet.read_table(directory / "high_influence_pairs.parquet").num_rows == 0
    assert score_files.load_scores(directory).ratios[0.3].memorized.num_undefined == N


def test_the_same_command_does_nothing(config):
    directory = score_files.compute_scores(config).directory
    before = state(directory)
    other_limit = dataclasses.replace(config, memory_limit_mb=64, data_dir="/nowhere")
    for again in (config, other_limit, dataclasses.replace(config, overwrite=True)):
        assert score_files.compute_scores(again).up_to_date
        assert state(directory) == before


def test_new_runs_are_taken_in(config):
    directory = score_files.compute_scores(config).directory
    write_runs(pathlib.Path(config.zoo), range(30, 35))
    summary = score_files.compute_scores(config)
    assert (summary.up_to_date, summary.num_runs) == (False, 70)
    saved = score_files.load_scores(directory)
    assert saved.ratios[0.3].num_runs == 35
    np.testing.assert_array_equal(
        saved.ratios[0.3].subset_influence, influence_matrix.subset_influence(table_of(config), 0.3).values
    )


@pytest.mark.parametrize("matrix", ["yes", "no"])
def test_added_runs_give_the_bytes_of_a_fresh_computation(config, tmp_path, monkeypatch, matrix):
    config = dataclasses.replace(config, matrix=matrix)
    directory = score_files.compute_scores(config).directory
    write_runs(pathlib.Path(config.zoo), range(30, 35))
    counted = []
    of_runs = joint_counts.WordCounter.of_runs

    def count(runs):
        counted.append(runs.num_runs)
        return of_runs(runs)

    monkeypatch.setattr(joint_counts.WordCounter, "of_runs", staticmethod(count))
    score_files.compute_scores(config)
    # With the matrix only the runs that are new are counted.
    assert counted == ([5, 5] if matrix == "yes" else [35, 35])
    fresh = score_files.compute_scores(dataclasses.replace(config, output=str(tmp_path / "fresh"))).directory
    for name, content in contents(fresh).items():
        if name != saved_scores.CONFIG_NAME:
            assert contents(directory)[name] == content, name


def test_a_matrix_of_other_runs_is_not_built_upon(config, tmp_path):
    directory = score_files.compute_scores(config).directory
    write_runs(pathlib.Path(config.zoo), [3], ratios=(0.3,))
    run = layout.Run(pathlib.Path(config.zoo), "demo", 0.3, 3)
    aux = aux_arrays.read(run.aux_arrays_path)
    mask, train, test = aux.subset_mask(), aux.train_correctness(), ~aux.test_correctness()
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, train, test))
    score_files.compute_scores(config)
    np.testing.assert_array_equal(
        score_files.load_scores(directory).ratios[0.3].subset_influence,
        influence_matrix.subset_influence(table_of(config), 0.3).values,
    )


def test_a_missing_file_is_made_again(config):
    directory = score_files.compute_scores(config).directory
    before = contents(directory)
    for name in ("subset_influence-0.3.npy", "influence-0.3.npz"):
        (directory / name).unlink()
        kept = (directory / "subset_influence-0.7.npy").stat().st_mtime_ns
        assert not score_files.compute_scores(config).up_to_date
        assert contents(directory) == before
        assert (directory / "subset_influence-0.7.npy").stat().st_mtime_ns == kept


def test_room_on_the_disk_is_asked_for_what_is_not_there_yet(config, monkeypatch):
    asked = []
    monkeypatch.setattr(
        influence_files, "check_disk", lambda _, num_matrices, *sizes: asked.append((num_matrices, sizes))
    )
    directory = score_files.compute_scores(config).directory
    (directory / "subset_influence-0.3.npy").unlink()
    score_files.compute_scores(config)
    # Two are replaced, one after the other.
    score_files.compute_scores(dataclasses.replace(config, num_draws=21, overwrite=True))
    assert asked == [(2, (N, M)), (1, (N, M)), (1, (N, M))]


def test_what_a_killed_computation_of_another_ratio_left_goes(config):
    directory = config.directory
    for ratio in (0.3, 0.5):
        (directory / f".subset_influence-{ratio}.parts").mkdir(parents=True)
        (directory / f".subset_influence-{ratio}.parts" / "tile-000000000.npz").write_bytes(b"x")
        (directory / f".subset_influence-{ratio}.npy.part").write_bytes(b"x")
    score_files.compute_scores(config)
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("what", ["memorization at ratio 0.3", "subset influence at ratio 0.7", "tables"])
def test_killed_and_continued(config, tmp_path, what):
    untouched = dataclasses.replace(config, output=str(tmp_path / "whole"))
    expected = contents(score_files.compute_scores(untouched).directory)
    config = dataclasses.replace(untouched, output=str(tmp_path / "killed"))
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "runner"}
    program = f"""
import os, signal, json
from heldout.scoring import score_files
def kill(what, done, total):
    if what == {what!r}:
        os.kill(os.getpid(), signal.SIGKILL)
score_files.compute_scores(score_files.ScoreConfig(**json.loads({json.dumps(fields)!r})), kill)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    directory = config.directory
    with pytest.raises(errors.DamagedFileError, match="run the same command again"):
        score_files.load_scores(directory)
    other = dataclasses.replace(config, num_draws=21)
    with pytest.raises(errors.MismatchError, match="another configuration"):
        score_files.compute_scores(other)
    score_files.compute_scores(config)
    found = contents(directory)
    assert found.keys() == expected.keys()
    for name in expected.keys() - {saved_scores.CONFIG_NAME}:
        assert found[name] == expected[name], name


def test_another_configuration_is_refused_with_both_printed(config):
    directory = score_files.compute_scores(config).directory
    before = state(directory)
    other = dataclasses.replace(config, num_draws=33, subset_ratios=(0.7,))
    with pytest.raises(
        errors.MismatchError, match=r'(?s)there: .*"num_draws": 20.*asked: .*"num_draws": 33.*--overwrite'
    ):
        score_files.compute_scores(other)
    assert state(directory) == before
    summary = score_files.compute_scores(dataclasses.replace(other, overwrite=True))
    assert {str(path.relative_to(directory)) for path in summary.files} == set(contents(directory))
    assert not (directory / "scores-0.3.npz").exists()
    assert score_files.compute_scores(other).up_to_date


def test_a_ratio_that_lost_its_runs_is_not_deleted_in_silence(config):
    directory = score_files.compute_scores(config).directory
    for path in sorted((layout.experiment_directory(config.zoo, "demo") / "0.3").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    layout.run_table_path(config.zoo, "demo").unlink()
    with pytest.raises(errors.MismatchError, match=r"scores-0\.3\.npz.*--overwrite"):
        score_files.compute_scores(config)
    assert (directory / "scores-0.3.npz").exists()
    score_files.compute_scores(dataclasses.replace(config, overwrite=True))
    assert tuple(score_files.load_scores(directory).ratios) == (0.7,)


def test_listed_names_cannot_lead_out_of_the_folder(config, tmp_path):
    directory = score_files.compute_scores(config).directory
    outside = tmp_path / "zoo" / "precious"
    outside.write_text("x")
    record = json.loads((directory / "config.json").read_text())
    record["files"] += ["../../precious", str(outside)]
    record["complete"] = False
    (directory / "config.json").write_text(json.dumps(record))
    score_files.compute_scores(dataclasses.replace(config, overwrite=True))
    assert outside.exists()


def test_labels_in_another_order_are_refused(config, tmp_path):
    score_files.compute_scores(config)
    wrong = write_dataset(tmp_path / "wrong.npz", TRAIN_LABEL[::-1])
    other = dataclasses.replace(config, dataset=wrong, output=str(tmp_path / "other"))
    with pytest.raises(errors.MismatchError, match="example 1"):
        score_files.compute_scores(other)
    short = write_dataset(tmp_path / "short.npz", TRAIN_LABEL[:-1])
    with pytest.raises(errors.MismatchError, match="train_label"):
        score_files.compute_scores(dataclasses.replace(other, dataset=short))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table_format": "xlsx"}, "table_format.*parquet, csv"),
        ({"num_draws": 0}, "num_draws"),
        ({"num_draws": 1_000_001}, "num_draws.*from 1 to 1e"),
        ({"memory_limit_mb": 0}, "memory_limit_mb"),
        ({"pairs_influence": 1.5}, "pairs_influence"),
        ({"pairs_memorization": float("nan")}, "pairs_memorization"),
        ({"subset_ratios": ()}, "subset_ratios"),
        ({"subset_ratios": (0.3, 0.3)}, "subset_ratios"),
        ({"subset_ratios": (0.3, 0.4)}, r"0\.4 has no runs in demo; there are 0\.3, 0\.7"),
        ({"memory_limit_mb": 1}, "need at least"),
        ({"device": "gpu"}, "TensorFlow sees no GPU"),
        ({"device": "abacus"}, "--device=abacus"),
        ({"matrix": "maybe"}, "matrix: got 'maybe', expected one of auto, yes, no"),
        ({"top_k": 0}, "top_k"),
        ({"runner": runners.Runner("spark")}, "--runner=spark"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(config, changes, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        score_files.compute_scores(dataclasses.replace(config, **changes))
    assert not config.directory.exists()


def test_scores_do_not_go_among_the_runs(config):
    for folder in (config.zoo, pathlib.Path(config.zoo) / config.experiment):
        with pytest.raises(errors.InvalidValueError, match=r"output: .* holds runs; give a folder of its own"):
            score_files.compute_scores(dataclasses.replace(config, output=str(folder)))


def test_changed_thresholds_are_not_taken_for_done(config):
    directory = score_files.compute_scores(config).directory
    before = state(directory)
    other = dataclasses.replace(config, pairs_influence=0.99, overwrite=True)
    assert not score_files.compute_scores(other).up_to_date
    name = "high_influence_pairs.parquet"
    found = pyarrow.parquet.read_table(directory / name)["subset_influence"].to_numpy()
    assert (found >= 0.99).all()
    assert state(directory)[name] != before[name]
    assert state(directory)["scores-0.7.npz"] == before["scores-0.7.npz"]
    assert contents(directory)["subset_influence-0.7.npy"] == before["subset_influence-0.7.npy"][0]


def test_where_a_data_set_lies_does_not_matter_but_what_is_in_it(config, tmp_path):
    directory = score_files.compute_scores(config).directory
    (tmp_path / "moved").mkdir()
    moved = pathlib.Path(config.dataset.removeprefix("npz:")).rename(tmp_path / "moved/data.npz")
    assert score_files.compute_scores(dataclasses.replace(config, dataset=f"npz:{moved}")).up_to_date
    np.savez(moved, **dict(np.load(moved)), __num_classes=7)
    with pytest.raises(errors.MismatchError, match=r"another configuration[^$]*npz:data\.npz"):
        score_files.compute_scores(dataclasses.replace(config, dataset=f"npz:{moved}"))
    assert str(tmp_path) not in (directory / "config.json").read_text()


def test_missing_things(tmp_path):
    config = score_files.ScoreConfig(str(tmp_path), "demo")
    with pytest.raises(errors.MissingFileError):
        score_files.compute_scores(config)
    with pytest.raises(errors.MissingFileError, match="compute the scores first"):
        score_files.load_scores(tmp_path)


def test_files_of_two_computations_are_not_mixed(config, tmp_path):
    directory = score_files.compute_scores(config).directory
    other = dataclasses.replace(config, num_draws=21, output=str(tmp_path / "other"))
    score_files.compute_scores(other)
    os.replace(tmp_path / "other/scores-0.3.npz", directory / "scores-0.3.npz")
    with pytest.raises(errors.DamagedFileError, match=r"scores-0\.3\.npz: belongs to another computation"):
        score_files.load_scores(directory)


def test_unsound_files_are_refused(config):
    directory = score_files.compute_scores(config).directory
    path = directory / "scores-0.7.npz"
    members = dict(np.load(path))
    npz.write(path, {**members, "memorization": members["memorization"][1:]})
    with pytest.raises(errors.DamagedFileError, match="memorization has dtype float64 and shape"):
        score_files.load_scores(directory)
    npz.write(path, members)
    path = directory / "consistency.npz"
    members = dict(np.load(path))
    npz.write(path, {**members, "train_label": TRAIN_LABEL[1:]})
    with pytest.raises(errors.DamagedFileError, match="train_label has shape"):
        score_files.load_scores(directory)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema_version", 1, "schema version 1, expected 2"),
        ("complete", "yes", "complete is 'yes', expected bool"),
        ("provenance", {"experiment": "demo"}, "table_digest is None"),
        ("files", None, "files is None"),
    ],
)
def test_unsound_config_is_refused(config, name, value, message):
    directory = score_files.compute_scores(config).directory
    path = directory / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, name: value}))
    for program in (score_files.load_scores, lambda _: score_files.compute_scores(config)):
        with pytest.raises(errors.DamagedFileError, match=message):
            program(directory)


def test_unsound_ratios_in_config_are_refused(config):
    directory = score_files.compute_scores(config).directory
    path = directory / "config.json"
    record = json.loads(path.read_text())
    record["provenance"]["subset_ratios"] = ["../0.3"]
    path.write_text(json.dumps(record))
    with pytest.raises(errors.DamagedFileError, match="subset_ratios"):
        score_files.load_scores(directory)


def test_a_run_that_cannot_be_read_is_reported(config):
    bad = layout.Run(pathlib.Path(config.zoo), "demo", 0.3, 7)
    bad.aux_arrays_path.write_bytes(b"nothing")
    summary = score_files.compute_scores(config)
    assert [(problem.run.run_id, problem.state) for problem in summary.problems] == [(7, "damaged")]
    assert summary.num_runs == 59


def test_import_is_light():
    program = "import sys; import heldout.scoring.score_files; "
    program += "print([m for m in ('tensorflow', 'pyarrow', 'pandas', 'sklearn', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

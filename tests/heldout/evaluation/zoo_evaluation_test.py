"""Many runs evaluated with real workers: what agrees, what is left out, what is not done twice."""

import csv
import shutil

import numpy as np
import pytest

from heldout.datasets import registry as datasets
from heldout.evaluation import evaluation_files, margins, rebuilding, run_evaluation, run_sources, zoo_evaluation
from heldout.experiments import recipes, training_config
from heldout.training import run_training
from tests import cases
from zoo import aux_arrays, errors, layout, npz


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six runs at two ratios, with their data set."""
    folder = tmp_path_factory.mktemp("zoo")
    data = cases.tiny_digits()
    flag = cases.tiny_digits_npz(folder / "tiny.npz")
    training = training_config.TrainingConfig(num_epochs=2, batch_size=10)
    recipe = recipes.Recipe("e", zoo_dataset(flag).fingerprint(), "mlp", {"hidden_sizes": [8]}, training, flag)
    recipes.adopt(folder / "zoo", recipe)
    trainer = run_training.RunTrainer(recipe, data)
    for ratio in (0.5, 0.7):
        trainer.train_group([layout.Run(folder / "zoo", "e", ratio, run_id) for run_id in range(3)])
    return folder / "zoo"


def zoo_dataset(flag):
    return datasets.load(flag, None)


@pytest.fixture
def zoo(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "zoo")
    return tmp_path / "zoo"


RUNS = tuple((ratio, run_id) for ratio in (0.5, 0.7) for run_id in range(3))


def config(zoo, **options):
    return zoo_evaluation.EvaluateZooConfig(
        **({"zoo": str(zoo), "experiment": "e", "runs": RUNS, "split": "train", "workers": 1} | options)
    )


class Heard(zoo_evaluation.Progress):
    def __init__(self):
        self.counts, self.notes = [], []

    def evaluated(self, done, total):
        self.counts.append((done, total))

    def note(self, text):
        self.notes.append(text)


def flip(run):
    """One prediction on a held-out example is recorded as the opposite; returns its original index."""
    with np.load(run.aux_arrays_path) as stored:
        arrays = dict(stored)
    arrays["correctness_removed"][2] ^= True
    npz.write(run.aux_arrays_path, arrays)
    return int(arrays["index_removed"][2])


def test_many_runs_are_evaluated_once_and_faults_stay_with_their_runs(zoo):
    runs = {name: layout.Run(zoo, "e", *name) for name in RUNS}
    flipped = flip(runs[0.5, 1])
    runs[0.7, 0].checkpoint_prefix(2).with_suffix(".data-00000-of-00001").write_bytes(b"short")
    shutil.rmtree(runs[0.7, 2].checkpoints_directory)
    heard = Heard()
    found = zoo_evaluation.evaluate_zoo(config(zoo), heard)
    assert heard.counts == [(done, 5) for done in range(1, 6)]
    assert set(found.faults) == {(0.7, 0), (0.7, 2)}
    assert "damaged checkpoint" in found.faults[0.7, 0]
    assert "no complete checkpoint" in found.faults[0.7, 2]
    assert [(row.subset_ratio, row.run_id, row.num_predictions - row.num_matching) for row in found.summaries] == [
        (0.5, 0, 0),
        (0.5, 1, 1),
        (0.5, 2, 0),
        (0.7, 1, 0),
    ]
    assert found.differing == [found.summaries[1]]
    check_files(zoo, runs, flipped)
    check_table(found)
    # Again: nothing is done for what is there, and a checkpoint that is another one is evaluated anew.
    sound = [name for name in RUNS if name not in found.faults]
    path = zoo / "e" / "evaluation" / "train" / "0.5" / "0.npz"
    before = path.stat().st_mtime_ns
    again = zoo_evaluation.evaluate_zoo(config(zoo, runs=tuple(sound)), heard)
    assert (again.num_skipped, again.summaries) == (4, found.summaries)
    shutil.rmtree(runs[0.7, 1].checkpoints_directory)
    shutil.copytree(runs[0.5, 0].checkpoints_directory, runs[0.7, 1].checkpoints_directory)
    again = zoo_evaluation.evaluate_zoo(config(zoo, runs=tuple(sound)), heard)
    assert again.num_skipped == 3
    assert again.summaries[:3] == found.summaries[:3]
    assert again.summaries[3].num_matching < 60
    assert path.stat().st_mtime_ns == before


def check_files(zoo, runs, flipped):
    aux = aux_arrays.read(runs[0.5, 1].aux_arrays_path)
    with np.load(zoo / "e" / "evaluation" / "train" / "0.5" / "1.npz") as stored:
        assert np.flatnonzero(stored["correctness"] != aux.train_correctness()).tolist() == [flipped]
        assert stored["margin"].dtype == np.float16
        assert (stored["margin"] > 0)[~stored["correctness"]].sum() == 0


def check_table(found):
    with open(found.table, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["subset_ratio"], row["run_id"], row["num_matching"]) for row in rows] == [
        ("0.5", "0", "60"),
        ("0.5", "1", "59"),
        ("0.5", "2", "60"),
        ("0.7", "1", "60"),
    ]
    assert rows[0]["accuracy_test"] == ""
    assert float(rows[0]["accuracy_in"]) == found.summaries[0].accuracy_in


def test_one_module_is_built_and_not_traced_again(trained):
    runs = [layout.Run(trained, "e", *name) for name in RUNS]
    source = run_sources.source_of(runs[0], None, None)
    data = recipes.load_dataset(trained, "e", source.dataset)
    rebuilder = rebuilding.Rebuilder(source, data)
    first = rebuilder.predict(runs[0], "train")
    traces = rebuilder.num_traces
    assert traces >= 1
    for run in runs:
        for split in ("train", "test"):
            predictions = rebuilder.predict(run, split)
            alone = run_evaluation.evaluate(run, split)
            assert not alone.disagreements
            np.testing.assert_array_equal(predictions.correctness, predictions.recorded)
            assert predictions.epoch == alone.epoch == 2
    assert rebuilder.num_traces <= traces + 1  # one more, at most, for the size of the test set
    np.testing.assert_array_equal(rebuilder.predict(runs[0], "train").margin, first.margin)
    assert np.abs(first.margin).max() < margins.LARGEST


def test_a_record_of_other_data_is_refused(trained):
    run = layout.Run(trained, "e", 0.5, 0)
    source = run_sources.source_of(run, "digits", None)
    with pytest.raises(errors.MismatchError, match="records 60 training and 20 test examples, data set digits has"):
        rebuilding.Rebuilder(source, datasets.load("digits", None)).predict(run, "test")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"workers": 0}, errors.InvalidValueError, "--workers=0: expected at least 1"),
        ({"epoch": -1}, errors.InvalidValueError, "--epoch=-1: expected 0 or more"),
        ({"runs": ()}, errors.MissingFileError, "no run there"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(trained, options, kind, message):
    with pytest.raises(kind, match=message):
        zoo_evaluation.evaluate_zoo(config(trained, split="test", **options))
    assert not (trained / "e" / "evaluation" / "test").exists()


def test_results_of_other_options_are_not_mixed(tmp_path):
    evaluation_files.adopt(tmp_path, {"split": "test", "dtype": "float32"})
    evaluation_files.adopt(tmp_path, {"split": "test", "dtype": "float32"})
    with pytest.raises(errors.MismatchError, match=r"(?s)other options.*float32.*float64"):
        evaluation_files.adopt(tmp_path, {"split": "test", "dtype": "float64"})


def test_an_epoch_that_is_not_there_is_named(trained):
    run = layout.Run(trained, "e", 0.5, 0)
    with pytest.raises(errors.MissingFileError, match=r"ckpt-1\.index: no such file; give an --epoch"):
        evaluation_files.checkpoint_digest(run, 1)
    assert evaluation_files.checkpoint_digest(run, 2) == evaluation_files.checkpoint_digest(run, None)


def test_summaries_that_cannot_be_used_count_as_none(tmp_path):
    run = layout.Run(tmp_path, "e", 0.5, 3)
    arrays = np.array([True, False])
    parts = evaluation_files.Parts(arrays, ~arrays, None)
    summary = evaluation_files.summarise(run, parts, None, "ab")
    assert (summary.num_matching, summary.accuracy_test, summary.accuracy_in) == (0, 0.5, None)
    evaluation_files.write(tmp_path, summary, arrays, arrays.astype(np.float16))
    assert evaluation_files.read(tmp_path, 0.5, 3) == summary
    path = tmp_path / "0.5" / "3.json"
    for text in ("{", '{"schema_version": 2}', '{"schema_version": 1}'):
        path.write_text(text)
        assert evaluation_files.read(tmp_path, 0.5, 3) is None
    assert evaluation_files.read(tmp_path, 0.5, 4) is None


def test_what_is_named_is_compared_even_if_all_is_done(zoo, monkeypatch):
    runs = RUNS[:1]
    zoo_evaluation.evaluate_zoo(config(zoo, runs=runs))
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "open_for_training", None)  # nothing is named: the data set need not be there
        assert zoo_evaluation.evaluate_zoo(config(zoo, runs=runs)).num_skipped == 1
    source = run_sources.source_of(layout.Run(zoo, "e", *runs[0]), None, None)
    again = zoo_evaluation.evaluate_zoo(config(zoo, runs=runs, architecture="mlp", dataset=source.dataset))
    assert again.num_skipped == 1
    with pytest.raises(errors.MismatchError, match=r"(?s)other options.*'mlp'.*'lenet'"):
        zoo_evaluation.evaluate_zoo(config(zoo, runs=runs, architecture="lenet"))
    with pytest.raises(errors.MismatchError, match="e was trained on"):
        zoo_evaluation.evaluate_zoo(config(zoo, runs=runs, dataset="digits"))


def test_the_table_keeps_what_earlier_calls_found(zoo):
    output = evaluation_files.directory(zoo, "e", "train", None)
    right = np.ones(60, bool)
    for run_id in (0, 1, 2):
        summary = evaluation_files.summarise(
            layout.Run(zoo, "e", 0.7, run_id), evaluation_files.Parts(right, right, np.arange(60) < 30), 2, "ab"
        )
        evaluation_files.write(output, summary, right, right.astype(np.float16))
    for name in ("notes.json", "0.7/notes.json", "0.7/01.json", "0.7/1.json"):
        (output / name).write_text("{")
    found = zoo_evaluation.evaluate_zoo(config(zoo, runs=((0.5, 0),)))
    assert [(row.subset_ratio, row.run_id) for row in found.summaries] == [(0.5, 0)]
    assert names_in(found.table) == [("0.5", "0"), ("0.7", "0"), ("0.7", "2")]
    # A row of a run that can be evaluated no more goes when that is found.
    shutil.rmtree(layout.Run(zoo, "e", 0.7, 2).checkpoints_directory)
    found = zoo_evaluation.evaluate_zoo(config(zoo, runs=((0.7, 2),)))
    assert (found.summaries, set(found.faults)) == ([], {(0.7, 2)})
    assert names_in(found.table) == [("0.5", "0"), ("0.7", "0")]


def names_in(table):
    with open(table, encoding="utf-8", newline="") as stream:
        return [(row["subset_ratio"], row["run_id"]) for row in csv.DictReader(stream)]

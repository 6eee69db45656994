"""Files and Python objects of influence functions are what the closed form says, and survive kills and repetition."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from estimators import artifacts, examples, targets
from estimators import errors as estimator_errors
from scripts.attribution import influence_config, influence_files, influence_run, model_sources
from tests.scripts.attribution import linear_model
from zoo import errors

TRAIN, TEST = linear_model.data(40, seed=1), linear_model.data(200, seed=2)


def config(folder, **options):
    return influence_config.InfluenceConfig(**{"outdir": str(folder), "method": "explicit", "damp": 0.05} | options)


def calculate(settings, target=None, **options):
    return influence_run.calculate(settings, target or linear_model.target(), TRAIN, TEST, **options)


def test_three_lines_give_influences_and_rankings(tmp_path):
    influences, harmful, helpful = calculate(config(tmp_path / "out"))
    truth = linear_model.influence(TRAIN, TEST, 0.05)
    assert list(influences) == [str(number) for number in range(200)]
    np.testing.assert_allclose([entry["influence"] for entry in influences.values()], truth, rtol=1e-6, atol=1e-12)
    assert helpful == np.argsort(-truth.mean(axis=0)).tolist()
    assert harmful == helpful[::-1]


def test_the_json_file_has_the_known_schema(tmp_path):
    calculate(config(tmp_path, test_sample_num=2, test_sample_start_per_class=1))
    stored = json.loads((tmp_path / "influence_results_1_2.json").read_text())
    assert list(stored) == ["3", "4", "5", "6", "7", "8"]
    truth = linear_model.influence(TRAIN, TEST, 0.05)
    for name, entry in stored.items():
        assert list(entry) == ["label", "num_in_dataset", "time_calc_influence_s", "influence", "harmful", "helpful"]
        assert (entry["label"], entry["num_in_dataset"]) == (int(name) % 3, int(name))
        assert entry["time_calc_influence_s"] > 0
        np.testing.assert_allclose(entry["influence"], truth[int(name)], rtol=1e-6)
        # Positive helps: leaving the most helpful out raises the test loss most.
        assert entry["helpful"][0] == np.argmax(truth[int(name)])
        assert entry["harmful"][0] == np.argmin(truth[int(name)])
    meta = json.loads((tmp_path / "influences_results_meta_1-2.json").read_text())
    assert meta["damp"] == meta["effective_damping"] == 0.05
    assert meta["test_sample_index_list"] == [3, 4, 5, 6, 7, 8]
    assert meta["train_index"] == list(range(40))
    assert "positive helps" in meta["sign"]
    assert meta["helpful"] == np.argsort(-truth[3:9].mean(axis=0)).tolist()


def test_the_matrix_and_the_average_are_labelled(tmp_path):
    ids = np.arange(100, 140)
    train = examples.Examples(*TRAIN, ids)
    target = linear_model.target("margin")
    influence_run.calculate(config(tmp_path, measured="margin", test_ids=(5, 9)), target, train, TEST)
    matrix = artifacts.load_scores(tmp_path / "scores", verify=True)
    assert matrix.values.shape == (40, 2)
    assert matrix.train_ids.tolist() == ids.tolist()
    assert matrix.test_ids.tolist() == [5, 9]
    assert matrix.unit == "margin"
    with np.load(tmp_path / "average_influence.npz") as average:
        # For a margin influence is its rise with the training example: the score itself.
        np.testing.assert_allclose(average["influence"], matrix.values.mean(axis=1), rtol=1e-12)
        assert average["helpful"][0] == ids[np.argmax(average["influence"])]
        assert average["harmful"][0] == ids[np.argmin(average["influence"])]
        assert (average["train_index"].tolist(), average["test_index"].tolist()) == (ids.tolist(), [5, 9])
        assert average["num_test"] == 2


def test_the_strongest_examples_of_every_test_example_are_kept_apart(tmp_path):
    ids = np.arange(100, 140)
    train = examples.Examples(*TRAIN, ids)
    influence_run.calculate(config(tmp_path, top_k=3), linear_model.target(), train, TEST)
    truth = linear_model.influence(TRAIN, TEST, 0.05)
    with np.load(tmp_path / "top_influence.npz") as top:
        assert top["test_index"].tolist() == list(range(200))
        for name, order in (("helpful", np.argsort(-truth)), ("harmful", np.argsort(truth))):
            np.testing.assert_array_equal(top[f"{name}_index"], ids[order[:, :3]])
            expected = np.take_along_axis(truth, order[:, :3], axis=1)
            np.testing.assert_allclose(top[f"{name}_value"], expected, rtol=1e-6)


def test_a_second_call_computes_nothing_and_gives_the_same(tmp_path, monkeypatch):
    first = calculate(config(tmp_path))
    monkeypatch.setattr(influence_run.Computation, "prepare", None)
    monkeypatch.setattr(influence_run.Computation, "compute_block", None)
    assert calculate(config(tmp_path)) == first


def test_what_is_made_of_the_matrix_is_made_again_where_it_is_asked_for_otherwise(tmp_path, monkeypatch):
    first = calculate(config(tmp_path, top_k=3, json="no"))
    monkeypatch.setattr(influence_run.Computation, "compute_block", None)
    assert calculate(config(tmp_path, top_k=5)) == first
    with np.load(tmp_path / "top_influence.npz") as top:
        assert top["helpful_index"].shape == (200, 5)
    stored = json.loads((tmp_path / "influence_results_0_all.json").read_text())
    assert stored["7"] == first.influences["7"]
    ids = tuple(range(200))
    assert calculate(config(tmp_path, test_ids=ids)).influences == first.influences
    assert {path.name for path in tmp_path.glob("influence*_*")} == {
        "influence_results_0_all.json",  # as true as it was; nothing is deleted without being asked
        "influence_results_ids_200.json",
        "influences_results_meta_ids-200.json",
    }


def test_blocks_that_are_there_are_not_computed_again(tmp_path, monkeypatch):
    calls = []
    original = influence_run.Computation._scores

    def dies_at_the_third(self, block, start, advance):
        calls.append(start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, block, start, advance)

    monkeypatch.setattr(influence_run.Computation, "_scores", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        calculate(config(tmp_path))
    assert calls == [0, 64, 128]
    assert not (tmp_path / "scores").exists()
    influences, _, _ = calculate(config(tmp_path))
    assert calls == [0, 64, 128, 128, 192]
    truth = linear_model.influence(TRAIN, TEST, 0.05)
    np.testing.assert_allclose([entry["influence"] for entry in influences.values()], truth, rtol=1e-6, atol=1e-12)
    assert not list(tmp_path.glob(".blocks*"))


def test_a_damaged_block_is_computed_again(tmp_path):
    settings = config(tmp_path)
    model = model_sources.Loaded(
        linear_model.target(), examples.of(TRAIN), examples.of(TEST), {"model": "python"}, None
    )
    computation = influence_run.Computation(settings, model)
    computation.prepare()
    for start in computation.starts:
        computation.compute_block(start)
    influence_files.block_path(tmp_path, computation.identity, 64).write_bytes(b"nothing")
    with pytest.raises(errors.MissingFileError, match=r"64\.npz: missing or damaged; the same command"):
        computation.finish()
    assert influence_run.run(computation).values.shape == (40, 200)


def test_factors_are_kept_and_used_again(tmp_path, monkeypatch):
    calculate(config(tmp_path, method="ekfac"))
    assert (tmp_path / "factors" / "manifest.json").exists()
    (tmp_path / "influences_results_meta_0-all.json").unlink()
    monkeypatch.setattr("estimators.influence_functions.InfluenceFunctions.fit", None)
    calculate(config(tmp_path, method="ekfac"))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"damp": 0.1}, "solver.damping: stored 0.05, asked for 0.1"),
        ({"method": "conjugate_gradient"}, "solver.solver: stored 'explicit', asked for 'conjugate_gradient'"),
        ({"test_sample_num": 1}, "test_examples: other content"),
    ],
)
def test_another_config_is_refused_and_overwritten_on_demand(tmp_path, changed, named):
    calculate(config(tmp_path))
    with pytest.raises(errors.MismatchError) as raised:
        calculate(config(tmp_path, **changed))
    assert named in str(raised.value)
    assert "--overwrite" in str(raised.value)
    calculate(config(tmp_path, **changed, overwrite=True))
    assert len(list(tmp_path.glob("influences_results_meta_*.json"))) == 1


def test_other_weights_are_another_config(tmp_path):
    calculate(config(tmp_path))
    target = linear_model.target()
    target.parameters[0].variable.assign_add(np.full((4, 3), 1e-3))
    with pytest.raises(errors.MismatchError, match=r"target\.weights"):
        calculate(config(tmp_path), target)


def test_sizes_of_json_decide_about_it(tmp_path):
    calculate(config(tmp_path / "no", json="no"))
    assert not list((tmp_path / "no").glob("influence_results_*.json"))
    assert config(tmp_path).writes_json(3000, 10_000)
    assert not config(tmp_path).writes_json(3001, 10_000)
    assert config(tmp_path, json="yes").writes_json(10**6, 10**4)


def test_a_log_file_is_told(tmp_path):
    log = tmp_path / "log.txt"
    calculate(config(tmp_path / "out", log_filename=str(log)))
    lines = log.read_text().splitlines()
    assert [line.split(" ", 1)[1].split(" in ")[0] for line in lines] == [
        "test examples 0 to 63: 64",
        "test examples 64 to 127: 64",
        "test examples 128 to 191: 64",
        "test examples 192 to 199: 8",
    ]


def test_progress_goes_up_to_all(tmp_path):
    heard = []
    calculate(config(tmp_path), progress=lambda *state: heard.append(state))
    assert list(dict.fromkeys(stage for stage, _, _ in heard)) == ["curvature", "scores", "files"]
    scores = [(done, total) for stage, done, total in heard if stage == "scores"]
    assert scores == sorted(scores)
    assert scores[-1] == (40 * 200, 40 * 200)


def test_the_published_recursion_reports_its_effective_damping(tmp_path):
    settings = config(
        tmp_path, method="lissa", compat="published", recursion_depth=50, scale=20.0, damp=0.01, test_ids=(0,)
    )
    calculate(settings)
    meta = json.loads((tmp_path / "influences_results_meta_ids-1.json").read_text())
    assert (meta["damp"], meta["effective_damping"]) == (0.01, 0.2)


def test_options_reach_the_solver_under_its_names():
    made = influence_run.solver_options(config("x", method="nystroem", damp=0.2, seed=7, options={"rank": 5}))
    assert made == {"damping": 0.2, "seed": 7, "rank": 5}
    made = influence_run.solver_options(config("x", method="lissa", damp=0.2, scale=None, tolerance=0.1))
    assert made == {
        "damp": 0.2,
        "seed": 42,
        "recursion_depth": 5000,
        "r": 1,
        "scale": None,
        "published": False,
        "tolerance": 0.1,
    }
    assert influence_run.solver_options(config("x", method="identity")) == {}


@pytest.mark.parametrize("options", [{"rank": 3}, {"damping": 0.1}, {"seed": 1}])
def test_options_of_other_methods_or_with_a_name_of_their_own_are_refused(options):
    with pytest.raises(errors.InvalidValueError, match=r"options .* of ekfac: expected some of labels, check"):
        influence_run.solver_options(config("x", method="ekfac", options=options))


def test_what_the_target_does_not_measure_is_refused(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="measured 'margin': the target measures 'loss'"):
        calculate(config(tmp_path, measured="margin"))


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="gpu 7: TensorFlow sees 0"):
        calculate(config(tmp_path, gpu=7))


def kept(tmp_path, kind):
    (folder,) = (tmp_path / "kept").glob(f"{kind}-*")
    return folder


@pytest.mark.parametrize("mode", influence_config.MODES)
def test_kept_gradients_give_the_same_scores(tmp_path, mode):
    plain = calculate(config(tmp_path / "plain"))
    for outdir in ("a", "b"):  # the second from what the first has kept
        found = calculate(config(tmp_path / outdir, mode=mode, save_pth=str(tmp_path / "kept")))
        for name, entry in plain.influences.items():
            np.testing.assert_allclose(found.influences[name]["influence"], entry["influence"], rtol=1e-6)
    solved = np.load(kept(tmp_path, "s_test") / "0.npy")
    gradients = linear_model.gradients(linear_model.model().weights.numpy(), *TRAIN)
    if mode == "all_gradients":
        np.testing.assert_allclose(np.load(kept(tmp_path, "grad_z") / "0.npy"), gradients, rtol=1e-10, atol=1e-14)
    else:
        assert not list((tmp_path / "kept").glob("grad_z*"))
    truth = linear_model.influence(TRAIN, TEST, 0.05)[:64]
    np.testing.assert_allclose(solved @ gradients.T / 40, truth, rtol=1e-8, atol=1e-14)


def test_kept_gradients_are_not_computed_again(tmp_path, monkeypatch):
    settings = config(tmp_path / "out", mode="all_gradients", save_pth=str(tmp_path / "kept"))
    first = calculate(settings)
    monkeypatch.setattr("estimators.fitted_curvature.FittedCurvature.train_gradients", None)
    # Gradients of training examples serve for another damping.
    calculate(dataclasses.replace(settings, outdir=str(tmp_path / "damped"), damp=1.0))
    monkeypatch.setattr("estimators.fitted_curvature.FittedCurvature.solutions", None)
    again = calculate(dataclasses.replace(settings, outdir=str(tmp_path / "again")))
    assert again.helpful == first.helpful


def test_gradients_are_kept_of_results_that_are_there(tmp_path):
    first = calculate(config(tmp_path / "out"))
    settings = config(tmp_path / "out", mode="all_gradients", save_pth=str(tmp_path / "kept"))
    assert calculate(settings) == first
    assert len(list(kept(tmp_path, "s_test").glob("*.npy"))) == 4
    assert len(list(kept(tmp_path, "grad_z").glob("*.npy"))) == 1


def test_a_part_of_what_was_kept_is_computed_again(tmp_path):
    """As after a kill between the two files, with blocks of another size before."""
    settings = config(tmp_path / "out", save_pth=str(tmp_path / "kept"))
    first = calculate(settings)
    path = kept(tmp_path, "s_test") / "64.npy"
    np.save(path, np.load(path)[:5])
    assert calculate(dataclasses.replace(settings, outdir=str(tmp_path / "again"))).influences.keys() == (
        first.influences.keys()
    )
    assert len(np.load(path)) == 64


def test_weights_that_are_not_differentiated_count(tmp_path):
    def frozen(factor):
        model = linear_model.model()
        return targets.of(model, predict=lambda x: model(x) * factor, weight_decay=linear_model.WEIGHT_DECAY)

    settings = config(tmp_path / "a", mode="all_gradients", save_pth=str(tmp_path / "kept"))
    first = calculate(settings, frozen(1.0))
    with pytest.raises(errors.MismatchError, match="weights that are not differentiated are others"):
        calculate(settings, frozen(2.0))
    other = calculate(dataclasses.replace(settings, outdir=str(tmp_path / "b")), frozen(2.0))
    truth = calculate(config(tmp_path / "c"), frozen(2.0))
    assert other.helpful == truth.helpful
    assert other.influences["0"]["influence"] != first.influences["0"]["influence"]


def test_more_than_may_be_kept_is_refused_with_its_size(tmp_path):
    settings = config(tmp_path / "out", mode="all_gradients", save_pth=str(tmp_path / "kept"), max_save_gb=1e-5)
    message = (
        r"gradients of 12 parameters for 200 test and 40 training examples take 23\.0 kB, and max_save_gb is 1e-05"
    )
    with pytest.raises(errors.InvalidValueError, match=message):
        calculate(settings)
    assert not (tmp_path / "kept").exists()
    calculate(config(tmp_path / "out"))  # a refused config leaves the folder free


@pytest.mark.parametrize("options", [{"options": {"check": True}}, {"damp": 0.0, "method": "nystroem"}])
def test_a_config_that_came_to_nothing_leaves_the_folder_free(tmp_path, options):
    with pytest.raises((errors.InvalidValueError, estimator_errors.EstimatorError)):
        calculate(config(tmp_path, **options))
    calculate(config(tmp_path))


def test_what_is_refused_deletes_nothing(tmp_path):
    calculate(config(tmp_path / "out"))
    refused = config(tmp_path / "out", damp=1.0, overwrite=True, save_pth=str(tmp_path / "kept"), max_save_gb=1e-6)
    with pytest.raises(errors.InvalidValueError, match="max_save_gb"):
        calculate(refused)
    assert calculate(config(tmp_path / "out")).helpful


def test_a_matrix_of_another_computation_is_not_taken(tmp_path):
    """As when two processes wrote into one folder."""
    calculate(config(tmp_path))
    record = json.loads((tmp_path / "config.json").read_text())
    calculate(config(tmp_path / "other", damp=10.0))
    shutil.rmtree(tmp_path / "scores")
    shutil.copytree(tmp_path / "other" / "scores", tmp_path / "scores")
    assert json.loads((tmp_path / "config.json").read_text()) == record
    influences, _, _ = calculate(config(tmp_path))
    truth = linear_model.influence(TRAIN, TEST, 0.05)
    np.testing.assert_allclose([entry["influence"] for entry in influences.values()], truth, rtol=1e-6, atol=1e-12)


def test_a_lost_matrix_is_computed_again(tmp_path):
    first = calculate(config(tmp_path))
    shutil.rmtree(tmp_path / "scores")
    assert calculate(config(tmp_path)).helpful == first.helpful


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    calculate(config(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (f".scores.tmp-{process.pid}-0a1b2c3d", ".blocks-0123456789abcdef"):
        (tmp_path / name).mkdir()
    calculate(config(tmp_path, top_k=3))
    assert not list(tmp_path.glob(".scores*"))
    assert not list(tmp_path.glob(".blocks*"))


def test_factors_serve_for_another_damping(tmp_path, monkeypatch):
    calculate(config(tmp_path, method="ekfac"))
    monkeypatch.setattr("estimators.influence_functions.InfluenceFunctions.fit", None)
    calculate(config(tmp_path, method="ekfac", damp=0.5, overwrite=True))


def test_without_curvature_there_is_no_damping(tmp_path):
    calculate(config(tmp_path, method="identity"))
    assert json.loads((tmp_path / "influences_results_meta_0-all.json").read_text())["effective_damping"] is None


@pytest.mark.parametrize("options", [{"rank": "many"}, {"rank": True}])
def test_options_of_another_type_are_refused(options):
    with pytest.raises(errors.InvalidValueError, match=r"options rank=.*: expected a value of type int"):
        influence_run.solver_options(config("x", method="nystroem", options=options))

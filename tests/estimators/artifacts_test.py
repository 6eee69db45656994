"""Stored factors and scores: what is read is what was written, and of the right weights, or it is refused."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from estimators import artifacts, errors, examples, influence_functions, score_matrix, solvers
from tests.estimators import models

_PREPARED = {
    "ekfac": {"damping": 0.1},
    "nystroem": {"damping": 0.1, "rank": 20},
    "lanczos": {"damping": 0.1, "num_eigenvalues": 5, "num_steps": 20, "curvature": "gauss_newton"},
    "explicit": {"damping": 0.1, "curvature": "gauss_newton"},
}


def _case(name="mlp"):
    case = models.ALL[name]()
    return case, (case.inputs, case.labels)


@pytest.mark.parametrize("solver", list(_PREPARED))
def test_what_was_prepared_gives_the_same_scores_after_reading(solver, tmp_path):
    case, train = _case()
    fitted = influence_functions.InfluenceFunctions(case.target, solver, **_PREPARED[solver]).fit(train)
    fitted.save(tmp_path / "factors")
    again = influence_functions.InfluenceFunctions.load(tmp_path / "factors", case.target, train)
    assert again.settings == fitted.settings
    np.testing.assert_array_equal(again.scores(train, train).values, fitted.scores(train, train).values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["factors"]


@pytest.mark.parametrize("name", ["conv2d_grouped", "sonnet_batch_norm", "embedding"])
def test_factors_of_every_kind_of_block_are_read_as_written(name, tmp_path):
    case, train = _case(name)
    fitted = influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train)
    fitted.save(tmp_path / "factors")
    again = influence_functions.InfluenceFunctions.load(tmp_path / "factors", case.target, train)
    np.testing.assert_array_equal(again.scores(train, train).values, fitted.scores(train, train).values)


def test_factors_serve_another_damping_and_the_solvers_that_share_them(tmp_path):
    case, train = _case()
    load = influence_functions.InfluenceFunctions.load
    influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train).save(tmp_path / "f")
    for solver in (solvers.Ekfac(damping=0.5), solvers.Kfac(damping=0.2)):
        found = load(tmp_path / "f", case.target, train, solver).scores(train, train)
        fresh = influence_functions.InfluenceFunctions(case.target, solver).fit(train).scores(train, train)
        np.testing.assert_allclose(found.values, fresh.values, rtol=1e-10)
    changed = load(tmp_path / "f", case.target, train, damping=0.5)
    assert changed.settings == solvers.Ekfac(damping=0.5)


def test_factors_of_something_else_are_refused_with_both_printed(tmp_path):
    case, train = _case()
    load = influence_functions.InfluenceFunctions.load
    fitted = influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train)
    fitted.save(tmp_path / "f")
    with pytest.raises(errors.MismatchError, match=r"stored for prepared_by .*'labels': 'sampled'.* here .*'expected'"):
        load(tmp_path / "f", case.target, train, "ekfac", labels="expected")
    with pytest.raises(errors.MismatchError, match=r"stored for prepared_by .*kronecker.*nystroem"):
        load(tmp_path / "f", case.target, train, "nystroem")
    with pytest.raises(errors.MismatchError, match=r"stored for examples \w{64}, but here it is \w{64}"):
        load(tmp_path / "f", case.target, (case.inputs, np.roll(case.labels, 1)))
    case.target.variables[0].assign_add(tf.ones_like(case.target.variables[0]))
    with pytest.raises(errors.MismatchError, match=r"stored for weights \w{64}, but here it is \w{64}"):
        load(tmp_path / "f", case.target, train)


def test_factors_of_another_objective_are_refused(tmp_path):
    case, train = _case()
    influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train).save(tmp_path / "f")
    changes = {
        "weight_decay": (0.1,) * 4,
        "loss": dataclasses.replace(case.target.loss, name="other"),
    }
    for name, value in changes.items():
        other = dataclasses.replace(case.target, **{name: value})
        with pytest.raises(errors.MismatchError, match=f"stored for {name} .*, but here it is"):
            influence_functions.InfluenceFunctions.load(tmp_path / "f", other, train)


def test_other_weights_than_the_parameters_count_too(tmp_path):
    case, train = _case()
    target = case.target.restricted([p for p in case.target.parameters if p.name.endswith("/v")])
    influence_functions.InfluenceFunctions(target, "ekfac", damping=0.1).fit(train).save(tmp_path / "f")
    first = next(p for p in case.target.parameters if p.name.endswith("/w"))
    first.variable.assign_add(tf.ones(first.shape, tf.float64))
    with pytest.raises(errors.MismatchError, match="weights that are no parameters of it have changed"):
        influence_functions.InfluenceFunctions.load(tmp_path / "f", target, train)


def _matrix(values=None, **options):
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) if values is None else values
    texts = {"method": "m", "quantity": "q", "unit": "u", "lower_is_better": True, "config": {"damping": 0.1}}
    return score_matrix.ScoreMatrix(values, np.arange(6) + 4, np.arange(3) + 9, **(texts | options))


@pytest.mark.parametrize("checked", [True, False])
def test_scores_are_read_as_they_were_written(checked, tmp_path):
    solved = {"residuals": np.array([0.1, np.nan, 0.2]), "converged": np.array([True, False, True])}
    matrix = _matrix(**(solved if checked else {}))
    artifacts.save_scores(tmp_path / "scores", matrix)
    found = artifacts.load_scores(tmp_path / "scores", verify=True)
    assert isinstance(found.values, np.memmap)
    for name in ("values", "train_ids", "test_ids", "residuals", "converged"):
        np.testing.assert_array_equal(getattr(found, name), getattr(matrix, name))
    for name in ("method", "quantity", "unit", "lower_is_better", "config"):
        assert getattr(found, name) == getattr(matrix, name)


def test_a_draft_is_filled_on_the_disk_and_appears_when_it_is_finished(tmp_path):
    case, train = _case()
    data = examples.Examples(*train, np.arange(7) + 30)
    fitted = influence_functions.InfluenceFunctions(case.target, "identity").fit(data)
    with artifacts.drafting_scores(tmp_path / "s", 7, 7) as draft:
        assert not (tmp_path / "s").exists()
        draft.finish(fitted.scores(data, data, out=draft.values))
    found = artifacts.load_scores(tmp_path / "s", verify=True)
    np.testing.assert_allclose(found.values, fitted.scores(data, data).values, rtol=1e-6)
    np.testing.assert_array_equal(found.train_ids, data.ids)
    with (
        pytest.raises(errors.InvalidArgumentError, match="was not finished"),
        artifacts.drafting_scores(tmp_path / "t", 7, 7),
    ):
        pass
    with (
        pytest.raises(errors.MismatchError, match="not those of the draft"),
        artifacts.drafting_scores(tmp_path / "t", 7, 7) as draft,
    ):
        draft.finish(_matrix())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_nothing_is_replaced_unless_asked_and_nothing_is_left_by_a_failure(tmp_path):
    artifacts.save_scores(tmp_path / "s", _matrix())
    with pytest.raises(errors.InvalidArgumentError, match=r"is there already; .* overwrite=True"):
        artifacts.save_scores(tmp_path / "s", _matrix())
    with pytest.raises(TypeError):  # a config that JSON cannot hold fails after the arrays were written
        artifacts.save_scores(tmp_path / "s", _matrix(config={"a": object()}), overwrite=True)
    np.testing.assert_array_equal(artifacts.load_scores(tmp_path / "s").values, _matrix().values)
    artifacts.save_scores(tmp_path / "s", _matrix(np.zeros((6, 3))), overwrite=True)
    np.testing.assert_array_equal(artifacts.load_scores(tmp_path / "s").values, 0.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def _damaged(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest.json", lambda b: b[:40], "manifest.json cannot be read"),
        ("manifest.json", lambda b: b.replace(b'"schema_version": 1', b'"schema_version": 9'), r"kind \(9, 'scores'\)"),
        ("manifest.json", lambda b: b"[]", "schema version and kind"),
        ("manifest.json", lambda b: b.replace(b'"train_ids"', b'"../train"'), "'../train', which is no name of a file"),
        ("train_ids.npy", lambda b: b[:-1] + b"\x01", r"train_ids.npy: the SHA-256 is not that of its manifest"),
        ("values.npy", lambda b: b[:-4], "values.npy cannot be read"),
        ("values.npy", lambda b: b"", "values.npy cannot be read"),
    ],
)
def test_damaged_scores_are_refused(name, change, message, tmp_path):
    artifacts.save_scores(tmp_path / "s", _matrix())
    _damaged(tmp_path / "s", name, change)
    with pytest.raises(errors.DamagedArtifactError, match=message):
        artifacts.load_scores(tmp_path / "s")


def test_a_changed_value_is_found_when_asked_and_objects_never_are_read(tmp_path):
    artifacts.save_scores(tmp_path / "s", _matrix())
    _damaged(tmp_path / "s", "values.npy", lambda b: b[:-1] + b"\x01")
    artifacts.load_scores(tmp_path / "s")
    with pytest.raises(errors.DamagedArtifactError, match="the SHA-256 is not that"):
        artifacts.load_scores(tmp_path / "s", verify=True)
    np.save(tmp_path / "s" / "values.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(errors.DamagedArtifactError, match=r"values.npy cannot be read"):
        artifacts.load_scores(tmp_path / "s")


def test_a_missing_file_and_another_kind_are_refused(tmp_path):
    case, train = _case()
    influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train).save(tmp_path / "f")
    with pytest.raises(errors.DamagedArtifactError, match=r"kind \(1, 'prepared'\), expected \(1, 'scores'\)"):
        artifacts.load_scores(tmp_path / "f")
    (tmp_path / "f" / "moments-0.npy").unlink()
    with pytest.raises(errors.DamagedArtifactError, match=r"moments-0.npy cannot be read"):
        influence_functions.InfluenceFunctions.load(tmp_path / "f", case.target, train)
    with pytest.raises(errors.DamagedArtifactError, match=r"manifest.json cannot be read"):
        artifacts.read_config(tmp_path / "nothing")


def test_equal_artifacts_are_equal_bytes(tmp_path):
    case, train = _case()
    for name in ("a", "b"):
        influence_functions.InfluenceFunctions(case.target, "ekfac", damping=0.1).fit(train).save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["schema_version"] == artifacts.SCHEMA_VERSION

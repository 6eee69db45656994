"""compute_ntk: kernels of every kind and side against products of gradients, runs of zoos, and what it refuses."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from heldout.training import leave_out_config
from scripts.unique_information import (
    array_store,
    kernel_config,
    kernel_figures,
    kernel_run,
    linearised_networks,
    network_source,
)
from tests import cases
from zoo import errors

_ROOT = pathlib.Path(__file__).parents[3]
_EXPERIMENT = leave_out_config.LeaveOutConfig(
    "digits", (1, 3, 8), 14, 9, architecture_options={"hidden_sizes": [6]}, learning_rate=0.05, num_steps=20
)
_FLAGS = ("--dataset=digits", "--classes=3,8", "--num_train=20", "--num_val=10", "--noprogress")


def start(program, *arguments):
    command = [sys.executable, "-m", f"scripts.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)


def config(outdir="a", **options):
    source = network_source.NetworkSource(experiment=_EXPERIMENT)
    return kernel_config.KernelConfig(outdir=str(outdir), source=source, **options)


def run(outdir, **options):
    asked = config(outdir, **options)
    network = linearised_networks.load(asked.source, asked.linearisation())
    results = kernel_run.run(asked, network, lambda *told: None)
    return results, array_store.read(asked.kernel_directory).arrays, network


def gradients(network, data):
    """[n, k, P] by a gradient tape, one output of one example at a time."""
    rows = []
    for position in range(len(data)):
        for output in range(network.num_outputs):
            with tf.GradientTape() as tape:
                value = network.target.predict(tf.constant(data.inputs[position : position + 1]))[0, output]
            found = tape.gradient(value, network.target.variables, unconnected_gradients="zero")
            rows.append(np.concatenate([np.ravel(part) for part in found]))
    return np.stack(rows).reshape(len(data), network.num_outputs, -1)


def test_every_kind_is_of_the_gradients(tmp_path):
    options = {"kernel_dtype": "float64", "row_places": (1, 4, 5, 9)}
    _, arrays, network = run(tmp_path / "cross", **options, columns="val")
    train, val = gradients(network, network.train.take(np.array([1, 4, 5, 9]))), gradients(network, network.val)
    cross = np.einsum("nap,mbp->namb", train, val)
    np.testing.assert_allclose(arrays["values"], cross.reshape(12, 27), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(arrays["row_index"], network.train.ids[[1, 4, 5, 9]])
    np.testing.assert_array_equal(arrays["column_label"], network.val_label)
    own = np.einsum("nap,mbp->namb", train, train)
    expected = {
        "full": own.reshape(12, 12),
        "trace": np.einsum("nama->nm", own),
        "mean_trace": np.einsum("nama->nm", own) / 3,
        "diagonal": np.einsum("nana->na", own),
        "blocks": np.einsum("nanb->nab", own),
    }
    assert set(expected) == set(kernel_config.KINDS)
    for kind, values in expected.items():
        results, arrays, _ = run(tmp_path / kind, kind=kind, **options)
        np.testing.assert_allclose(arrays["values"], values, rtol=1e-10, atol=1e-12)
        assert results["shape"] == list(values.shape)
        has_spectrum = kind not in kernel_config.BY_EXAMPLE
        assert (results["spectrum"] is not None) == has_spectrum
        assert (tmp_path / kind / "kernel.png").exists() == has_spectrum
        if has_spectrum:
            with np.load(tmp_path / kind / "spectrum.npz") as stored:
                np.testing.assert_allclose(stored["eigenvalues"], np.linalg.eigvalsh(values)[::-1], atol=1e-9)


def test_features_stand_for_the_kernel(tmp_path):
    results, arrays, network = run(tmp_path, projection="random_subset", num_features=30)
    assert arrays["features"].shape[0] == 42
    rows = gradients(network, network.train).reshape(42, -1)
    exact = rows @ rows.T
    apart = np.linalg.norm(arrays["features"] @ arrays["features"].T - exact) / np.linalg.norm(exact)
    assert results["projection_error"] == pytest.approx(apart, rel=1e-3)
    small = np.linalg.eigvalsh(np.asarray(arrays["features"], np.float64) @ arrays["features"].T)
    assert results["spectrum"]["largest"] == pytest.approx(small[-1])


def test_a_spectrum_that_takes_too_much_is_left_out_and_places_must_be_there(tmp_path):
    results, _, network = run(tmp_path / "a", memory_limit_mb=0.05)
    assert results["spectrum"] is None
    assert results["files"] == ["kernel.png"]
    match = r"--row_ids: expected places among the 14 train examples, from 0 to 13, not 14"
    with pytest.raises(errors.InvalidValueError, match=match):
        kernel_run.run(config(tmp_path / "b", row_places=(14,)), network, lambda *told: None)


def test_what_is_refused_costs_no_results_and_damage_is_noticed(tmp_path):
    _, arrays, network = run(tmp_path, kind="trace")
    before = np.array(arrays["values"])
    for options, error in (({"row_places": (14,)}, errors.InvalidValueError), ({"memory_limit_mb": 1e-6}, Exception)):
        with pytest.raises(error, match=r"--row_ids|memory"):
            kernel_run.run(config(tmp_path, **options), network, lambda *told: None, overwrite=True)
        assert {"ntk.json", "spectrum.npz", "kernel.png"} <= {path.name for path in tmp_path.iterdir()}
    results, arrays, _ = run(tmp_path, kind="trace")
    assert results["up_to_date"]
    np.testing.assert_array_equal(arrays["values"], before)
    for path, match in (
        (tmp_path / "spectrum.npz", r"spectrum\.npz: its SHA-256 is not that of ntk\.json"),
        (tmp_path / "kernel" / "values.npy", r"values\.npy: the SHA-256 is not that of contents\.json"),
    ):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(errors.DamagedFileError, match=match):
            run(tmp_path, kind="trace")
        path.write_bytes(content)


def test_the_picture_says_of_which_network_and_data_it_is(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(kernel_figures.result_tables, "write_figure", lambda path, figure: drawn.append(figure) or path)
    stored = array_store.Stored(
        tmp_path,
        {},
        {"num_rows": 3, "num_columns": 3, "num_outputs": 1, "kind": "trace"},
        {"values": np.eye(3), "row_label": np.arange(3)},
    )
    kernel_figures.write_kernel(tmp_path, stored, "values", "mlp on digits")
    assert "mlp on digits" in drawn[0].axes[0].get_title(loc="left")


def test_results_that_cannot_be_read_are_refused(tmp_path):
    _, _, network = run(tmp_path)
    (tmp_path / "ntk.json").write_text('{"schema_version": 7}')
    with pytest.raises(errors.DamagedFileError, match=r"schema version 7, expected 1; delete it"):
        kernel_run.run(config(tmp_path), network, lambda *told: None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "x"}, r"--kind=x: expected one of full, "),
        ({"rows": "test"}, r"--rows=test: expected one of train, val"),
        ({"columns": "test"}, r"--columns=test: expected one of train, val"),
        ({"memory_limit_mb": 0.0}, r"--memory_limit_mb=0: expected a number above 0"),
        ({"kind": "blocks", "columns": "val"}, r"--kind=blocks: is of the examples of the rows alone"),
        ({"projection": "hadamard", "column_places": (1,)}, r"--projection: is of the examples of the rows alone"),
        ({"projection": "hadamard", "kind": "trace"}, r"--kind=trace: says nothing beside --projection"),
    ],
)
def test_configs_that_cannot_be_are_refused(options, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        config(**options)


def test_a_config_is_the_same_from_its_json():
    one = config(row_places=(1, 2), columns="val")
    assert kernel_config.KernelConfig.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.slow
def test_the_program_does_nothing_again_and_refuses_other_settings(tmp_path):
    arguments = (*_FLAGS, f"--outdir={tmp_path}")
    result = start("compute_ntk", *arguments)
    assert result.returncode == 0, result.stderr
    assert "full kernel [20, 20] float32 of 20 training examples, 1 output" in result.stdout
    assert "largest eigenvalue" in result.stdout
    content = (tmp_path / "kernel" / "values.npy").read_bytes()
    again = start("compute_ntk", *arguments)
    assert "(was there, nothing to do)" in again.stdout
    assert (tmp_path / "kernel" / "values.npy").read_bytes() == content
    other = start("compute_ntk", *arguments, "--kind=trace")
    assert other.returncode == 1
    assert "kind: stored 'full', asked for 'trace'" in other.stderr
    replaced = start("compute_ntk", *arguments, "--rows=val", "--columns=train", "--column_ids=0:5", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    assert "full kernel [10, 5] float32 of 10 validation examples by 5 training examples" in replaced.stdout
    assert not (tmp_path / "spectrum.npz").exists()


@pytest.mark.slow
def test_a_run_of_a_zoo(tmp_path):
    data = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    zoo = ("--experiment=tiny", '--arch_options={"hidden_sizes": [16]}', "--num_epochs=2", "--batch_size=10")
    trained = start(
        "train_runs", f"--zoo={tmp_path}/zoo", f"--dataset={data}", *zoo, "--run_ids=0:1", "--subset_ratio=0.5"
    )
    assert trained.returncode == 0, trained.stderr
    arguments = (f"--run={tmp_path}/zoo/tiny/0.5/0", f"--dataset={data}", f"--outdir={tmp_path}/a", "--noprogress")
    result = start("compute_ntk", *arguments, "--kind=trace")
    assert result.returncode == 0, result.stderr
    assert "trace kernel [30, 30] float32 of 30 training examples, 10 outputs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run=a", "--model=b:c"), "--model with --run: both say which network"),
        (("--run=a", "--seed=1"), "--seed says nothing beside --run"),
        (("--dataset=digits", "--epoch=1"), "--epoch: names a checkpoint of --run, which is not given"),
        (("--dataset=digits", "--row_ids=x"), "--row_ids=x: 'x' is neither a number nor a range"),
        (("--dataset=digits", "--kind=x"), "flag --kind=x: value should be one of"),
    ],
)
def test_wrong_flags_are_refused_in_a_line(tmp_path, arguments, message):
    result = start("compute_ntk", f"--outdir={tmp_path}", *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_it_answers_before_tensorflow_is_imported():
    code = "import sys; import scripts.compute_ntk as p; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False).returncode == 0

"""Files of input-Jacobian statistics hold what dense Jacobians say, whatever batches and shards, and survive kills."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf

from estimators.jacobian import functions, measuring
from heldout.training import model_files
from scripts.jacobian_stats import stats_config, stats_files, stats_published, stats_run, stats_tables
from tests.scripts.jacobian_stats import networks
from zoo import errors

WHOLE = (1, 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return networks.model_run(tmp_path_factory.mktemp("nets"))


def numbers(found):
    """Columns of statistics of a table."""
    return {name: values for name, values in found.arrays.items() if name not in stats_files.LABELS}


def assert_close(first, second, rtol=1e-5):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=rtol, atol=1e-12, err_msg=name)


def test_every_checkpoint_has_the_values_of_its_dense_jacobians(home, tmp_path):
    metrics = ("jacobian", "jacobian_operator_norm", "nuclear_norm", "crossentropy", "accuracy")
    done = networks.measurement(home, tmp_path, metrics=metrics, normalisations=("none", "softmax")).run(WHOLE)
    assert [found.table.epoch for found in done] == [0, 2, 5]
    source = networks.source(home)
    split = source.split("train")
    for found, checkpoint in zip(done, source.checkpoints, strict=True):
        source.restore(checkpoint)
        inputs = source.normalise(split.images)
        values = np.linalg.svd(networks.dense(source.predict, inputs), compute_uv=False)
        soft = np.linalg.svd(networks.dense(lambda x: tf.nn.softmax(source.predict(x)), inputs), compute_uv=False)
        columns = found.arrays
        np.testing.assert_allclose(columns["jacobian"], np.linalg.norm(values, axis=1), rtol=1e-4)
        np.testing.assert_allclose(columns["jacobian_operator_norm"], values[:, 0], rtol=1e-4)
        np.testing.assert_allclose(columns["nuclear_norm"], values.sum(axis=1), rtol=1e-4)
        np.testing.assert_allclose(columns["jacobian_operator_norm__softmax"], soft[:, 0], rtol=1e-3)
        logits = source.predict(tf.constant(inputs)).numpy()
        truth = tf.keras.losses.sparse_categorical_crossentropy(split.label, logits, from_logits=True)
        np.testing.assert_allclose(columns["crossentropy"], truth, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(columns["accuracy"], logits.argmax(axis=1) == split.label)
        np.testing.assert_array_equal(columns["id"], split.ids)
        np.testing.assert_array_equal(columns["label"], split.label)
        np.testing.assert_array_equal(columns["clean_label"], split.clean_label)
        assert (split.label != split.clean_label).sum() == 8  # a fifth of 40
        assert set(columns["epoch"]) == {checkpoint.epoch}


def test_the_table_and_its_name_say_what_it_is_of(home, tmp_path):
    found = networks.measurement(home, tmp_path, checkpoints=("5",), normalisations=("softmax",)).run(WHOLE)[0]
    assert found.path.name == "stats_softmax_train_n40_lr0.1_epochs5_epoch-5_1-of-1.parquet"
    read = pyarrow.parquet.read_table(found.path)
    assert read.column_names == [*stats_files.LABELS, "jacobian_operator_norm__softmax"]
    described = stats_files.read_description(found.path)
    assert described == found.table
    assert (described.group, described.seed) == (home.parts[-4:-1], "0")
    assert described.source["seeds"] == {"data_split_seed": 0, "seed": 0, "label_seed": 0, "random_data_seed": 0}
    assert described.columns[0].unit == "probability per input unit"


def test_the_published_schema(home, tmp_path):
    found = networks.measurement(home, tmp_path, checkpoints=("2",), mc_sample_seed=4).run(WHOLE)[0]
    path = tmp_path / "jacobian_operator_norm_none_example_train_n40_lr0.1_epochs5_epoch-2_1-of-1.json"
    stored = json.loads(path.read_text())
    assert list(stored) == ["sample_ids", "targets", "ground_truths", "stats", "metadata"]
    assert stored["sample_ids"] == found.arrays["id"].tolist()
    assert stored["targets"] == found.arrays["label"].tolist()
    assert stored["ground_truths"] == found.arrays["clean_label"].tolist()
    assert stored["stats"] == found.arrays["jacobian_operator_norm"][:, None].tolist()
    asked = {
        "model": "mlp",
        "split": "train",
        "checkpoint": {"epoch": 2, "step": 8},
        "sample_count": 40,
        "metric": "jacobian_operator_norm",
        "normalisation": "none",
        "strategy": "example",
        "learning_rate": 0.1,
        "epochs": 5,
    }
    assert {name: stored["metadata"][name] for name in asked} == asked
    assert stored["metadata"]["seeds"]["mc_sample_seed"] == 4
    assert stored["metadata"]["label_noise"]["share"] == 0.2
    assert {"dataset", "augmentation", "average", "unit"} <= stored["metadata"].keys()


def test_an_undefined_value_is_null_in_the_published_schema(tmp_path):
    column = stats_files.Column("jacobian", "none", "example", "", False, "u", ("jacobian",))
    facts = dict.fromkeys(("model", "dataset", "label_noise", "augmentation", "learning_rate", "epochs"))
    config = stats_config.StatsConfig().identity()
    table = stats_files.Table(
        "train",
        0,
        None,
        "",
        WHOLE,
        0,
        None,
        2,
        2,
        "",
        (column,),
        facts | {"seeds": {}},
        ("", "", ""),
        "0",
        None,
        config,
    )
    arrays = {name: np.zeros(2, int) for name in stats_files.LABELS} | {"jacobian": np.array([np.nan, 1.0])}
    stats_published.write(tmp_path, table, arrays)
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["stats"] == [[None], [1.0]]


@pytest.mark.parametrize("place", ["shift", "gaussian", "mixup"])
def test_shards_are_disjoint_and_together_what_one_run_gives(home, tmp_path, place):
    options = {
        "metrics": ("jacobian", "crossentropy"),
        "strategies": (place,),
        "averages": ("euclidean", "raw"),
        "num_samples": 2,
        "num_directions": 2,
        "shift_pixels": (1, 2),
        "skip": 3,
        "num_examples": 20,
        "checkpoints": ("0", "5"),
    }
    whole = networks.measurement(home, tmp_path / "whole", **options)
    expected = whole.run(WHOLE)
    cut = networks.measurement(home, tmp_path / "cut", **options)
    parts = [cut.run((i, 3)) for i in (1, 2, 3)]
    for number in range(2):
        ids = [set(part[number].arrays["id"].tolist()) for part in parts]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 20
        assert set.union(*ids) == set(networks.source(home).split("train").ids[3:23].tolist())
    groups = stats_tables.grouped(stats_tables.find([str(tmp_path / "cut")]))
    for group, one in zip(groups, expected, strict=True):
        joined = stats_tables.whole(group)
        assert joined.table == one.table
        np.testing.assert_array_equal(joined.arrays["id"], one.arrays["id"])
        assert_close({n: v for n, v in joined.arrays.items() if n not in stats_files.LABELS}, numbers(one))


def test_batch_size_memory_and_order_change_nothing_but_rounding(home, tmp_path):
    options = {
        "metrics": ("jacobian", "jacobian_operator_norm", "tangent_jacobian"),
        "strategies": ("ball",),
        "num_samples": 2,
        "checkpoints": ("2",),
    }
    first = networks.measurement(home, tmp_path / "a", **options)
    expected = first.run(WHOLE)[0]
    # One Jacobian takes 10 x 64 numbers of 4 bytes.
    for name, other in (("b", {"batch_size": 7}), ("c", {"memory_limit_mb": 0.02}), ("d", {"batch_size": 1000})):
        found = networks.measurement(home, tmp_path / name, **options | other).run(WHOLE)[0]
        assert_close(numbers(found), numbers(expected))
    order = np.random.default_rng(0).permutation(40)
    turned, _ = first.measured(first.checkpoints[0], order)
    assert_close(turned, {name: values[order] for name, values in numbers(expected).items()})


def test_pixels_and_standardised_inputs_differ_by_the_standard_deviation(home, tmp_path):
    options = {"metrics": ("jacobian", "tangent_jacobian"), "checkpoints": ("5",)}
    standardised = networks.measurement(home, tmp_path / "s", **options).run(WHOLE)[0].arrays
    pixels = networks.measurement(home, tmp_path / "p", units="pixels", **options).run(WHOLE)[0]
    deviation = networks.source(home).deviation
    np.testing.assert_allclose(pixels.arrays["jacobian"] * deviation, standardised["jacobian"], rtol=1e-4)
    # Colours change in pixels either way.
    np.testing.assert_allclose(pixels.arrays["tangent_jacobian"], standardised["tangent_jacobian"], rtol=5e-3)
    assert pixels.table.columns[0].unit == "logits per pixel in [0, 1]"


def test_a_kill_costs_one_block_and_nothing_is_done_twice(home, tmp_path, monkeypatch):
    monkeypatch.setattr(stats_run, "_BLOCK", 15)
    calls, original = [], measuring.Measurer.measure

    def dies_at_the_fifth(self, data, **options):
        calls.append(len(data))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, data, **options)

    monkeypatch.setattr(measuring.Measurer, "measure", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        networks.measurement(home, tmp_path).run(WHOLE)
    assert calls == [15, 15, 10, 15, 15]
    done = networks.measurement(home, tmp_path).run(WHOLE)
    assert calls[5:] == [15, 10, 15, 15, 10]
    assert [found.was_there for found in done] == [True, False, False]
    assert not list(tmp_path.glob(".parts-*"))
    assert_close(numbers(done[1]), numbers(networks.measurement(home, tmp_path / "again").run(WHOLE)[1]), 1e-7)
    del calls[:]
    again = networks.measurement(home, tmp_path).run(WHOLE)
    assert not calls
    assert [found.was_there for found in again] == [True, True, True]


def test_a_damaged_block_is_computed_again(home, tmp_path):
    made = networks.measurement(home, tmp_path, checkpoints=("2",))
    table = made._table(made.checkpoints[0], WHOLE, 40)
    parts = stats_files.parts_folder(tmp_path, table, made.config.positions(40))
    parts.mkdir()
    (parts / "0.npz").write_bytes(b"damaged")
    assert len(made.run(WHOLE)[0].arrays["id"]) == 40


def test_one_function_serves_all_checkpoints(home, tmp_path, monkeypatch):
    calls, original = [], functions.of
    monkeypatch.setattr(functions, "of", lambda *args, **options: calls.append(1) or original(*args, **options))
    networks.measurement(home, tmp_path).run(WHOLE)
    assert calls == [1]


def test_missing_json_files_are_written_again(home, tmp_path):
    networks.measurement(home, tmp_path, json=False).run(WHOLE)
    assert not list(tmp_path.glob("*_epoch-*.json"))
    networks.measurement(home, tmp_path).run(WHOLE)
    assert len(list(tmp_path.glob("*_epoch-*.json"))) == 3


def test_results_of_other_settings_are_refused_and_deleted_where_asked(home, tmp_path):
    networks.measurement(home, tmp_path).run(WHOLE)
    with pytest.raises(errors.MismatchError, match=r"settings.radius: stored 0.1, asked for 0.5(.|\n)*--overwrite"):
        networks.measurement(home, tmp_path, radius=0.5)
    # What stands in names of files may differ.
    networks.measurement(home, tmp_path, dataset_split="test", num_examples=4).run(WHOLE)
    assert len(list(tmp_path.glob("*.parquet"))) == 6
    networks.measurement(home, tmp_path, radius=0.5, overwrite=True, checkpoints=("0",)).run(WHOLE)
    assert len(list(tmp_path.glob("*.parquet"))) == len(list(tmp_path.glob("*_epoch-*.json"))) == 1


def test_a_network_that_was_trained_again_is_noticed(tmp_path):
    home = networks.model_run(tmp_path)
    networks.measurement(home, checkpoints=("2",)).run(WHOLE)
    before = networks.model_run(tmp_path / "other", weights=2)
    for path in (before / "checkpoints").iterdir():
        (home / "checkpoints" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(errors.MismatchError, match="trained again"):
        networks.measurement(home, checkpoints=("2",)).run(WHOLE)
    found = networks.measurement(home, checkpoints=("2",), overwrite=True).run(WHOLE)[0]
    assert not found.was_there


def test_no_published_values_of_other_weights_stay(tmp_path):
    home = networks.model_run(tmp_path)
    made = networks.measurement(home, checkpoints=("2",))
    table = made.run(WHOLE)[0].table
    path = stats_published.path(made.folder, table, table.columns[0])
    before = json.loads(path.read_text())["stats"]
    other = networks.model_run(tmp_path / "other", weights=2)
    for one in (other / "checkpoints").iterdir():
        (home / "checkpoints" / one.name).write_bytes(one.read_bytes())
    networks.measurement(home, checkpoints=("2",), overwrite=True, json=False).run(WHOLE)
    assert not path.exists()
    found = networks.measurement(home, checkpoints=("2",)).run(WHOLE)[0]
    after = json.loads(path.read_text())["stats"]
    assert after == found.arrays["jacobian_operator_norm"][:, None].tolist() != before


def test_a_kill_before_the_published_files_are_written_leaves_none_of_other_weights(tmp_path, monkeypatch):
    home = networks.model_run(tmp_path)
    made = networks.measurement(home, checkpoints=("2",))
    table = made.run(WHOLE)[0].table
    path = stats_published.path(made.folder, table, table.columns[0])
    # The table was deleted by hand.
    stats_files.table_path(made.folder, table).unlink()

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stats_published, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            networks.measurement(home, checkpoints=("2",)).run(WHOLE)
    assert not path.exists()
    networks.measurement(home, checkpoints=("2",)).run(WHOLE)
    assert path.exists()


def test_results_are_still_those_of_a_network_when_its_training_ends(tmp_path):
    home = networks.model_run(tmp_path, outcome=None)
    early = networks.measurement(home, checkpoints=("0",)).run(WHOLE)[0]
    assert early.table.source["outcome"] == "unfinished"
    rows = np.zeros(len(model_files.HISTORY_COLUMNS))
    result = model_files.result_of(model_files.STOPPED, "it was enough", rows)
    (home / model_files.RESULT_NAME).write_text(json.dumps(result))
    found = networks.measurement(home, checkpoints=("all",)).run(WHOLE)
    assert [one.was_there for one in found] == [True, False, False]
    assert {one.table.source["outcome"] for one in found} == {"stopped_early"}
    assert stats_files.read_description(found[0].path).source["outcome"] == "stopped_early"
    np.testing.assert_array_equal(stats_files.read_arrays(found[0].path)["id"], early.arrays["id"])
    assert found[-1].table.source["outcome"] == "stopped_early"


@pytest.mark.parametrize(
    ("stored", "asked"),
    [({"a": None}, {}), ({}, {"a": None}), ({"a": {}}, {}), ({"b": {"a": {}}}, {"b": {}})],
)
def test_nothing_is_another_setting_than_a_missing_one(tmp_path, stored, asked):
    stats_files.adopt(tmp_path, {"x": 1} | stored, False)
    (tmp_path / ".parts-1").mkdir()
    with pytest.raises(errors.MismatchError, match="other settings"):
        stats_files.adopt(tmp_path, {"x": 1} | asked, False)
    stats_files.adopt(tmp_path, {"x": 1} | stored, False)
    assert (tmp_path / ".parts-1").is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "text", ['{"mine": 1}', '{"schema_version": 2, "identity": {}}', '{"schema_version": 1, "identity": 3}']
)
def test_a_foreign_file_of_this_name_is_not_replaced(tmp_path, text, overwrite):
    foreign = {"stats.json": text, "results_epoch-3.json": "{}"}
    for name, content in foreign.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(errors.MismatchError, match=r"stats.json: expected settings of statistics.*--outdir"):
        stats_files.adopt(tmp_path, {"x": 1}, overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == foreign


def test_foreign_files_beside_results_stay(home, tmp_path):
    networks.measurement(home, tmp_path, checkpoints=("0",)).run(WHOLE)
    (tmp_path / "results_epoch-3.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    stats_files.adopt(tmp_path, {"x": 1}, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "results_epoch-3.json", "stats.json"]
    stats_files.adopt(tmp_path, {"x": 2}, False)
    assert json.loads((tmp_path / "stats.json").read_text())["identity"] == {"x": 2}
    assert (tmp_path / "results_epoch-3.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": ("7",)}, "--checkpoint=7: .*0 \\(step 0\\), 2 \\(step 8\\), 5 \\(step 20\\)"),
        ({"checkpoints": ("order:3",)}, "--checkpoint=order:3"),
        ({"checkpoints": ("step:2",)}, "--checkpoint=step:2"),
        ({"dataset_split": "heldout"}, "--dataset_split=heldout"),
        ({"strategies": ("svd",)}, "--svd_sizes=5,10,15,20,22,25 --num_directions=4"),
        ({"strategies": ("shift",), "shift_pixels": (1, 8)}, "--shift_pixels=1,8"),
        ({"strategies": ("shift",), "num_directions": 9}, "8 directions"),
    ],
)
def test_what_this_network_does_not_have_is_refused_before_anything_is_written(home, tmp_path, options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        networks.measurement(home, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("texts", "epochs"),
    [
        (("first",), [0]),
        (("last",), [5]),
        (("order:-2", "epoch:0"), [0, 2]),
        (("step:8", "2", "order:1"), [2]),
        (("last", "all"), [0, 2, 5]),
    ],
)
def test_checkpoints_are_named_by_order_step_and_epoch(home, texts, epochs):
    assert [one.epoch for one in networks.source(home).chosen_checkpoints(texts)] == epochs


def test_strategies_and_averages_have_columns_of_their_own(home, tmp_path):
    found = networks.measurement(
        home,
        tmp_path,
        checkpoints=("5",),
        metrics=("jacobian",),
        strategies=("shift",),
        averages=("path", "cumulative", "raw"),
        num_directions=2,
        shift_pixels=(1, 2),
        num_examples=5,
    ).run(WHOLE)[0]
    names = set(numbers(found))
    assert {"jacobian", "jacobian__shift__path", "jacobian__shift__path__quadrature_error"} <= names
    assert {"jacobian__shift__cumulative__0", "jacobian__shift__cumulative__1"} <= names
    assert {f"jacobian__shift__raw__{m}_{a}" for m in range(2) for a in range(3)} <= names
    assert {f"jacobian__shift__raw__length__{m}_{a}" for m in range(2) for a in range(2)} <= names
    columns = found.arrays
    np.testing.assert_array_equal(columns["jacobian__shift__raw__1_0"], columns["jacobian"])
    np.testing.assert_array_equal(columns["jacobian__shift__cumulative__1"], columns["jacobian__shift__path"])
    stored = json.loads(next(tmp_path.glob("jacobian_none_shift_raw_*.json")).read_text())
    assert np.shape(stored["stats"]) == (5, 6)

"""Networks of train_model, runs of zoos and models of one's own have the right splits, labels and units."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from estimators.jacobian import tangents
from heldout.datasets import random_images
from heldout.training import model_files, model_runs
from scripts.jacobian_stats import (
    aggregation,
    stats_config,
    stats_files,
    stats_published,
    stats_report,
    stats_run,
    stats_sources,
)
from tests import cases
from tests.scripts.jacobian_stats import networks
from zoo import errors, layout

_THIS = "tests.scripts.jacobian_stats.stats_sources_test"
_WEIGHTS = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_INPUTS = np.array([[np.log(2.0), 0.0, 0.0], [0.0, 3.0, 1.0]])


class Linear(tf.Module):
    """f = W x with the W of the methods' golden checks."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(_WEIGHTS)

    def __call__(self, inputs):
        return tf.matmul(inputs, self.weights)


def linear():
    return Linear(), (_INPUTS, np.array([0, 1])), (_INPUTS[:1], np.array([1]))


class Flat(Linear):
    """The mean of an image, ten times."""

    def __call__(self, images):
        return tf.reduce_mean(images, axis=(1, 2)) * tf.range(1.0, 11.0, dtype=images.dtype)


def flat():
    return Flat()


class Scaled(Linear):
    """Times a variable that is not trained, as moving averages are."""

    def __init__(self):
        super().__init__()
        self.average = tf.Variable(float(os.environ["AVERAGE"]), trainable=False, dtype=tf.float64)

    def __call__(self, inputs):
        return super().__call__(inputs) * self.average


def scaled():
    return Scaled(), (_INPUTS, np.array([0, 1])), (_INPUTS[:1], np.array([1]))


_BRIGHT = np.random.default_rng(1).uniform(0, 255, (6, 4, 4, 1))


class OfImages(Linear):
    """Two numbers of an image of 4 x 4 pixels from 0 to 255."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(16, 2)))

    def __call__(self, images):
        return super().__call__(tf.reshape(images, [-1, 16]))


def of_images():
    labels = np.zeros(6, int)
    return OfImages(), (_BRIGHT, labels), (_BRIGHT, labels)


class Nested(Linear):
    """Of a dictionary."""

    def __call__(self, given):
        return super().__call__(given["a"])


def nested():
    x = {"a": _INPUTS}
    return Nested(), (x, np.array([0, 1])), (x, np.array([0, 1]))


def measured(folder, **options):
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:linear"))
    config = stats_config.StatsConfig(**options)
    return stats_run.Measurement(config, source, folder).run((1, 1))[0]


def test_a_model_of_ones_own_has_the_golden_values(tmp_path):
    found = measured(
        tmp_path,
        metrics=("jacobian", "jacobian_operator_norm", "crossentropy", "confidence"),
        normalisations=("none", "softmax", "logsoftmax", "crossentropy"),
    )
    first = {name: values[0] for name, values in found.arrays.items()}
    expected = {
        "jacobian": 2.0,
        "jacobian_operator_norm": np.sqrt(3),
        "jacobian__softmax": 4 / 9,
        "jacobian_operator_norm__softmax": 4 / 9,
        "jacobian__logsoftmax": np.sqrt(10 / 9),
        "jacobian_operator_norm__logsoftmax": np.sqrt(10 / 9),
        "jacobian_operator_norm__crossentropy": np.sqrt(2) / 3,
        "crossentropy": 0.4054651081,
        "confidence": 0.4714045208,
    }
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    other = measured(tmp_path / "target", target_logit_only=True, dataset_split="test")
    assert other.arrays["jacobian_operator_norm__target"] == pytest.approx([np.sqrt(2)], rel=1e-9)
    assert other.path.name.startswith("stats_none+target_test_n1_")


def test_a_model_of_ones_own_is_given_images_as_the_data_set_normalises_them(tmp_path):
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:flat", dataset=name))
    config = stats_config.StatsConfig(metrics=("jacobian",), normalisations=("none",))
    found = stats_run.Measurement(config, source, tmp_path / "out").run((1, 1))[0]
    # Of k mean(x) over 64 pixels, k from 1 to 10.
    truth = np.sqrt(np.sum(np.arange(1, 11) ** 2) / 64)
    np.testing.assert_allclose(found.arrays["jacobian"], np.full(60, truth), rtol=1e-5)
    assert source.group[1] == "npz-tiny.npz"


class Precise(tf.Module):
    """Ten numbers of an image, in float64 alone."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 10)))

    def __call__(self, images):
        return tf.matmul(tf.reshape(images, [-1, 64]), self.weights)


def precise():
    return Precise()


def test_a_float64_model_of_ones_own_is_given_images_in_float64(tmp_path):
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:precise", dataset=name))
    found = stats_run.Measurement(stats_config.StatsConfig(), source, tmp_path / "out").run((1, 1))[0]
    truth = np.linalg.norm(np.random.default_rng(0).normal(size=(64, 10)), 2)
    np.testing.assert_allclose(found.arrays["jacobian_operator_norm"], np.full(60, truth), rtol=1e-12)


def test_frobenius_norms_from_random_signs_say_so(tmp_path):
    exact = measured(tmp_path / "exact", metrics=("jacobian",))
    assert [name for name in exact.arrays if name.endswith("standard_error")] == []
    found = measured(tmp_path / "signs", metrics=("jacobian",), method="products", num_signs=400)
    wrong = np.abs(found.arrays["jacobian"] - exact.arrays["jacobian"])
    deviations = found.arrays["jacobian__standard_error"]
    assert (wrong < 5 * deviations).all()
    assert wrong.max() > 0
    (column,) = found.table.columns
    published = json.loads(stats_published.path(tmp_path / "signs", found.table, column).read_text())["metadata"]
    assert (published["num_signs"], published["standard_errors"]) == (400, deviations.tolist())
    assert "jacobian (estimated from random signs) mean" in stats_report.line(*found)["text"]


def test_variables_that_are_not_trained_are_part_of_the_weights(tmp_path, monkeypatch):
    config = stats_config.StatsConfig(metrics=("jacobian",), normalisations=("none",))

    def values(average):
        monkeypatch.setenv("AVERAGE", average)
        source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:scaled"))
        found = stats_run.Measurement(config, source, tmp_path).run((1, 1))[0]
        return found.was_there, found.arrays["jacobian"][0]

    assert values("1") == (False, pytest.approx(2.0))
    assert values("1") == (True, pytest.approx(2.0))
    with pytest.raises(errors.MismatchError, match="other weights"):
        values("5")


def test_colours_of_inputs_of_ones_own_are_not_clipped(tmp_path):
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:of_images"))
    config = stats_config.StatsConfig(metrics=("tangent_jacobian",), normalisations=("none",))
    found = stats_run.Measurement(config, source, tmp_path).run((1, 1))[0]
    copies = tangents.Jitter(pixel_range=None).copies(_BRIGHT, np.arange(6))
    weights = source.model.variables[0].numpy()
    moved = (copies - _BRIGHT[:, None]).reshape(6, 4, 16) @ weights
    truth = np.sqrt(np.square(moved).sum(axis=2).mean(axis=1)) / tangents.PUBLISHED_DISTANCE
    np.testing.assert_allclose(found.arrays["tangent_jacobian"], truth, rtol=1e-6)


def test_pixels_of_real_images_alone_have_a_range(tmp_path):
    assert networks.source(networks.model_run(tmp_path)).pixel_range == (0.0, 1.0)
    drawn = networks.model_run(tmp_path / "drawn", random_data=random_images.KINDS[0], noise=None)
    assert networks.source(drawn).pixel_range is None
    assert networks.source(networks.zoo_run(tmp_path).directory).pixel_range == (0.0, 1.0)


def test_a_training_that_has_not_reached_its_end_has_no_last_checkpoint(tmp_path):
    for name, outcome, message in (
        ("a", None, r"seed-0: has no result.json, .*--unfinished"),
        ("b", model_files.DIVERGED, r"seed-0: its training diverged; .*--unfinished"),
    ):
        (tmp_path / name).mkdir()
        home = networks.model_run(tmp_path / name, outcome=outcome)
        source = networks.source(home)
        for text in ("last", "all", "order:-1"):
            with pytest.raises(errors.InvalidValueError, match=f"--checkpoint={text}: .*{message}"):
                source.chosen_checkpoints(["0", text])
        assert [one.epoch for one in source.chosen_checkpoints(["first", "order:1", "step:20"])] == [0, 2, 5]
        assert [one.epoch for one in networks.source(home, unfinished=True).chosen_checkpoints(["last"])] == [5]
        assert source.facts["outcome"] == (outcome or "unfinished")


def test_data_that_were_moved_are_named(tmp_path):
    home = networks.model_run(tmp_path)
    before = networks.source(home)
    (tmp_path / "b").mkdir()
    (tmp_path / "tiny.npz").rename(tmp_path / "b" / "tiny.npz")
    with pytest.raises(errors.MissingFileError):
        networks.source(home)
    after = networks.source(home, dataset=f"npz:{tmp_path / 'b' / 'tiny.npz'}")
    np.testing.assert_array_equal(after.split("train").images, before.split("train").images)
    assert (after.group, after.facts) == (before.group, before.facts)


def test_runs_of_other_ratios_and_experiments_differ_in_more_than_seeds(tmp_path):
    def settings(ratio, run_id, experiment="e"):
        run = layout.Run(tmp_path / "zoo", experiment, ratio, run_id)
        if not run.directory.exists():
            shutil.copytree(first.directory, run.directory)
        facts = networks.source(run.directory, dataset=name, architecture="mlp").facts
        alike.append(aggregation.alike(facts))
        return facts["settings"]

    first, alike = networks.zoo_run(tmp_path), []
    name = f"npz:{tmp_path / 'tiny.npz'}"
    assert settings(0.5, 3) == settings(0.5, 4)
    assert settings(0.7, 3) != settings(0.5, 3)
    # Without recipes nothing else tells the experiments apart.
    assert settings(0.5, 3, "f") != settings(0.5, 3, "g")
    assert [len(set(alike[i : i + 2])) for i in (0, 2, 4)] == [1, 2, 2]


def test_a_zoos_run_has_its_subset_and_the_rest(tmp_path):
    run = networks.zoo_run(tmp_path)
    source = networks.source(run.directory)
    mask = networks.subset(3)
    data = cases.tiny_digits()
    for name, ids in (
        ("train", np.flatnonzero(mask)),
        ("heldout", np.flatnonzero(~mask)),
        ("all_train", np.arange(60)),
    ):
        split = source.split(name)
        np.testing.assert_array_equal(split.ids, ids)
        np.testing.assert_array_equal(split.label, data.train.label[ids])
        np.testing.assert_array_equal(split.images[np.array([2, 5])], data.train.images[ids[[2, 5]]])
    assert len(source.split("test").ids) == 20
    assert [(one.epoch, one.step) for one in source.checkpoints] == [(1, 3), (2, 6)]
    assert (source.group, source.seed, source.home) == (("mlp", "npz-tiny.npz", "e-0.5"), "3", None)
    with pytest.raises(errors.InvalidValueError, match="--dataset_split=val"):
        source.split("val")


def test_checkpoints_are_restored(tmp_path):
    run = networks.zoo_run(tmp_path)
    source = networks.source(run.directory)
    x, found = tf.random.stateless_normal([2, 8, 8, 1], [1, 2]), []
    for one in (*source.checkpoints, source.checkpoints[0]):
        source.restore(one)
        found.append(source.predict(x).numpy())
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_network_of_train_model_has_its_three_splits(tmp_path):
    home = networks.model_run(tmp_path)
    source, data = networks.source(home), model_runs.ModelRun.open(home).data()
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(source.split(name).ids, data.split(name).ids)
        np.testing.assert_array_equal(source.split(name).label, data.split(name).label)
    assert source.home == home.resolve()
    assert source.facts["width"] is None
    images = data.test.images[:2]
    pixels = images / data.dataset.scale
    np.testing.assert_allclose(
        source.normalise(images), (pixels - source.mean) / source.deviation, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("name", "width"), [("conv5_16", 16), ("resnet18_64", 64), ("resnet18", None), ("mlp", None)])
def test_widths_are_read_from_names(name, width):
    assert stats_sources._width(name) == width


def test_what_cannot_be_is_refused(tmp_path):
    home = networks.model_run(tmp_path)
    with pytest.raises(errors.MismatchError, match=r"--dataset=digits: not the data"):
        networks.source(home, dataset="digits")
    with pytest.raises(errors.InvalidValueError, match=r"--arch=mlp: --run=.*leave the flag out"):
        networks.source(home, architecture="mlp")
    for path in (home / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(errors.MissingFileError, match="checkpoint"):
        networks.source(home)
    run = networks.zoo_run(tmp_path)
    for path in run.checkpoints_directory.iterdir():
        path.unlink()
    with pytest.raises(errors.MissingFileError, match="has no complete checkpoint"):
        networks.source(run.directory)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear", {"dataset_split": "heldout"}, "has train and test"),
        ("linear", {"units": "pixels"}, "--units=pixels"),
        ("linear", {"strategies": ("shift",)}, "are of images"),
        ("linear", {"metrics": ("tangent_jacobian",)}, "are of images"),
        ("nested", {}, "taken by one array"),
    ],
)
def test_what_a_model_of_ones_own_cannot_have_is_refused(tmp_path, name, options, message):
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:{name}"))
    with pytest.raises(errors.InvalidValueError, match=message):
        stats_run.Measurement(stats_config.StatsConfig(**options), source, tmp_path)


def test_mixing_needs_two_examples(tmp_path):
    source = stats_sources.load(stats_config.SourceConfig(model=f"{_THIS}:linear"))
    config = stats_config.StatsConfig(strategies=("mixup",), dataset_split="test")
    with pytest.raises(errors.InvalidValueError, match="none to mix it with"):
        stats_run.Measurement(config, source, tmp_path)


def test_where_results_go(tmp_path):
    home = pathlib.Path("/nets/n/mlp/digits/s/seed-1")

    def folder(home=None, **options):
        config = stats_config.SourceConfig(run="r", **options)
        return stats_files.folder_of(config, ("m", "d", "s"), "7", home)

    assert folder(home) == home / "jacobian_stats"
    assert folder(home, save_dir="/a", name="b") == pathlib.Path("/a/b/m/d/s/seed-7/jacobian_stats")
    assert folder(home, outdir="/o") == pathlib.Path("/o")
    assert folder(home, name="b") == home / "jacobian_stats-b"
    assert folder(home, save_dir="/a") == pathlib.Path("/a/networks/m/d/s/seed-7/jacobian_stats")
    with pytest.raises(errors.InvalidValueError, match="--save_dir"):
        folder()

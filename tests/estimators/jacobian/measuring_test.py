"""Many statistics in one pass against each measured by itself, and their summaries by hand."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples
from estimators.jacobian import (
    averages,
    functions,
    gram,
    lanczos,
    measuring,
    operator_norms,
    places,
    pointwise,
    spectra,
    summaries,
    tangents,
)
from tests.estimators.jacobian import networks

_FIRST = ("jacobian", "jacobian_operator_norm", "nuclear_norm", "crossentropy", "accuracy", "confidence")


def test_each_column_is_what_it_says():
    function, inputs, labels = networks.case("convolutional")
    data = examples.Examples(inputs, labels, np.arange(7) + 10)
    where = {"shift": places.Shifts((1, 2), 3), "noise": places.Gaussian(0.1, 4, seed=1)}
    found = measuring.measure(
        function,
        data,
        metrics=_FIRST,
        normalisations=("none", "softmax"),
        places=where,
        averages=averages.NAMES,
        batch_size=5,
    )
    assert len(found.columns) == (3 * 2 + 3) * (1 + 2 * 4)
    logits, products = gram.make(function)(inputs)
    for name in ("none", "softmax"):
        spectrum = spectra.of_gram(products, logits, labels, name)
        np.testing.assert_allclose(found.column("jacobian", name).values, spectrum.frobenius_norms, rtol=1e-10)
        np.testing.assert_allclose(found.column("nuclear_norm", name).values, spectrum.nuclear_norms, rtol=1e-7)
    for place_name, place in where.items():
        points = place.points(inputs, data.ids)
        flat = points.inputs.reshape([-1, 8, 8, 2])
        around_logits, around = gram.make(function)(flat)
        repeated = np.repeat(labels, place.num_directions * place.num_anchors)
        around = spectra.of_gram(around, around_logits, repeated).operator_norms.reshape(points.lengths.shape)
        here = found.column("jacobian_operator_norm", "none").values
        values = np.concatenate([np.broadcast_to(here[:, None, None], (*around.shape[:2], 1)), around], axis=2)
        raw = found.column("jacobian_operator_norm", "none", place_name, "raw")
        np.testing.assert_allclose(raw.values, values, rtol=1e-9)
        np.testing.assert_allclose(raw.lengths, points.lengths)
        for average, expected in (
            ("euclidean", averages.euclidean(values)),
            ("path", averages.path(values, points.lengths)),
            ("cumulative", averages.cumulative(values, points.lengths)),
        ):
            column = found.column("jacobian_operator_norm", "none", place_name, average)
            np.testing.assert_allclose(column.values, expected.values, rtol=1e-9)
            np.testing.assert_allclose(column.details.standard_errors, expected.standard_errors, rtol=1e-7)


def test_metrics_of_outputs_by_hand():
    function, _ = networks.linear(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    data = (np.array([[np.log(2), 0, 0]] * 2), np.array([0, 1]))
    found = measuring.measure(function, data, metrics=("crossentropy", "accuracy", "confidence"))
    np.testing.assert_allclose(found.column("crossentropy").values, [0.4054651, 1.0986123], rtol=1e-6)
    np.testing.assert_allclose(found.column("accuracy").values, [1, 0])
    np.testing.assert_allclose(found.column("confidence").values, [0.4714045, 0.9428090], rtol=1e-6)


@pytest.mark.parametrize("normalisation", ["none", "logsoftmax", "crossentropy"])
def test_both_methods_give_the_same_operator_norms(normalisation):
    function, inputs, labels = networks.case("residual", num_outputs=6)
    labels = labels % 6
    options = {"metrics": ("jacobian_operator_norm", "crossentropy"), "normalisations": (normalisation,)}
    config = lanczos.Config(tolerance=1e-7)
    ours, other = (
        measuring.measure(function, (inputs, labels), method=method, config=config, **options)
        for method in ("gram", "products")
    )
    for first, second in zip(ours.columns, other.columns, strict=True):
        assert (first.metric, first.num_unconverged, second.num_unconverged) == (second.metric, 0, 0)
        np.testing.assert_allclose(first.values, second.values, rtol=1e-9)


def test_frobenius_norms_by_products_and_iterations_that_end_early():
    function, inputs, labels = networks.case("residual", num_outputs=6)
    options = {"metrics": ("jacobian", "jacobian_operator_norm"), "normalisations": ("none", "crossentropy")}
    config = lanczos.Config(tolerance=1e-9, max_steps=1)
    exact = measuring.measure(function, (inputs, labels), **options)
    found = measuring.measure(function, (inputs, labels), method="products", num_samples=400, config=config, **options)
    np.testing.assert_allclose(
        found.column("jacobian", "none").values, exact.column("jacobian", "none").values, rtol=0.2
    )
    estimated = found.column("jacobian", "none")
    assert estimated.standard_errors is not None
    wrong = np.abs(estimated.values - exact.column("jacobian", "none").values)
    assert (wrong < 5 * estimated.standard_errors).all()
    assert wrong.max() > 0.05 * estimated.standard_errors.max()
    assert exact.column("jacobian", "none").standard_errors is None
    one = ("jacobian", "crossentropy")
    assert found.column(*one).standard_errors is None
    np.testing.assert_allclose(found.column(*one).values, exact.column(*one).values, rtol=1e-10)
    assert found.column("jacobian_operator_norm", "none").num_unconverged == 7
    assert found.column("jacobian_operator_norm", "crossentropy").num_unconverged == 0


def test_errors_of_averages_know_of_the_signs_at_the_example():
    generator = np.random.default_rng(0)
    matrix, inputs = generator.normal(size=(30, 40)), generator.normal(size=(60, 30))
    # The Jacobian is nearly the same everywhere, so that hardly anything but the signs is random.
    function = functions.of(lambda x: x @ matrix + 1e-3 * tf.tanh(x @ matrix), inputs)
    near = {"near": places.Gaussian(1e-3, 64, 0)}
    options = {"metrics": ("jacobian",), "places": near, "averages": ("euclidean", "path")}
    exact, found = (
        measuring.measure(function, (inputs, np.zeros(60, int)), method=method, **options)
        for method in ("gram", "products")
    )
    for average in ("euclidean", "path"):
        column = found.column("jacobian", "none", "near", average)
        assert column.is_estimated
        truth = exact.column("jacobian", "none", "near", average)
        assert not truth.is_estimated
        shares = (column.values - truth.values) / column.details.standard_errors
        assert 0.7 < np.sqrt(np.square(shares).mean()) < 1.5


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-5), (tf.float64, 1e-10)])
@pytest.mark.parametrize("method", ["gram", "products"])
def test_shards_batches_and_order_change_nothing(dtype, tolerance, method):
    function, inputs, labels = networks.case("convolutional", dtype)
    options = {
        "metrics": ("jacobian_operator_norm",),
        "places": {"ball": places.Ball(0.5, 2), "mix": places.MixUp(inputs, np.arange(7), num_samples=2)},
        "method": method,
    }
    whole = measuring.measure(function, (inputs, labels), **options)
    order = np.random.default_rng(0).permutation(7)
    data = examples.Examples(inputs, labels).take(order)
    parts = [measuring.measure(function, data.take(slice(k, k + 3)), batch_size=4, **options) for k in (0, 3, 6)]
    for k, column in enumerate(whole.columns):
        found = np.concatenate([part.columns[k].values for part in parts])
        np.testing.assert_allclose(found, column.values[order], rtol=tolerance)


def test_tangents_are_measured_at_the_examples():
    images = np.random.default_rng(0).uniform(0.2, 0.8, (5, 8, 8, 1))
    kernel = networks.weights(3, 3, 1, 3)
    function = functions.of(lambda x: tf.reduce_mean(tf.tanh(tf.nn.conv2d(x, kernel, 1, "SAME")), [1, 2]), images)
    data, jitter = (images, np.zeros(5, int)), tangents.Jitter(num_copies=2)
    found = measuring.measure(
        function, data, metrics=measuring.TANGENT_METRICS, normalisations=("softmax",), jitter=jitter
    )
    expected = tangents.measure(function, data, "softmax", jitter=jitter)
    np.testing.assert_allclose(found.column("tangent_jacobian", "softmax").values, expected.jacobian, rtol=1e-9)
    np.testing.assert_allclose(found.column("tangent_hessian", "softmax").values, expected.hessian, rtol=1e-9)
    only = measuring.measure(function, data, metrics=("tangent_jacobian",), jitter=jitter)
    assert len(only.columns) == 1


_IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (11, 6, 6, 1))


class _Counted(tf.Module):
    """A network that counts how often it is called, which compiled functions do while they are traced alone."""

    def __init__(self):
        super().__init__()
        self.kernel, self.head, self.num_calls = networks.weights(3, 3, 1, 3), networks.weights(3, 4), 0

    def __call__(self, images):
        self.num_calls += 1
        return tf.reduce_mean(tf.tanh(tf.nn.conv2d(images, self.kernel, 1, "SAME")), [1, 2]) @ self.head


@pytest.mark.parametrize("method", ["gram", "products"])
def test_shards_and_checkpoints_are_measured_without_tracing_again(method):
    model = _Counted()
    function = functions.of(model, _IMAGES)
    settings = {
        "metrics": ("jacobian", "jacobian_operator_norm", "confidence", *measuring.TANGENT_METRICS),
        "normalisations": ("none", "softmax", "crossentropy"),
        "places": {"shift": places.Shifts((1, 2), 2), "noise": places.Gaussian(0.1, 3)},
        "method": method,
        "batch_size": 4,
    }
    measurer, labels = measuring.Measurer(function, **settings), np.arange(11) % 4
    data = examples.Examples(_IMAGES, labels)
    first = measurer.measure(data)
    traced = model.num_calls
    for variables in (None, (2.0, -1.0)):
        if variables:
            for variable, factor in zip((model.kernel, model.head), variables, strict=True):
                variable.assign(factor * variable)
        shards = [measurer.measure(data.take(slice(k, k + 4))) for k in (0, 4, 8)]
        assert model.num_calls == traced
        expected = measuring.measure(function, data, **settings)
        traced = model.num_calls
        for k, column in enumerate(expected.columns):
            found = np.concatenate([shard.columns[k].values for shard in shards])
            np.testing.assert_allclose(found, column.values, rtol=1e-9, atol=1e-12)
    assert not np.allclose(expected.columns[0].values, first.columns[0].values)


def test_points_of_an_example_have_signs_of_their_own():
    function, inputs, labels = networks.case("convolutional")
    settings = {"metrics": ("jacobian",), "method": "products", "num_samples": 1, "averages": ("raw",)}
    found = measuring.measure(function, (inputs, labels), places={"here": places.Sphere(1e-12, 2)}, **settings)
    values = found.column("jacobian", "none", "here", "raw").values
    np.testing.assert_allclose(values[:, 0, 0], values[:, 1, 0])
    drawn = np.stack([values[:, 0, 0], values[:, 0, 1], values[:, 1, 1]])
    # Sixteen patterns of signs, of which half are the others' negatives: few of seven examples draw one twice.
    assert (np.abs(np.diff(np.sort(drawn, axis=0), axis=0)) > 1e-6).all(axis=0).sum() >= 3


def test_memory_is_bounded():
    function, inputs, labels = networks.case("convolutional")
    plain = measuring.measure(function, (inputs, labels), metrics=("nuclear_norm",))
    num_bytes = gram.bytes_per_example(function)
    found = measuring.measure(
        function, (inputs, labels), metrics=("nuclear_norm",), memory_limit_mb=2 * num_bytes / 1e6
    )
    np.testing.assert_allclose(found.columns[0].values, plain.columns[0].values, rtol=1e-7)
    sizes = set()
    noted = functions.Function(
        lambda x: sizes.add(x.shape[0]) or function.predict(x), (8, 8, 2), function.num_outputs, function.dtype
    )
    # Four vectors of four numbers and their products, in float64 twice over: 768 bytes.
    measuring.measure(noted, (inputs, labels), method="products", memory_limit_mb=2000e-6)
    measuring.measure(noted, (inputs, labels), method="gram", memory_limit_mb=2 * num_bytes / 1e6)
    # Of a single one the operations are counted.
    assert sizes == {1, 2}
    twice = measuring.measure(function, (inputs, labels), normalisations=("none", "none"))
    assert [len(column.values) for column in twice.columns] == [7]
    for settings in ({"metrics": ("jacobian",)}, {"method": "products"}, {"metrics": ("tangent_hessian",)}):
        with pytest.raises(errors.InvalidArgumentError, match="memory_limit_mb 1e-05: one example takes"):
            measuring.Measurer(function, memory_limit_mb=1e-5, **settings)


def test_progress_is_told():
    function, inputs, labels = networks.case("convolutional")
    told = []
    where = {"shift": places.Shifts((1,), 8)}
    measuring.measure(function, (inputs, labels), places=where, batch_size=1, progress=lambda *done: told.append(done))
    assert told[-1] == (7, 7)
    assert len(told) == 7


def test_summaries_by_hand():
    values, ids = np.array([3.0, np.nan, 1.0, 2.0, 10.0]), np.array([5, 6, 7, 8, 9])
    found = summaries.summarise(values, ids, levels=(0.0, 0.5, 1.0))
    assert (found.maximum, found.argmax, found.mean, found.num, found.num_undefined) == (10.0, 9, 4.0, 4, 1)
    np.testing.assert_allclose(found.quantiles, [1, 2.5, 10])
    np.testing.assert_array_equal(found.quantile_ids, [7, 8, 9])
    np.testing.assert_allclose(found.mean_standard_error, np.std([3, 1, 2, 10], ddof=1) / 2)
    assert np.isnan(summaries.summarise(values[:1], ids[:1]).mean_standard_error)


def test_misuse_is_refused():
    function, inputs, labels = networks.case("convolutional")
    refused = {
        r"metrics \['norm'\]": {"metrics": ("norm",)},
        r"normalisations \['relu'\]": {"normalisations": ("relu",)},
        "averages empty": {"averages": ()},
        "a place is called 'example'": {"places": {"example": places.Shifts()}},
        "method 'best': expected": {"method": "best"},
    }
    for message, options in refused.items():
        with pytest.raises(errors.InvalidArgumentError, match=message):
            measuring.measure(function, (inputs, labels), **options)
    found = measuring.measure(function, (inputs, labels), metrics=("accuracy",))
    with pytest.raises(errors.InvalidArgumentError, match="was not measured; there are"):
        found.column("jacobian")
    broken = functions.Function(lambda x: x[:, 0, 0] / 0.0, (8, 8, 2), 2, tf.float64)
    with pytest.raises(errors.NotFiniteError, match="the input Jacobian of example 0"):
        measuring.measure(broken, (inputs, labels % 2), metrics=("jacobian",))
    with pytest.raises(errors.MismatchError, match=r"expected \[N\] both"):
        summaries.summarise(np.zeros(2), np.zeros(3))
    with pytest.raises(errors.InvalidArgumentError, match="must lie from 0 to 1"):
        summaries.summarise(np.zeros(2), np.zeros(2), levels=(2.0,))
    with pytest.raises(errors.InvalidArgumentError, match="none of 2 values is a number"):
        summaries.summarise(np.full(2, np.nan), np.zeros(2))


def test_points_are_evaluated_once_for_all(monkeypatch):
    function, inputs, labels = networks.case("convolutional")
    calls = []
    make = gram.make

    def counting(function):
        compute = make(function)
        return lambda batch: calls.append(len(batch)) or compute(batch)

    monkeypatch.setattr(pointwise.gram, "make", counting)
    measuring.measure(function, (inputs, labels), metrics=_FIRST, normalisations=("none", "softmax", "crossentropy"))
    assert calls == [7]
    assert operator_norms.Solver(function).config == lanczos.Config()

"""Spectra of input Jacobians against written-out Jacobians and closed forms."""

import functools

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from estimators import errors
from estimators.jacobian import batching, functions, gram, normalisations, pointwise, spectra
from tests.estimators.jacobian import networks


@functools.cache
def _compiled(function):
    return gram.make(function)


def _spectra(function, inputs, labels, name="none", **options):
    logits, products = _compiled(function)(inputs)
    return spectra.of_gram(products, logits, labels, name, itemsize=function.dtype.size, **options)


def _normalised_jacobians(function, inputs, labels, name, target_logit_only):
    """[N, Q, D], the normalisation differentiated by TensorFlow and not by its formula."""
    rows = []
    for k in range(len(inputs)):
        label = tf.constant(labels[k : k + 1])

        def predict(x, label=label):
            return normalisations.apply(name, function.predict(x), label, target_logit_only)

        rows.append(networks.dense_jacobians(predict, inputs[k : k + 1])[0])
    return np.array(rows)


@pytest.mark.parametrize("name", networks.ALL)
@pytest.mark.parametrize("normalisation", normalisations.NAMES)
@pytest.mark.parametrize("target_logit_only", [False, True])
def test_all_singular_values_are_those_of_the_dense_jacobian(name, normalisation, target_logit_only):
    function, inputs, labels = networks.case(name, num=3)
    truth = _normalised_jacobians(function, inputs, labels, normalisation, target_logit_only)
    values = np.linalg.svd(truth, compute_uv=False)
    found = _spectra(function, inputs, labels, normalisation, target_logit_only=target_logit_only)
    rank = found.rank
    np.testing.assert_allclose(found.singular_values[:, :rank], values[:, :rank], rtol=1e-8)
    assert (found.singular_values[:, rank:] < 1e-7 * values[:, :1]).all()
    np.testing.assert_allclose(found.operator_norms, values[:, 0], rtol=1e-12)
    np.testing.assert_allclose(found.frobenius_norms, np.linalg.norm(truth, axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.nuclear_norms, values.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.stable_ranks, (values**2).sum(axis=1) / values[:, 0] ** 2, rtol=1e-12)
    np.testing.assert_allclose(found.condition_numbers, values[:, 0] / values[:, rank - 1], rtol=1e-8)
    assert (found.num_resolved == rank).all()


@pytest.mark.parametrize("is_sonnet", [False, True])
def test_single_precision_gives_the_jacobian_to_single_precision(is_sonnet):
    inputs, labels = networks.images(3, dtype=np.float32), networks.labels(3)
    if is_sonnet:
        tf.random.set_seed(3)
        layers = [snt.Conv2D(4, 3), tf.nn.relu, snt.Flatten(), snt.Linear(4)]
        model = snt.Sequential(layers)
        model(inputs)
    else:
        model = networks.Residual(dtype=tf.float32)
    function = functions.of(model, inputs)
    values = np.linalg.svd(networks.dense_jacobians(function.predict, inputs), compute_uv=False)
    np.testing.assert_allclose(_spectra(function, inputs, labels).singular_values, values, rtol=1e-5)


_WEIGHTS = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("normalisation", "only", "operator", "frobenius"),
    [
        ("none", False, [3**0.5, 3**0.5], [2.0, 2.0]),
        ("softmax", False, [4 / 9, 4 / 9], [4 / 9, 4 / 9]),
        ("logsoftmax", False, [1.0540926, 1.0540926], [1.0540926, 1.0540926]),
        ("crossentropy", False, [0.4714045, 0.9428090], [0.4714045, 0.9428090]),
        ("none", True, [2**0.5, 2**0.5], [2**0.5, 2**0.5]),
    ],
)
def test_two_outputs_by_hand(normalisation, only, operator, frobenius):
    function, _ = networks.linear(_WEIGHTS)
    inputs, labels = np.array([[np.log(2), 0, 0]] * 2), np.array([0, 1])
    found = _spectra(function, inputs, labels, normalisation, target_logit_only=only)
    np.testing.assert_allclose(found.operator_norms, operator, rtol=1e-7)
    np.testing.assert_allclose(found.frobenius_norms, frobenius, rtol=1e-7)


def test_probabilities_of_two_outputs_by_hand():
    logits = np.array([[np.log(2), 0.0]])
    np.testing.assert_allclose(normalisations.probabilities(logits), [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(-normalisations.log_probabilities(logits), [[0.4054651, 1.0986123]], rtol=1e-6)


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("name", normalisations.NAMES)
def test_values_on_the_host_are_those_in_the_graph(name, only):
    logits, labels = 3 * np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 4
    expected = normalisations.apply(name, tf.constant(logits), tf.constant(labels), only)
    np.testing.assert_allclose(normalisations.values(name, logits, labels, only), expected, rtol=1e-12)


def test_a_linear_network_has_the_norm_of_its_matrix_everywhere():
    factors = [np.random.default_rng(k).normal(size=(5, 5)) for k in range(3)]
    inputs = np.random.default_rng(9).normal(size=(6, 5))
    one = networks.linear(factors[0])[0]
    found = _spectra(one, inputs, np.zeros(6, int)).operator_norms
    np.testing.assert_allclose(found, np.linalg.norm(factors[0], 2), rtol=1e-12)
    deep = functions.of(lambda x: ((x @ factors[0]) @ factors[1] + 1.0) @ factors[2], inputs)
    found = _spectra(deep, inputs, np.zeros(6, int)).operator_norms
    np.testing.assert_allclose(found, np.linalg.norm(factors[0] @ factors[1] @ factors[2], 2), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_singular_values_scale_with_the_jacobian(scale):
    function, inputs, labels = networks.case("convolutional")
    plain = _spectra(function, inputs, labels).singular_values
    scaled = functions.of(lambda x: scale * function.predict(x), inputs)
    np.testing.assert_allclose(_spectra(scaled, inputs, labels).singular_values, scale * plain, rtol=1e-9)


def test_norms_bound_one_another():
    function, inputs, labels = networks.case("convolutional")
    for name in normalisations.NAMES:
        found = _spectra(function, inputs, labels, name)
        num = found.singular_values.shape[1]
        assert (found.operator_norms <= found.frobenius_norms * (1 + 1e-12)).all()
        assert (found.frobenius_norms <= np.sqrt(num) * found.operator_norms * (1 + 1e-12)).all()
    logits = 5 * np.random.default_rng(0).normal(size=(50, 6))
    slopes = normalisations.matrices("softmax", logits, np.zeros(50, int))
    assert np.linalg.norm(slopes, 2, axis=(1, 2)).max() <= 0.5


def test_networks_of_rectifiers_without_biases_are_their_jacobian():
    first, second = (np.random.default_rng(k).normal(size=shape) for k, shape in enumerate([(5, 9), (9, 3)]))
    inputs = np.random.default_rng(2).normal(size=(4, 5))
    function = functions.of(lambda x: tf.nn.relu(x @ first) @ second, inputs)
    outputs, rows = gram.make_jacobians(function)(inputs)
    np.testing.assert_allclose(np.einsum("bkd,bd->bk", rows, inputs), outputs, rtol=1e-12)
    closed = np.stack([(first * (x @ first > 0) @ second).T for x in inputs])
    np.testing.assert_allclose(rows, closed, rtol=1e-12)


def test_orthogonal_matrices_have_singular_values_of_one():
    function, inputs = networks.linear(np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0])
    np.testing.assert_allclose(_spectra(function, inputs, [0]).singular_values, 1, rtol=1e-12)


def test_a_periodic_convolution_has_the_singular_values_of_its_transform():
    kernel = np.random.default_rng(0).normal(size=(3, 3))
    inputs = np.random.default_rng(1).normal(size=(2, 6, 6, 1))

    def predict(x):
        wrapped = tf.concat([x[:, -1:], x, x[:, :1]], axis=1)
        wrapped = tf.concat([wrapped[:, :, -1:], wrapped, wrapped[:, :, :1]], axis=2)
        return tf.reshape(tf.nn.conv2d(wrapped, kernel[:, :, None, None], 1, "VALID"), [x.shape[0], 36])

    found = _spectra(functions.of(predict, inputs), inputs, [0, 0]).singular_values
    expected = np.sort(np.abs(np.fft.fft2(kernel, s=(6, 6))).ravel())[::-1]
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-8)


def test_a_network_that_begins_at_zero_has_no_jacobian():
    inputs = np.random.default_rng(1).normal(size=(2, 5))
    first, last = np.random.default_rng(0).normal(size=(5, 8)), np.zeros((8, 3))
    function = functions.of(lambda x: tf.nn.relu(x @ first) @ last, inputs)
    found = _spectra(function, inputs, [0, 1])
    assert (found.singular_values == 0).all()
    assert np.isnan(found.stable_ranks).all()
    assert np.isnan(found.condition_numbers).all()
    outputs = gram.make(function)(inputs)[0].numpy()
    np.testing.assert_allclose(-normalisations.log_probabilities(outputs), np.log(3))


def test_what_is_rounding_is_said():
    function, inputs = networks.linear(np.diag([1.0, 1e-3, 1e-12]))
    found = _spectra(function, inputs, [0])
    assert found.num_resolved[0] == 2
    assert np.isnan(found.condition_numbers[0])
    single = _spectra(networks.linear(np.diag([1.0, 1e-3, 3e-8]).astype(np.float32))[0], inputs.astype(np.float32), [0])
    assert single.num_resolved[0] == 2


def test_one_output_has_no_softmax_spectrum():
    function, inputs = networks.linear(np.ones((1, 3)))
    found = _spectra(function, inputs, [0], "softmax")
    assert found.rank == 0
    assert found.operator_norms[0] == 0
    assert np.isnan(found.condition_numbers[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-5), (tf.float64, 1e-10)])
def test_batches_and_order_change_nothing(dtype, tolerance):
    function, inputs, labels = networks.case("residual", dtype)
    whole = _spectra(function, inputs, labels).singular_values
    order = np.random.default_rng(0).permutation(7)
    compute = _compiled(function)
    # Batches of 3, 3 and 1.
    parts = [compute(inputs[order[k : k + 3]])[1].numpy() for k in range(0, 7, 3)]
    logits = compute(inputs)[0]
    found = spectra.of_gram(np.concatenate(parts), logits, labels).singular_values
    np.testing.assert_allclose(found, whole[order], rtol=tolerance)


def test_a_batch_size_is_traced_once():
    function, inputs, _ = networks.case("convolutional")
    compute = gram.make(function)
    for _ in range(3):
        compute(inputs)
    compute(inputs[:2])
    assert compute.experimental_get_tracing_count() == 2


def test_memory_decides_how_many_are_held():
    function, _, _ = networks.case("convolutional")
    assert gram.bytes_per_example(function) == 4 * 128 * 24
    assert batching.most(100, 0.00105) == 10
    with pytest.raises(errors.InvalidArgumentError, match="memory_limit_mb 1: one example takes 2 MB; raise the limit"):
        batching.most(2_000_000, 1)


def test_misuse_is_refused():
    with pytest.raises(errors.InvalidArgumentError, match="normalisation 'sigmoid': expected one of none, softmax"):
        normalisations.check("sigmoid")
    with pytest.raises(errors.InvalidArgumentError, match="label 4 of example 1: the model has 4 outputs"):
        normalisations.check_labels([0, 4, -1], 4)
    with pytest.raises(errors.InvalidArgumentError, match="expected class numbers"):
        normalisations.check_labels([0.5], 4)
    with pytest.raises(errors.MismatchError, match=r"products of shape \(2, 3, 3\) beside logits \(2, 4\)"):
        spectra.of_gram(np.zeros((2, 3, 3)), np.zeros((2, 4)), [0, 0])
    with pytest.raises(errors.InvalidArgumentError, match="method 'fast': expected one of auto, gram"):
        pointwise.choose(4, ["jacobian"], [4], "fast")
    with pytest.raises(errors.InvalidArgumentError, match="gives no stable_rank"):
        pointwise.choose(4, ["stable_rank"], [4], "products")


@pytest.mark.parametrize(
    ("num_outputs", "metrics", "sizes", "expected"),
    [
        (10, ["jacobian_operator_norm"], [10], "gram"),
        (40, ["jacobian_operator_norm"], [40], "gram"),
        (100, ["jacobian_operator_norm"], [100], "products"),
        (100, ["jacobian_operator_norm"], [100] * 5, "gram"),
        (100, ["jacobian", "jacobian_operator_norm"], [100], "gram"),
        (1000, ["jacobian"], [1000], "products"),
        (1000, ["jacobian", "nuclear_norm"], [1000], "gram"),
        (10, ["jacobian"], [1], "products"),
    ],
)
def test_the_cheaper_way_is_chosen(num_outputs, metrics, sizes, expected):
    assert pointwise.choose(num_outputs, metrics, sizes, "auto") == expected

"""The tangent kernel against explicit Jacobians, in float64 where TensorFlow has it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, ntk, parameters, targets
from estimators.ntk import contractions
from tests.estimators import models
from tests.estimators.ntk import truth

_QUICK = ("mlp_10", "scalar", "cnn_10", "residual", "tied", "embedding", "weight_norm", "softplus_scale")
_WAYS = [pytest.param(way, marks=() if way == "auto" else pytest.mark.slow) for way in ("auto", *contractions.METHODS)]
_CASES = [pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in sorted(truth.CASES)]


@pytest.fixture(name="case", params=_CASES, scope="module")
def _case(request):
    return truth.CASES[request.param]()


@pytest.fixture(name="jacobian", scope="module")
def _jacobian(case):
    return truth.jacobian(case.target, case.inputs)


def close(case, values, expected):
    tolerance = 1e-11 if case.target.dtype == tf.float64 else 2e-5
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def first(case, num):
    return tf.nest.map_structure(lambda array: array[:num], case.inputs)


@pytest.mark.parametrize("method", _WAYS)
def test_every_way_gives_the_products_of_explicit_jacobians(case, jacobian, method):
    kernel = ntk.TangentKernel(case.target, case.inputs, method=method, batch_size=4)
    expected = jacobian @ jacobian.T
    k = kernel.num_outputs
    found = kernel.full(case.inputs)
    assert found.dtype == case.target.dtype.as_numpy_dtype
    close(case, found, expected)
    np.testing.assert_array_equal(found, found.T)
    close(case, kernel.full(case.inputs, first(case, 3)), expected[:, : 3 * k])
    traces = np.einsum("ijlj->il", truth.by_example(expected, k))
    close(case, kernel.trace(case.inputs), traces)
    close(case, kernel.mean_trace(first(case, 3), case.inputs), traces[:3] / k)


def test_the_diagonal_and_its_blocks(case, jacobian):
    k = len(jacobian) // 7
    blocks = np.einsum("ijil->ijl", truth.by_example(jacobian @ jacobian.T, k))
    close(case, ntk.ntk_diagonal(case.target, case.inputs, blocks=True, batch_size=4), blocks)
    close(case, ntk.ntk_diagonal(case.target, case.inputs, batch_size=3), np.einsum("ijj->ij", blocks))


def test_explicit_jacobians(case, jacobian):
    close(case, ntk.jacobians(case.target, case.inputs, batch_size=4), jacobian)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("name", ["mlp_10", pytest.param("cnn_10", marks=pytest.mark.slow)])
def test_any_batch_size_gives_the_same(name, batch_size):
    case = truth.CASES[name]()
    rows = truth.jacobian(case.target, case.inputs)
    done = []
    kernel = ntk.TangentKernel(case.target, case.inputs, batch_size=batch_size)
    found = kernel.full(case.inputs, progress=lambda *count: done.append(count))
    close(case, found, rows @ rows.T)
    assert done[-1][0] == done[-1][1] == len(done)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.abs(found).max()


def test_factors_that_do_not_fit_are_computed_anew():
    case = truth.CASES["cnn_10"]()
    rows = truth.jacobian(case.target, case.inputs)
    kernel = ntk.TangentKernel(case.target, case.inputs, memory_limit_mb=1.0)
    assert kernel.sizes.batch < 7
    assert kernel.sizes.held // 2 < 7
    close(case, kernel.full(case.inputs), rows @ rows.T)
    close(case, kernel.full(case.inputs[:5], case.inputs), rows[:50] @ rows.T)


def test_factors_that_are_not_kept_are_computed_once_for_each_tile_off_the_diagonal(monkeypatch):
    case = truth.CASES["mlp_10"]()
    kernel = ntk.TangentKernel(case.target, case.inputs, batch_size=2)
    kernel.sizes = dataclasses.replace(kernel.sizes, held=0)
    calls, compute = [], kernel._factors
    monkeypatch.setattr(kernel, "_factors", lambda *args: calls.append(len(args[1])) or compute(*args))
    rows = truth.jacobian(case.target, case.inputs)
    close(case, kernel.full(case.inputs), rows @ rows.T)
    assert len(calls) == 4 + 6


class _AnySize(tf.Module):
    """Takes images of any size; those of one pixel by way of other operations."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.w = tf.Variable(0.5 * rng.normal(size=(3, 3, 2, 4)))
        self.p = tf.Variable(0.5 * rng.normal(size=(1, 1, 4, 5)))
        self.d = tf.Variable(0.5 * rng.normal(size=(5, 2)))

    def __call__(self, images):
        y = tf.tanh(tf.nn.conv2d(images, self.w, 2, "SAME"))
        if images.shape[1] == 1:
            y = tf.tanh(y[:, 0, 0] @ tf.reshape(self.p, [4, 5]))
            return tf.reduce_sum(y[:, :, None] * self.d, axis=1)
        return tf.reduce_mean(tf.tanh(tf.nn.conv2d(y, self.p, 1, "SAME")), [1, 2]) @ self.d


@pytest.mark.parametrize("method", _WAYS)
@pytest.mark.parametrize(
    "sizes", [(8, 7), (8, 1), *(pytest.param(s, marks=pytest.mark.slow) for s in ((8, 9), (1, 7)))]
)
def test_both_sides_may_have_images_of_different_sizes(method, sizes):
    """Paddings, numbers of places, and for images of one pixel the operations differ between the sides."""
    target = targets.of(_AnySize(), loss="squared_error")
    rng = np.random.default_rng(4)
    first, second = (rng.normal(size=(num, size, size, 2)) for num, size in zip((5, 4), sizes, strict=True))
    rows, others = truth.jacobian(target, first), truth.jacobian(target, second)
    case = models.Case(target, first, np.zeros(5))
    kernel = ntk.TangentKernel(target, first, method=method, batch_size=3)
    before = kernel.describe(first)
    expected = rows @ others.T
    close(case, kernel.full(first, second), expected)
    close(case, kernel.trace(first, second), np.einsum("ijlj->il", truth.by_example(expected, 2)))
    # What came before leaves no trace.
    for inputs, jacobian in ((first, rows), (second, others), (first, rows)):
        whole = jacobian @ jacobian.T
        kernel.describe(second)
        close(case, kernel.full(inputs), whole)
        close(case, kernel.trace(inputs), np.einsum("ijlj->il", truth.by_example(whole, 2)))
        close(case, kernel.diagonal(inputs), np.diag(whole).reshape(-1, 2))
    assert kernel.describe(first) == before


def test_sides_without_a_common_parameter_have_a_kernel_of_zeros():
    case = models._functional(lambda x, w, v: x[:, :5] @ (w if x.shape[1] == 5 else v), (5,), w=(5, 3), v=(5, 3))
    other = np.random.default_rng(0).normal(size=(2, 6))
    kernel = ntk.TangentKernel(case.target, case.inputs)
    np.testing.assert_array_equal(kernel.full(case.inputs, other), np.zeros((21, 6)))
    np.testing.assert_array_equal(kernel.trace(case.inputs, other), np.zeros((7, 2)))
    np.testing.assert_allclose(np.diag(kernel.full(other)), np.repeat(np.sum(other[:, :5] ** 2, axis=1), 3))


_FUNCTIONS = (ntk.ntk_full, ntk.ntk_diagonal, ntk.jacobians, ntk.JacobianOperator)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_outputs_that_depend_on_no_parameter_are_refused(function):
    case = models._functional(lambda x, w, u: x @ w, (5,), w=(5, 3), u=(2,))
    unused = case.target.restricted(parameters.matching(case.target.parameters, "/u$"))
    with pytest.raises(errors.InvalidTargetError, match=r"no output depends on any parameter \(weights/u\)"):
        function(unused, case.inputs)


def test_inputs_by_which_no_output_depends_on_a_parameter_are_refused():
    case = models._functional(lambda x, w: x @ w if x.shape[1] == 5 else x[:, :3], (5,), w=(5, 3))
    kernel = ntk.TangentKernel(case.target, case.inputs)
    with pytest.raises(errors.InvalidTargetError, match="no output depends on any parameter"):
        kernel.full(case.inputs, np.ones((2, 6)))


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_variables_that_tapes_do_not_watch_are_refused(function):
    """Their derivatives would be zeros without a word."""
    variable = tf.Variable(np.ones((5, 3)), trainable=False, name="frozen")
    some = [parameters.Parameter("frozen", variable)]
    target = targets.of(None, predict=lambda x: x @ variable, parameters=some, loss="squared_error")
    with pytest.raises(errors.InvalidTargetError, match="parameters frozen are variables with trainable=False"):
        function(target, np.ones((4, 5)))


def test_functions_of_targets_write_into_memory_maps(tmp_path):
    case = truth.CASES["mlp_10"]()
    rows = truth.jacobian(case.target, case.inputs)
    kernel = rows @ rows.T
    traces = np.einsum("ijlj->il", truth.by_example(kernel, 10))
    for function, expected in ((ntk.ntk_full, kernel), (ntk.ntk_trace, traces), (ntk.ntk_mean_trace, traces / 10)):
        out = np.lib.format.open_memmap(tmp_path / "kernel.npy", "w+", np.float64, expected.shape)
        assert function(case.target, case.inputs, out=out, batch_size=3) is out
        out.flush()
        close(case, np.load(tmp_path / "kernel.npy"), expected)
    out = np.lib.format.open_memmap(tmp_path / "jacobian.npy", "w+", np.float64, rows.shape)
    ntk.jacobians(case.target, case.inputs, out=out, batch_size=3)
    close(case, out, rows)


def test_some_parameters_alone():
    case = truth.CASES["mlp_10"]()
    chosen = parameters.matching(case.target.parameters, "/(u|d)$")
    target = case.target.restricted(chosen)
    rows = truth.jacobian(case.target, case.inputs)
    start, columns = 0, []
    for parameter in case.target.parameters:
        if parameter in chosen:
            columns.append(rows[:, start : start + parameter.size])
        start += parameter.size
    some = np.concatenate(columns, axis=1)
    close(case, ntk.ntk_full(target, case.inputs), some @ some.T)


def test_sums_in_float64_on_request():
    """Passes stay in float32, and their products lose nothing more."""
    case = truth.CASES["residual"]()
    rows = ntk.jacobians(case.target, case.inputs).astype(np.float64)
    found = ntk.ntk_full(case.target, case.inputs, dtype=np.float64, method="jacobian")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, rows @ rows.T, rtol=0, atol=1e-6 * np.abs(found).max())
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.abs(found).max()


@pytest.mark.parametrize(
    "name", ["mlp_10", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cnn_10", "residual", "tied"))]
)
def test_xla_gives_the_same(name):
    case = truth.CASES[name]()
    rows = truth.jacobian(case.target, case.inputs)
    close(case, ntk.ntk_full(case.target, case.inputs, jit_compile=True), rows @ rows.T)


def test_a_kernel_is_compiled_once_for_every_size_of_batch():
    case = truth.CASES["mlp_10"]()
    kernel = ntk.TangentKernel(case.target, case.inputs, batch_size=3)
    for _ in range(3):
        kernel.full(case.inputs)
    assert kernel._factors.experimental_get_tracing_count() == 1


def test_the_weights_count_that_there_are_when_it_is_asked():
    case = truth.CASES["mlp_1"]()
    kernel = ntk.TangentKernel(case.target, case.inputs)
    before = kernel.full(case.inputs)
    for variable in case.target.variables:
        variable.assign(1.5 * variable)
    rows = truth.jacobian(case.target, case.inputs)
    after = kernel.full(case.inputs)
    close(case, after, rows @ rows.T)
    assert np.abs(after - before).max() > 0.1


def test_the_loss_and_the_labels_do_not_count():
    case = truth.CASES["mlp_10"]()
    expected = ntk.ntk_full(case.target, case.inputs)
    data = examples.Examples(case.inputs, np.full(7, 99))
    np.testing.assert_array_equal(ntk.ntk_full(case.target, data), expected)


def test_a_model_that_is_training_is_refused():
    module = models.tiny_sonnet()
    inputs = np.random.default_rng(0).normal(size=(7, 4, 4, 2)).astype(np.float32)
    target = targets.of(module, predict=lambda x: module(x, is_training=True))
    with pytest.raises(errors.InvalidTargetError, match=r"two evaluations|depends on the others"):
        ntk.ntk_full(target, inputs)


def test_what_is_no_tensor_is_refused():
    case = truth.CASES["mlp_1"]()
    target = targets.of(None, parameters=case.target.parameters, predict=lambda x: {"logits": case.target.predict(x)})
    with pytest.raises(errors.InvalidTargetError, match="predictions are a dict; give predict="):
        ntk.ntk_full(target, case.inputs)


def test_arguments_are_checked():
    case = truth.CASES["mlp_10"]()
    with pytest.raises(errors.InvalidArgumentError, match="method 'fast': expected one of auto, jacobian, structured"):
        ntk.ntk_full(case.target, case.inputs, method="fast")
    with pytest.raises(errors.InvalidArgumentError, match="dtype float16: expected float32 or float64"):
        ntk.ntk_full(case.target, case.inputs, dtype=np.float16)
    for function in (ntk.ntk_full, ntk.jacobians, ntk.JacobianOperator):
        with pytest.raises(errors.InvalidArgumentError, match="batch_size 0: must be at least 1"):
            function(case.target, case.inputs, batch_size=0)
    for function in (ntk.ntk_full, ntk.jacobians):
        with pytest.raises(errors.InvalidArgumentError, match=r"memory_limit_mb 0.0001: .* raise the limit"):
            function(case.target, case.inputs, memory_limit_mb=1e-4)
    with pytest.raises(
        errors.MismatchError, match=r"shape \(70, 7\) .* expected a writeable array of floats \(70, 70\)"
    ):
        ntk.ntk_full(case.target, case.inputs, out=np.zeros((70, 7)))


def test_what_is_no_number_is_refused():
    case = truth.CASES["mlp_1"]()
    inputs = case.inputs.copy()
    inputs[6] = np.nan
    for function in (ntk.ntk_full, ntk.ntk_diagonal):
        with pytest.raises(errors.NotFiniteError, match="tangent kernel of examples 0 to 6 is not finite"):
            function(case.target, inputs)
    with pytest.raises(errors.NotFiniteError, match="gradient of example 6 is not finite"):
        ntk.jacobians(case.target, inputs)


def test_the_description_names_each_parameter_and_its_way():
    case = truth.CASES["weight_norm"]()
    lines = ntk.TangentKernel(case.target, case.inputs).describe(case.inputs).splitlines()
    assert len(lines) == len(case.target.parameters)
    assert all("differentiated example by example" in line for line in lines)
    case = truth.CASES["mlp_10"]()
    text = ntk.TangentKernel(case.target, case.inputs).describe(case.inputs)
    assert "weights/w [5, 6]: structured (jacobian" in text
    assert "weights/b [6]: jacobian" in text
    unused = models._functional(lambda x, w, v: x @ w, (5,), w=(5, 3), v=(2,))
    assert "weights/v: no output depends on it" in ntk.TangentKernel(unused.target, unused.inputs).describe(
        unused.inputs
    )

"""Gradients of single examples, their norms and inner products, by kind of layer; products with curvatures."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from benchmarks.accuracy_checks import networks, rows
from estimators.curvature import operators
from estimators.derivatives import per_example, plans
from tests.estimators import models
from tests.reference import curvature as reference
from tests.reference import gradients

# Kind of layer -> names of models.
KINDS = {
    "dense": ("mlp", "transposed_dense", "tokens", "several_inputs", "nested_function"),
    "shared layers": ("tied", "tied_convolution", "initial_state"),
    "convolution 1D, 3D": ("conv1d_valid", "conv1d_strided", "conv3d"),
    "convolution 2D": ("conv2d_same", "conv2d_strided", "conv2d_strided_valid", "conv2d_dilated", "conv2d_single"),
    "grouped convolution": ("conv2d_grouped",),
    "einsum": ("einsums",),
    "embedding": ("embedding",),
    "Layer-, Group-, BatchNorm": ("sonnet_norms", "sonnet_batch_norm"),
    "Keras: convolutions, depthwise, separable, transposed, norms": ("keras_zoo",),
    "Keras: embedding, attention, recurrent": ("keras_attention",),
    "scales, offsets, element by element": ("arithmetic", "softplus_scale"),
    "repeated parameters": ("class_token", "tiled_token", "repeated_by_chance"),
    "no rule: example by example": ("weight_norm", "branching"),
    "squared error, several labels": ("regression", "multi_label"),
}
_BOUND = {"float64": 1e-10, "float32": 1e-4}


def of_single_examples() -> Iterator[rows.Row]:
    """Three rows for each kind of layer."""
    for kind, names in KINDS.items():
        pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"gradients": [], "norms": [], "inner products": []}
        dtypes = set()
        for name in names:
            case = models.ALL[name]()
            dtypes.add(case.target.dtype.name)
            for quantity, pair in _compared(case).items():
                pairs[quantity].append(pair)
        for quantity, found in pairs.items():
            (dtype,) = dtypes
            yield rows.errors(f"{quantity}: {kind}", f"one tape an example, {dtype}", dtype, _BOUND[dtype], *found)


def _compared(case: models.Case) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    plan = plans.make(case.target, (case.inputs, case.labels))
    loss, measured = (gradients.single(case.target, case.inputs, case.labels, of) for of in per_example.OF)
    few = tf.nest.map_structure(lambda array: array[:3], (case.inputs, case.labels))
    products = per_example.make_dot_products(plan, "loss", "measured")(case.inputs, case.labels, *few)
    norms = per_example.make_squared_norms(plan)(case.inputs, case.labels)
    return {
        "gradients": (per_example.make_gradients(plan)(case.inputs, case.labels).numpy(), loss),
        "norms": (np.sqrt(norms.numpy()), np.linalg.norm(loss, axis=1)),
        "inner products": (products.numpy(), loss @ measured[:3].T),
    }


def of_the_network() -> Iterator[rows.Row]:
    """The same of a network whose truth is of float64 for both precisions."""
    for dtype in networks.TOLERANCE:
        case = networks.make(dtype)
        plan = plans.make(case.target, case.train)
        loss, measured = networks.gradient_rows("train", "loss"), networks.gradient_rows("test", "measured")
        truth = "one tape an example, float64"
        found = [per_example.make_gradients(plan, of)(*getattr(case, split)).numpy() for split, of in _SPLITS]
        true = [networks.gradient_rows(split, of) for split, of in _SPLITS]
        yield rows.errors("gradients: dense over places", truth, dtype, case.tolerance, *zip(found, true, strict=True))
        norms = np.sqrt(per_example.make_squared_norms(plan)(*case.train).numpy())
        yield rows.errors(
            "norms: dense over places", truth, dtype, case.tolerance, (norms, np.linalg.norm(loss, axis=1))
        )
        products = per_example.make_dot_products(plan, "loss", "measured")(*case.train, *case.test).numpy()
        yield rows.errors(
            "inner products: dense over places", truth, dtype, case.tolerance, (products, loss @ measured.T)
        )


_SPLITS = (("train", "loss"), ("test", "measured"))
_CURVED = ("mlp", "conv2d_strided", "multi_label")
_CURVATURES = {"hessian": "Hessian", "gauss_newton": "Gauss-Newton", "empirical_fisher": "empirical Fisher"}


def of_curvature() -> Iterator[rows.Row]:
    """Products with each curvature."""
    for kind, name in _CURVATURES.items():
        pairs = []
        for model in _CURVED:
            case = models.ALL[model]()
            plan = plans.make(case.target, (case.inputs, case.labels))
            curvature = operators.Curvature(plan, (case.inputs, case.labels), kind, batch_size=3)
            true = getattr(reference, kind)(case.target, case.inputs, case.labels)
            pairs.append((operators.explicit(curvature), true))
        yield rows.errors(f"{name} products", "matrix by nested tapes, float64", "float64", 1e-9, *pairs)
        case32 = networks.make("float32")
        curvature = operators.Curvature(plans.make(case32.target, case32.train), case32.train, kind, batch_size=5)
        pair = (operators.explicit(curvature), networks.curvature_matrix(kind))
        yield rows.errors(f"{name} products", "matrix by nested tapes, float64", "float32", 1e-4, pair)

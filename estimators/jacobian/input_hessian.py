"""The Hessian of a number of each example by its input, by Hessian-vector products: Frobenius norm and eigenvalues.

    H_i = d^2 h(x_i, y_i) / dx^2,  [D, D],  in units of h per squared unit of the input

with h the cross-entropy -log p_y or the label's logit. Networks of rectifiers are linear piece by piece: of their
logits H is 0 wherever it exists, and of their cross-entropy it is J^T (diag p - p p^T) J.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from estimators import errors
from estimators.jacobian import functions, hutchinson, lanczos, linearised, normalisations, operator_norms

OF = ("crossentropy", "target_logit")
# So many vectors over the inputs are kept, twice.
_MAX_STEPS = 64


def eigenvalues(
    function: functions.Function,
    data: Any,
    of: str = "crossentropy",
    *,
    which: str = "largest",
    config: lanczos.Config | None = None,
) -> lanczos.Extremes:
    """The top eigenvalue of every example's Hessian, its residual, and whether it converged.

    Args:
        function: what is differentiated.
        data: `examples.Examples` or (inputs, labels).
        of: "crossentropy" or "target_logit".
        which: the "largest" eigenvalue, the "smallest", or that of largest "modulus", whose modulus is |H|_2.
        config: when to stop; by default at a relative residual of 1.9e-4, after 64 steps at most.

    Returns:
        The eigenvalues; an eigenvalue lies within the residual of each. A Hessian-vector product, which is two backward
        passes, for each step; 2 max_steps D numbers for each example of a batch.

    Raises:
        InvalidArgumentError: a name or a label cannot be.
        NotFiniteError: a value is NaN or infinite.
    """
    products, data = _products(function, of), functions.checked(function, data)
    solver = lanczos.Solver(
        products,
        function.input_size,
        function.dtype,
        which,
        config or lanczos.Config(max_steps=_MAX_STEPS),
        compiled=function.compiled,
        looks_at_all=function.is_dear,
    )
    found = solver.run(data.inputs, data.labels, data.ids)
    operator_norms.check_finite(found.values, data.ids, "the top eigenvalue")
    return found


def frobenius_norms(
    function: functions.Function,
    data: Any,
    of: str = "crossentropy",
    *,
    num_samples: int = 16,
    batch_size: int = 32,
    seed: int = 0,
) -> hutchinson.Frobenius:
    """|H|_F of every example by random signs, with its standard error; one Hessian-vector product a sample.

    Args, Raises: see `eigenvalues` and `hutchinson.frobenius_norms`.
    """
    products, data = _products(function, of), functions.checked(function, data)
    options = {"num_samples": num_samples, "batch_size": batch_size, "seed": seed}
    return hutchinson.Estimator(function, products, function.input_size, **options).run(data)


def _products(function: functions.Function, of: str) -> hutchinson.Products:
    if of not in OF:
        raise errors.InvalidArgumentError(f"of={of!r}: expected one of {', '.join(OF)}")
    name = "crossentropy" if of == "crossentropy" else "none"

    def products(inputs: tf.Tensor, labels: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        linear = linearised.Linearised(
            lambda x: normalisations.apply(name, function.predict(x), labels, name == "none"), inputs, with_hvp=True
        )
        return linear.hvp

    return products

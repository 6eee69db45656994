"""The empirical neural tangent kernel K = J J^T of a target's outputs, J = df/dtheta [n k, P].

    kernel = ntk.ntk_full(target, x)                       # [n k, n k], row = example * k + output
    cross = ntk.ntk_full(target, x_test, x)                # [m k, n k]
    ntk.ntk_trace(target, x)                               # [n, n], summed over outputs; ntk_mean_trace: divided by k

f(x) [k] are the outputs of a model that is not training, whatever its loss. Explicit Jacobians, projected ones and
products are in the same order of rows.

From the bottom upwards; each line uses those above it.

    outputs        a target's outputs as what is differentiated
    factors        gradients of all outputs in factors: one forward and k backward passes
    contractions   what one parameter adds to a kernel, in three ways, and what each takes
    tiles          how much is held at a time, and matrices that are filled tile by tile
    kernels        the kernel, its trace over outputs and its diagonal
    explicit       J as a matrix
    products       J w, J^T v and K v without a matrix
    projected      J projected at random, with the measured error of the kernel
"""

from estimators.ntk.explicit import jacobians
from estimators.ntk.kernels import TangentKernel, ntk_diagonal, ntk_full, ntk_mean_trace, ntk_trace
from estimators.ntk.products import JacobianOperator, ntk_vector_products
from estimators.ntk.projected import Features, Projection, projected_jacobians

__all__ = [
    "Features",
    "JacobianOperator",
    "Projection",
    "TangentKernel",
    "jacobians",
    "ntk_diagonal",
    "ntk_full",
    "ntk_mean_trace",
    "ntk_trace",
    "ntk_vector_products",
    "projected_jacobians",
]

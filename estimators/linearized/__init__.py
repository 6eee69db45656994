"""Networks that are linear in their weights: f(x) + J (w - w0), and what gradient descent does to them.

    model = linear_models.of(target)                                    # at the weights that the network has now
    descent = descents.GradientDescent(learning_rate=1e-3)
    solved = dynamics.Dynamics(kernel, outputs - labels, descent)       # kernel = J J^T, decomposed once
    solved.train_predictions(outputs, time=2000)
    removed = leave_out.solve(kernel, outputs - labels, descent, time=2000)   # all n deletions at once

Sources: Jacot, Gabriel & Hongler (2018, arXiv:1806.07572); Harutyunyan et al. (ICLR 2021, arXiv:2101.06640). n examples
of k outputs make N = n k rows, example by example: row = example k + output. K = J J^T [N, N], float64.

From the bottom upwards; each line uses those above it.

    descents        learning rate, l2, and what they become when examples are left out
    spectral        what t steps do to one eigenvalue, and the contour that does the same by resolvents
    spectra         eigenvalues and eigenvectors of a kernel, in float64
    dynamics        coefficients, predictions and distances at any time, from one decomposition
    gauss_newton    cross-entropy: the kernel that makes it a squared error, with its measured error
    agreement       how long predicted training follows true training
    deletions       all solutions without a group of examples, in the basis of the eigenvectors
    leave_out       the same from a kernel (dual) or from features (primal), with a measured error
    linear_models   predictions of the linearised network for given weights, weights for given coefficients
"""

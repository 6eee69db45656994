"""Curvature of the training objective, and its damped inverse.

From the bottom upwards; each line uses those above it.

operators            Hessian, Gauss-Newton matrix and empirical Fisher matrix by their products
solutions            what all solvers return; the one meaning of damping
explicit             written out: exact, for small models
conjugate_gradient   to a tolerance, all right-hand sides at once, with or without a preconditioner
lissa                by random batches
krylov               on the largest eigenvalues (Lanczos; "Arnoldi" elsewhere)
nystroem             of low rank; also a preconditioner
    blocks               the layers of a model as blocks
    kronecker            K-FAC and EK-FAC; also preconditioners
    neumann              a preconditioner made exact by iteration
    quadratic_forms      of single examples, from Kronecker factors
"""

"""Settings of solvers: by name, as config, and what they refuse."""

import json

import numpy as np
import pytest

from estimators import errors, examples, solvers, solving
from estimators.curvature import kronecker, krylov, nystroem, operators
from estimators.derivatives import plans
from tests.estimators import models


@pytest.mark.parametrize("name", list(solvers.SOLVERS))
def test_every_solver_goes_by_its_name_and_through_json(name):
    settings = solvers.find(name, {})
    assert settings.name == ("lanczos" if name == "arnoldi" else name)
    config = json.loads(json.dumps(solvers.as_config(settings)))
    assert solvers.find(config.pop("solver"), config) == settings


def test_lissa_keeps_the_names_and_defaults_that_are_known():
    config = solvers.as_config(solvers.find("lissa", {}))
    known = {"recursion_depth": 5000, "r": 1, "damp": 0.01, "scale": 25.0, "seed": 42, "step_batch_size": 1}
    assert known.items() <= config.items()


def test_what_shares_factors_says_so():
    shared = [solvers.find(name, {"damping": d}).prepared_by for d in (0.1, 1.0) for name in ("kfac", "ekfac")]
    shared += [solvers.EkfacNeumann().prepared_by, solvers.ConjugateGradient(preconditioner="ekfac").prepared_by]
    assert all(one == shared[0] for one in shared)
    assert solvers.Ekfac(labels="data").prepared_by != shared[0]
    assert solvers.Ekfac(seed=1).prepared_by != shared[0]
    assert solvers.Nystroem(rank=5).prepared_by != solvers.Nystroem(rank=6).prepared_by
    assert solvers.Lanczos(curvature="gauss_newton").prepared_by != solvers.Lanczos().prepared_by
    assert solvers.ConjugateGradient().prepared_by == solvers.Explicit().prepared_by == {}


def test_what_was_not_prepared_is_refused():
    case = models.ALL["transposed_dense"]()
    data = examples.Examples(case.inputs, case.labels)
    problem = solving.Problem(plans.make(case.target, data), data, 7)
    with pytest.raises(errors.MismatchError, match="prepared NoneType: expected factors; prepare the solver again"):
        solvers.Ekfac().make(problem, None)
    factors = kronecker.Factors((), "data", 7)
    with pytest.raises(errors.MismatchError, match="prepared Factors: expected eigenpairs"):
        solvers.Lanczos().make(problem, factors)


def test_eigenpairs_that_do_not_fit_are_refused():
    operator = operators.DenseOperator(np.eye(4))
    values, vectors = np.ones(2), np.eye(4)[:2]
    with pytest.raises(errors.InvalidArgumentError, match=r"damping 0\.0: the Nystroem approximation divides by it"):
        nystroem.NystroemSolver.of_eigenpairs(operator, 0.0, values, vectors)
    with pytest.raises(errors.InvalidArgumentError, match="complement=True divides by the damping"):
        krylov.LanczosSolver.of_eigenpairs(operator, 0.0, values, vectors, values, complement=True)
    for make in (nystroem.NystroemSolver.of_eigenpairs, lambda *a: krylov.LanczosSolver.of_eigenpairs(*a, values)):
        with pytest.raises(errors.MismatchError, match=r"vectors of shape \(2, 3\): expected \[R, 4\]"):
            make(operator, 0.1, values, vectors[:, :3])

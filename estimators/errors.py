"""Errors of the estimators: each refines a builtin and says what was found, what was expected, and the repair."""


class EstimatorError(Exception):
    """Base of all errors with a message meant for the user."""


class InvalidTargetError(EstimatorError, ValueError):
    """A model, loss or choice of parameters whose derivatives would not mean what they should."""


class InvalidArgumentError(EstimatorError, ValueError):
    """An argument lies outside what is allowed."""


class NotFiniteError(EstimatorError, FloatingPointError):
    """A loss or a derivative is NaN or infinite."""


class SolverError(EstimatorError, ArithmeticError):
    """A linear system was not solved: the iteration diverged, or the operator is singular."""


class MismatchError(EstimatorError, ValueError):
    """Two things that must agree do not: shapes, factors and the weights that they are of."""


class DamagedArtifactError(EstimatorError, ValueError):
    """A stored factor or score matrix is not what was written."""

"""Errors of the estimators as errors of the project, which programs print without a traceback."""

from collections.abc import Iterator
import contextlib

from estimators import errors as estimator_errors
from zoo import errors


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises what the estimators refuse as `InvalidValueError`, in the same words."""
    try:
        yield
    except estimator_errors.EstimatorError as error:
        raise errors.InvalidValueError(str(error)) from error

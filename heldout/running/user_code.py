"""Functions of the user's own that are named on a command line: package.module:callable."""

from collections.abc import Callable
import importlib
from typing import Any

from zoo import errors


def is_name(name: str) -> bool:
    """Whether a text has the form package.module:callable."""
    module_name, separator, attribute = name.partition(":")
    return bool(separator and module_name and attribute)


def load(name: str, what: str) -> Callable[..., Any]:
    """Imports what a name says; the folder of work counts only where Python's path has it.

    Args:
        name: package.module:callable.
        what: how messages call it, such as "--model=pkg.mod:make".

    Raises:
        InvalidValueError: it has another form, cannot be imported, or cannot be called.
    """
    if not is_name(name):
        raise errors.InvalidValueError(f"{what}: expected package.module:callable")
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise errors.InvalidValueError(
            f"{what}: cannot be imported ({error}); the package must lie in this folder or on PYTHONPATH"
        ) from error
    if not callable(found):
        raise errors.InvalidValueError(f"{what}: is a {type(found).__name__}; expected a callable")
    return found

"""Errors that a user can mend.

Every error that the project raises on purpose carries `HeldoutError` beside the builtin it refines, so that library
users catch the builtin they expect and the programs print the message alone, without a traceback. A message names
the file, flag or value, what was found, what was expected, and the repair.
"""


class HeldoutError(Exception):
    """Base of all errors with a message meant for the user."""


class DamagedFileError(HeldoutError, ValueError):
    """A file is truncated, tampered with, or not what its name promises."""


class MissingFileError(HeldoutError, FileNotFoundError):
    """A file or folder that was asked for does not exist."""


class MismatchError(HeldoutError, ValueError):
    """Two things that must agree do not: recipes, labels, shapes, variables."""


class InvalidValueError(HeldoutError, ValueError):
    """A flag or argument lies outside what is allowed."""

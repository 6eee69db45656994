"""Which code this is: processes that work on one zoo must run the same.

Between machines the version alone does not tell, where people work on the sources: a digest of them does.
"""

import functools
import hashlib
import pathlib
import socket

import heldout
from zoo import errors

_PACKAGES = ("heldout", "zoo")


@functools.cache
def identity() -> dict[str, str]:
    """Version and digest of the code of this process, as JSON-able values; read from the sources once."""
    return {"version": heldout.__version__, "digest": digest(pathlib.Path(heldout.__file__).parents[1])}


def digest(root: pathlib.Path) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over all sources of ours below a folder, by name and content."""
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()[:16]


def check(expected: dict[str, str] | None) -> None:
    """Refuses to work for a program of other code.

    Args:
        expected: `identity()` of the program that hands out the work; None where it is known to be the same.

    Raises:
        MismatchError: version or digest differ.
    """
    if expected is not None and expected != identity():
        raise errors.MismatchError(
            f"the worker on {socket.gethostname()} runs {_text(identity())}, this program {_text(expected)}; install "
            "the same Heldout on all machines"
        )


def _text(code: dict[str, str]) -> str:
    return f"Heldout {code['version']} (code {code['digest']})"

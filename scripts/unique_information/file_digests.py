"""Which files results consist of, with their SHA-256, in the JSON file that is written last."""

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any

from zoo import errors, files

_NAMES, _DIGESTS = "files", "sha256"


def described(paths: Iterable[pathlib.Path]) -> dict[str, Any]:
    """Members of the JSON file: names of the files, and the digest of each."""
    digests = {path.name: files.sha256_of_file(path) for path in paths}
    return {_NAMES: list(digests), _DIGESTS: digests}


def are_there(path: pathlib.Path, found: Mapping[str, Any]) -> bool:
    """Whether the files that a JSON file lists are all there, beside it.

    Args:
        path: of the JSON file.
        found: what it holds.

    Raises:
        DamagedFileError: it lists no files with their digests, or one of them is not what was written.
    """
    names, digests = found.get(_NAMES), found.get(_DIGESTS)
    if not isinstance(names, list) or not isinstance(digests, dict) or set(names) != set(digests):
        raise errors.DamagedFileError(
            f"{path}: expected {_NAMES}, and {_DIGESTS} of each; delete it and run the command again"
        )
    if not all((path.parent / name).is_file() for name in names):
        return False
    for name in names:
        if files.sha256_of_file(path.parent / name) != digests[name]:
            raise errors.DamagedFileError(
                f"{path.parent / name}: its SHA-256 is not that of {path.name}, so it was changed or damaged after it "
                "was written; delete it and run the command again"
            )
    return True

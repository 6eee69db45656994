"""Files of weights that an architecture is asked to begin with: by whole path, and with the digest of what is in them.

A config that holds the digest is that of one network, whatever becomes of the file; needs no TensorFlow.
"""

from collections.abc import Mapping
import os
from typing import Any

from zoo import files

_PREFIX = "keras:"


def pinned(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an architecture, with `weights_sha256` where a network of keras.applications names a file.

    A file that is not there is left to the architecture, which names it.

    Args:
        architecture: its name.
        options: as on the command line.
    """
    weights = options.get("weights")
    path = os.path.abspath(os.path.expanduser(weights)) if isinstance(weights, str) else None
    if not architecture.startswith(_PREFIX) or path is None or not os.path.isfile(path):
        return dict(options)
    return {"weights_sha256": files.sha256_of_file(path), **options, "weights": path}

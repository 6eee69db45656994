"""Data sets by name: the value of every `--dataset` flag.

digits                             ships with scikit-learn, no folder needed
mnist, cifar10, cifar100, ...      prepared by TensorFlow Datasets, see tfds.py
npz:PATH                           your own arrays, see npz_file.py
"""

from heldout.datasets import dataset, digits, npz_file, tfds
from zoo import errors

_NPZ_PREFIX = "npz:"


def names() -> tuple[str, ...]:
    """The names that `load` knows, besides npz:PATH."""
    return ("digits", *tfds.PINNED)


def identify(name: str) -> tuple[str, str]:
    """Name and version that `load` would give a data set, without loading it: a file of your own is read once.

    Args:
        name: as for `load`.

    Returns:
        (name, version): the name without folders; the version changes whenever content or order change.

    Raises:
        InvalidValueError: the name is unknown.
        MissingFileError: there is no such npz file.
    """
    if name.startswith(_NPZ_PREFIX):
        return npz_file.identify(name.removeprefix(_NPZ_PREFIX))
    if name == "digits":
        return name, digits.VERSION
    if name in tfds.PINNED:
        return name, tfds.PINNED[name].version
    raise _unknown(name)


def load(name: str, data_dir: str | None = None) -> dataset.Dataset:
    """Loads a data set in its stored order.

    Args:
        name: one of `names()`, or "npz:" and the path of a file as described in npz_file.py.
        data_dir: folder of prepared TFDS data sets; None for $DATA_DIR, then for the default folder of TFDS.

    Returns:
        The data set; position in a split is the original index.

    Raises:
        InvalidValueError: the name is unknown.
        MissingFileError: it is not on this machine; the message holds the command that prepares it.
        MismatchError: it is not the known data set in the known order.
        DamagedFileError: its files cannot be read.
    """
    if name.startswith(_NPZ_PREFIX):
        return npz_file.load(name.removeprefix(_NPZ_PREFIX))
    if name == "digits":
        return digits.load()
    if name in tfds.PINNED:
        return tfds.load(name, data_dir)
    raise _unknown(name)


def _unknown(name: str) -> errors.InvalidValueError:
    return errors.InvalidValueError(
        f"dataset {name!r} is unknown; use one of {', '.join(names())} or {_NPZ_PREFIX}PATH"
    )

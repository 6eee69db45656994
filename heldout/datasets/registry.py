"""Data sets by name: the value of every `--dataset` flag.

digits                             ships with scikit-learn, no folder needed
gaussians                          points in the plane, see gaussians.py
mnist, cifar10, cifar100, ...      prepared by TensorFlow Datasets, see tfds.py
cats_vs_dogs_SIDE, cassava_SIDE    the same of images that differ in size, brought to SIDE x SIDE, see resized_tfds.py
npz:PATH                           your own arrays, see npz_file.py
records:PATH                       a folder of image records, see indexed_records.py; `load` takes what fits into memory
"""

from heldout.datasets import (
    dataset,
    digits,
    gaussians,
    indexed_records,
    npz_file,
    records_in_memory,
    resized_tfds,
    saved_records,
    tfds,
)
from zoo import errors, files

AnyDataset = dataset.Dataset | indexed_records.IndexedRecords
_NPZ_PREFIX = "npz:"


def names() -> tuple[str, ...]:
    """The names that `load` knows, besides those with a size behind them, npz:PATH and records:PATH."""
    return ("digits", "gaussians", *tfds.PINNED)


def identify(name: str) -> tuple[str, str]:
    """Name and version that `load` would give a data set, without loading it.

    Of a file of your own all is read once; of a folder of records the labels.

    Args:
        name: as for `load`.

    Returns:
        (name, version): the name without folders; the version changes whenever content or order change.

    Raises:
        InvalidValueError: the name is unknown.
        MissingFileError: there is no such npz file or folder of records.
        DamagedFileError: the records cannot be read.
    """
    if name.startswith(_NPZ_PREFIX):
        return npz_file.identify(name.removeprefix(_NPZ_PREFIX))
    if name.startswith(indexed_records.PREFIX):
        return indexed_records.identify(name.removeprefix(indexed_records.PREFIX))
    if name == "digits":
        return name, digits.VERSION
    if name == "gaussians":
        return name, gaussians.VERSION
    if name in tfds.PINNED:
        return name, tfds.PINNED[name].version
    if resized_tfds.split_name(name) is not None:
        return resized_tfds.identify(name)
    raise _unknown(name)


def load(name: str, data_dir: str | None = None) -> dataset.Dataset:
    """Loads a data set in its stored order.

    Args:
        name: one of `names()`, a name such as "cats_vs_dogs_224", or "npz:" and the path of a file as described in
            npz_file.py, or "records:" and the path of a folder as described in indexed_records.py.
        data_dir: folder of prepared TFDS data sets; None for $DATA_DIR, then for the default folder of TFDS.

    Returns:
        The data set; position in a split is the original index.

    Raises:
        InvalidValueError: the name is unknown, or the records take more memory than `load` gives them.
        MissingFileError: it is not on this machine; the message holds the command that prepares it.
        MismatchError: it is not the known data set in the known order.
        DamagedFileError: its files cannot be read.
    """
    if name.startswith(_NPZ_PREFIX):
        return npz_file.load(name.removeprefix(_NPZ_PREFIX))
    if name.startswith(indexed_records.PREFIX):
        return records_in_memory.load(name.removeprefix(indexed_records.PREFIX))
    if name == "digits":
        return digits.load()
    if name == "gaussians":
        return gaussians.load()
    if name in tfds.PINNED:
        return tfds.load(name, data_dir)
    if resized_tfds.split_name(name) is not None:
        return resized_tfds.load(name, data_dir)
    raise _unknown(name)


def open_for_training(name: str, data_dir: str | None = None) -> AnyDataset:
    """As `load`; image records stay on disk where they are augmented in training, or too large for memory.

    Raises:
        InvalidValueError: image records of which some are missing.
        As `load`.
    """
    if not name.startswith(indexed_records.PREFIX):
        return load(name, data_dir)
    records = indexed_records.open_records(name.removeprefix(indexed_records.PREFIX))
    if records.format.name == "tiny" and records_in_memory.num_bytes(records) <= records_in_memory.LARGEST_BYTES:
        return records_in_memory.hold(records)
    records.check_complete()
    return records


def save(data: AnyDataset, directory: files.PathLike) -> None:
    """Writes a folder, which must not exist yet, that another process opens with `open_saved`."""
    if isinstance(data, indexed_records.IndexedRecords):
        saved_records.save(data, directory)
    else:
        data.save(directory)


def open_saved(directory: files.PathLike) -> AnyDataset:
    """Opens what `save` wrote."""
    if saved_records.is_saved(directory):
        return saved_records.open_saved(directory)
    return dataset.Dataset.open(directory)


def _unknown(name: str) -> errors.InvalidValueError:
    resized = (f"{base}_SIDE" for base in resized_tfds.PINNED)
    return errors.InvalidValueError(
        f"dataset {name!r} is unknown; use one of {', '.join((*names(), *resized))}, {indexed_records.PREFIX}PATH or "
        f"{_NPZ_PREFIX}PATH"
    )

"""Columns of an npz file or a table, as they are."""

import pathlib
import zipfile

import numpy as np

from zoo import errors, npz

TABLES = (".parquet", ".csv")


def npz_names(path: pathlib.Path) -> list[str]:
    """Names of the members of an npz file.

    Raises:
        DamagedFileError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise errors.DamagedFileError(f"{path}: not a readable npz file ({error}). {npz.REPAIR}") from error


def table(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The columns of a Parquet or CSV file.

    Args:
        path: ends in one of `TABLES`.

    Raises:
        DamagedFileError: it cannot be read.
    """
    import pyarrow  # heavy, and not needed by those who only ask for help
    import pyarrow.csv
    import pyarrow.parquet

    reader = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.csv.read_csv
    try:
        found = reader(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise errors.DamagedFileError(f"{path}: cannot be read ({error!s:.100}). {npz.REPAIR}") from error
    return {name: found[name].to_numpy() for name in found.column_names}

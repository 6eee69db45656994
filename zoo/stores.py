"""Zoos that lie in a bucket, or wherever else fsspec reaches: whole runs are put there, found there and fetched.

An object of a store is there whole or not at all. A run's record is put last, so a run that has one is complete. What
is put is held against its size there before anything relies on it.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib

import fsspec

from zoo import errors, files, layout
from zoo.remote import addresses

_REPAIR = "check the address, the network and your credentials; the same command then continues"


def is_store(zoo: files.PathLike) -> bool:
    """Whether a zoo is an address such as gs://bucket/zoo, no folder."""
    return addresses.protocol(str(zoo)) != "file"


class Store:
    """The zoo at an address.

    Args:
        address: such as gs://bucket/zoo.

    Raises:
        InvalidValueError: there is no file system for such an address, or none that can be written to for long.
        NetworkError: it cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if addresses.protocol(address) in ("memory", "http", "https"):
            raise errors.InvalidValueError(
                f"--zoo={addresses.display(address)}: nothing can be kept there; expected a folder, gs:// or s3://"
            )
        # Without this, the first call waits most of a minute for an experimental service.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            self._system, self._root = fsspec.core.url_to_fs(
                self.address, skip_instance_cache=True, use_listings_cache=False
            )
        except (ValueError, ImportError) as error:
            raise errors.InvalidValueError(
                f"--zoo={addresses.display(address)}: no file system for such an address ({error}); expected a folder "
                "or gs://, or install the package of fsspec that writes there"
            ) from error
        except Exception as error:  # each has errors of its own
            raise self._network_error("", "opened", error) from error

    def sizes(self, experiment: str) -> dict[str, int]:
        """Sizes in bytes of all objects of an experiment, by their path in the zoo; one listing.

        Raises:
            NetworkError: the store cannot be read.
        """
        layout.check_experiment_name(experiment)
        with self._explained(experiment, "listed"):
            found = self._system.find(f"{self._root}/{experiment}", detail=True)
        return {path.removeprefix(f"{self._root}/"): facts["size"] for path, facts in found.items()}

    def has(self, name: str) -> bool:
        """Whether there is an object of this path in the zoo.

        Raises:
            NetworkError: the store cannot be read.
        """
        with self._explained(name, "looked at"):
            return bool(self._system.exists(f"{self._root}/{name}"))

    def fetch(self, name: str, target: files.PathLike) -> None:
        """Copies an object into a file, which appears whole.

        Raises:
            NetworkError: the store cannot be read.
        """
        with files.write_whole(target) as path, self._explained(name, "read"):
            self._system.get_file(f"{self._root}/{name}", str(path))

    def put(self, source: files.PathLike, name: str) -> None:
        """Copies a file into an object and makes sure that it has arrived.

        Raises:
            NetworkError: the store cannot be written to, or holds another number of bytes afterwards.
        """
        with self._explained(name, "written"):
            self._system.put_file(str(source), f"{self._root}/{name}")
            arrived = self._system.info(f"{self._root}/{name}")["size"]
        expected = pathlib.Path(source).stat().st_size
        if arrived != expected:
            raise errors.NetworkError(
                f"{self.address}/{name}: {expected} bytes were sent and {arrived} are there; {_REPAIR}"
            )

    @contextlib.contextmanager
    def _explained(self, name: str, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the package of the file system; each has its own
            raise self._network_error(name, what, error) from error

    def _network_error(self, name: str, what: str, error: Exception) -> errors.NetworkError:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        where = addresses.display(f"{self.address}/{name}".rstrip("/"))
        return errors.NetworkError(f"{where}: cannot be {what} ({reason}); {_REPAIR}")


def object_name(run: layout.Run, path: pathlib.Path) -> str:
    """The path in the zoo of a file of a run."""
    return path.relative_to(run.zoo).as_posix()


def put_run(store: Store, run: layout.Run) -> None:
    """Puts the files of a finished run, the record last; does nothing where there is one already.

    Raises:
        NetworkError: as `Store.put`.
    """
    record = object_name(run, run.aux_arrays_path)
    if store.has(record):
        return
    for path in sorted(run.checkpoints_directory.iterdir()):
        if layout.parse_checkpoint_file(path.name) is not None:
            store.put(path, object_name(run, path))
    store.put(run.aux_arrays_path, record)


def recorded_runs(zoo: files.PathLike, experiment: str, sizes: dict[str, int]) -> list[layout.Run]:
    """The runs that have a record, by a listing of the store.

    Args:
        zoo: folder of the runs that are returned.
        experiment: which was listed.
        sizes: as `Store.sizes` gives them.
    """
    found = []
    for name in sizes:
        parts = name.split("/")
        if len(parts) == 4 and parts[0] == experiment and parts[3] == layout.AUX_ARRAYS_NAME:
            ratio, run_id = layout.parse_ratio(parts[1]), layout.parse_run_id(parts[2])
            if ratio is not None and run_id is not None:
                found.append(layout.Run(pathlib.Path(zoo), experiment, ratio, run_id))
    return sorted(found, key=lambda run: (run.subset_ratio, run.run_id))

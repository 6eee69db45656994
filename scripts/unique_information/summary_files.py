"""The folder of `summarize_dataset`: orders, and the subsets that are left.

orders/<way>.npz      train_index in the order of dropping; grows by a part at each scoring
subsets_<way>.npz     a ranking, highest value kept longest, and what is kept of it at each ratio
seeds/<seed>/         networks of one initialisation, a folder of ground_truth_effects
"""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np

from heldout.experiments import subset_rankings
from zoo import errors, files, npz

SCHEMA_VERSION = 1
ORDERS_NAME, SEEDS_NAME = "orders", "seeds"


def seed_folder(folder: files.PathLike, seed: int) -> pathlib.Path:
    """Where the networks of one initialisation are."""
    return pathlib.Path(folder) / SEEDS_NAME / str(seed)


def subset_path(folder: files.PathLike, way: str) -> pathlib.Path:
    """Where the subsets of a way are; of random ones those of a seed, such as random-0."""
    return pathlib.Path(folder) / f"subsets_{way}.npz"


def read_order(folder: files.PathLike, way: str, train_index: np.ndarray) -> np.ndarray:
    """The part of an order that is known, int64; empty where nothing is.

    Args:
        folder: of the summary.
        way: of dropping.
        train_index: int64 [n], the examples that there are.

    Raises:
        DamagedFileError: the file is unsound, or of other examples.
    """
    path = _order_path(folder, way)
    if not path.exists():
        return np.zeros(0, np.int64)
    stored = npz.read(path, ["schema_version", "train_index"])
    found = stored["train_index"]
    is_known = found.dtype == np.int64 and found.ndim == 1 and np.isin(found, train_index).all()
    if stored["schema_version"] != SCHEMA_VERSION or not is_known or len(np.unique(found)) < len(found):
        raise errors.DamagedFileError(f"{path}: is no order of the examples of this experiment; delete it")
    return found


def write_order(folder: files.PathLike, way: str, order: np.ndarray) -> None:
    """Writes the part of an order that is known."""
    members = {"schema_version": np.asarray(SCHEMA_VERSION), "train_index": order.astype(np.int64)}
    npz.write(_order_path(folder, way), members)


def _order_path(folder: files.PathLike, way: str) -> pathlib.Path:
    return pathlib.Path(folder) / ORDERS_NAME / f"{way}.npz"


def write_subsets(path: pathlib.Path, order: np.ndarray, counts: Sequence[int]) -> None:
    """Writes what an order leaves when so many of its first examples are dropped.

    The members schema_version, train_index and value are those of `subset_rankings.write`: keeping the m highest values
    is dropping the n - m first ones of the order.

    Args:
        path: of the file.
        order: int64 [n], the first to be dropped first.
        counts: how many are dropped, [R].
    """
    place = np.argsort(order)
    kept = [np.sort(order[count:]) for count in counts]
    members = {
        "schema_version": np.asarray(subset_rankings.SCHEMA_VERSION),
        "train_index": order[place],
        "value": place.astype(np.float64),
        "num_dropped": np.asarray(counts, np.int64),
        "kept_train_index": np.concatenate(kept),
        "kept_offset": np.concatenate([[0], np.cumsum([len(one) for one in kept])]).astype(np.int64),
    }
    npz.write(path, members)


def groups(orders: Mapping[str, np.ndarray], counts: Sequence[int]) -> dict[tuple[str, int], tuple[int, ...]]:
    """What each way drops, by way and number: ascending positions."""
    return {(way, count): tuple(map(int, np.sort(order[:count]))) for way, order in orders.items() for count in counts}

"""Which test examples are looked at: by id, or so many of each class."""

import numpy as np

from estimators import examples
from scripts.attribution import influence_config
from zoo import errors


def positions(config: influence_config.InfluenceConfig, test: examples.Examples) -> np.ndarray:
    """Positions among the test examples, ascending.

    Args:
        config: names ids, or says how many of each class are passed over and how many are taken then.
        test: all test examples.

    Returns:
        int64 [m], m at least 1.

    Raises:
        InvalidValueError: an id is not there or named twice, or no class has so many examples.
    """
    if config.test_ids is not None:
        return _of_ids(config.test_ids, test.ids)
    start, num = config.test_sample_start_per_class, config.test_sample_num
    if start == 0 and num is None:
        return np.arange(len(test))
    labels = np.asarray(test.labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise errors.InvalidValueError(
            f"test_sample_num, test_sample_start_per_class: labels of dtype {labels.dtype} and shape {labels.shape} "
            "are no classes; choose by test_ids"
        )
    stop = None if num is None else start + num
    chosen = [np.flatnonzero(labels == label)[start:stop] for label in np.unique(labels)]
    found = np.sort(np.concatenate(chosen))
    if found.size == 0:
        largest = int(np.unique(labels, return_counts=True)[1].max())
        raise errors.InvalidValueError(
            f"test_sample_start_per_class {start}: no class has more than {largest} test examples; choose a number "
            f"below {largest}"
        )
    return found


def _of_ids(wanted: tuple[int, ...], ids: np.ndarray) -> np.ndarray:
    found = []
    for test_id in wanted:
        there = np.flatnonzero(ids == test_id)
        if there.size == 0:
            raise errors.InvalidValueError(
                f"test_ids {test_id}: there is no such test example; ids go from {ids.min()} to {ids.max()}"
            )
        found.append(int(there[0]))
    if len(set(found)) < len(found) or not found:
        raise errors.InvalidValueError(f"test_ids {','.join(map(str, wanted))}: name at least one, each once")
    return np.sort(np.array(found))

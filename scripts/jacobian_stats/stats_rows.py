"""Some rows of arrays that may not fit memory."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Rows:
    """Some rows of an array that may be a memory map, made into something else where they are asked for."""

    def __init__(
        self, array: Any, positions: np.ndarray, make: Callable[[np.ndarray], np.ndarray] = np.asarray
    ) -> None:
        self._array, self._positions, self._make = array, positions, make
        first = make(np.asarray(array[positions[:1]]))
        self.shape, self.dtype = (len(positions), *first.shape[1:]), first.dtype

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        positions = self._positions[chosen]
        if np.ndim(positions) == 0:
            return self._make(np.asarray(self._array[positions[None]]))[0]
        return self._make(np.asarray(self._array[positions]))

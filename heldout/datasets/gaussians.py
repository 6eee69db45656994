"""Points in the plane from two normal distributions: a data set small enough to see all that a network does with it.

Class 0 is around (-1, -1/2), class 1 around (1, 1/2), both with standard deviation 0.7 along each axis. A point (x, y)
is an image [1, 1, 2] of float32. The training split has 2000 points and the test split 400, one of each class in turn;
what wants other points draws others of them.

The words of a split come from a Philox generator whose key is the first 128 bits of
SHA-256("heldout-gaussians-1/<split>"); normal values are the inverse distribution function of uniform ones.
"""

import hashlib

import numpy as np

from heldout.datasets import dataset

VERSION = "1"
CENTRES = ((-1.0, -0.5), (1.0, 0.5))
STANDARD_DEVIATION = 0.7
_SIZES = {"train": 2000, "test": 400}


def load() -> dataset.Dataset:
    """The points as a `Dataset` with 2 classes and scale 1."""
    return dataset.Dataset(
        name="gaussians",
        version=VERSION,
        train=_split("train"),
        test=_split("test"),
        class_names=("lower left", "upper right"),
        scale=1.0,
    )


def _split(name: str) -> dataset.Split:
    from scipy import special  # half a second; the registry is on the path of quick programs

    label = np.arange(_SIZES[name], dtype=np.int64) % 2
    digest = hashlib.sha256(f"heldout-gaussians-{VERSION}/{name}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(2 * len(label))
    # In the middle of each of 2^53 equal parts, so that no word gives an infinite value.
    normal = special.ndtri(((words >> np.uint64(11)) + 0.5) * 2.0**-53).reshape(-1, 2)
    points = np.array(CENTRES)[label] + STANDARD_DEVIATION * normal
    return dataset.Split(points.astype(np.float32).reshape(-1, 1, 1, 2), label)

"""The 8x8 handwritten digits that ship with scikit-learn: a complete small data set without any download.

1797 images (test part of the optical digits set of Alpaydin & Kaynak, 1998), values 0..16. The split is fixed: image
i of scikit-learn's order is a test example where i % 5 == 4, a training example otherwise, both in that order. That
gives 1438 training and 359 test images [8, 8, 1] of uint8.
"""

import numpy as np

from heldout.datasets import dataset

VERSION = "1.0.0"
_TRAIN_LABEL_SHA256 = "d88bc14b5455324ff8c5b13f3d3dbf61f9f2fed107c1bdae032e8506d4ff6116"
_TEST_LABEL_SHA256 = "5b60d960d691c63f4e10de32b748c8dadcfa8c4000d9b6fe5efbd78200686ddc"


def load() -> dataset.Dataset:
    """The digits as a `Dataset` with 10 classes and scale 16.

    Raises:
        MismatchError: the installed scikit-learn holds other labels or another order.
    """
    from sklearn import datasets as sklearn_datasets  # a second; the registry is on the path of quick programs

    bunch = sklearn_datasets.load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]
    label = bunch.target.astype(np.int64)
    is_test = np.arange(len(label)) % 5 == 4
    dataset.check_label_order("digits train", label[~is_test], _TRAIN_LABEL_SHA256)
    dataset.check_label_order("digits test", label[is_test], _TEST_LABEL_SHA256)
    return dataset.Dataset(
        name="digits",
        version=VERSION,
        train=dataset.Split(images[~is_test], label[~is_test]),
        test=dataset.Split(images[is_test], label[is_test]),
        class_names=tuple(str(digit) for digit in range(10)),
        scale=16.0,
    )

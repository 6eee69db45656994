"""The published zoos: where their archives are, the MD5 of each, and what was trained on what.

Each is one tar.gz of an experiment in the layout of `zoo.layout`, in a public bucket of Google Cloud Storage.
"""

from collections.abc import Mapping
import dataclasses
import types

_BUCKET = "gs://gresearch/heldout-training-checkpoints"


@dataclasses.dataclass(frozen=True)
class Published:
    """One published zoo.

    Attributes:
        name: of the experiment.
        url: of the archive, gs://...
        md5: hexadecimal digest of the archive.
        architecture: name of the model.
        dataset: name of the data set.
        num_classes: number of its classes.
    """

    name: str
    url: str
    md5: str
    architecture: str
    dataset: str
    num_classes: int


def _published(name: str, md5: str, architecture: str, dataset: str, num_classes: int) -> Published:
    return Published(name, f"{_BUCKET}/{name}.tar.gz", md5, architecture, dataset, num_classes)


PUBLISHED: Mapping[str, Published] = types.MappingProxyType(
    {
        zoo.name: zoo
        for zoo in (
            _published("cifar10-inception", "bc3b75203381709f8224810946be14b1", "small_inception", "cifar10", 10),
            _published("cifar100-inception", "f87218368528afa6e2407c8410f1ffa1", "small_inception", "cifar100", 100),
            _published("imagenet-resnet50", "64c39ef7702462b83959af9de622b4b8", "resnet50", "imagenet", 1000),
        )
    }
)

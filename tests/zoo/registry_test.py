"""The facts about the published zoos."""

import re

from zoo import layout, registry


def test_published_zoos():
    found = {
        name: (zoo.url, zoo.md5, zoo.architecture, zoo.dataset, zoo.num_classes)
        for name, zoo in registry.PUBLISHED.items()
    }
    bucket = "gs://gresearch/heldout-training-checkpoints"
    assert found == {
        "cifar10-inception": (
            f"{bucket}/cifar10-inception.tar.gz",
            "bc3b75203381709f8224810946be14b1",
            "small_inception",
            "cifar10",
            10,
        ),
        "cifar100-inception": (
            f"{bucket}/cifar100-inception.tar.gz",
            "f87218368528afa6e2407c8410f1ffa1",
            "small_inception",
            "cifar100",
            100,
        ),
        "imagenet-resnet50": (
            f"{bucket}/imagenet-resnet50.tar.gz",
            "64c39ef7702462b83959af9de622b4b8",
            "resnet50",
            "imagenet",
            1000,
        ),
    }


def test_names_are_experiment_names_and_digests_are_md5():
    for name, zoo in registry.PUBLISHED.items():
        layout.check_experiment_name(name)
        assert zoo.name == name
        assert re.fullmatch("[0-9a-f]{32}", zoo.md5)

"""Data sets by name, and how little importing them costs."""

import subprocess
import sys

import numpy as np
import pytest

from heldout.datasets import registry
from tests.heldout.datasets import record_cases
from zoo import errors


def test_names():
    assert {"digits", "mnist", "cifar10", "cifar100", "fashion_mnist"} <= set(registry.names())


def test_digits_by_name():
    assert registry.load("digits").name == "digits"


def test_gaussians_by_name():
    data = registry.load("gaussians")
    assert registry.identify("gaussians") == (data.name, data.version) == ("gaussians", "1")


def test_images_of_differing_sizes_by_name_and_size(tmp_path):
    assert registry.identify("cats_vs_dogs_64") == ("cats_vs_dogs_64", "4.0.1")
    with pytest.raises(errors.MissingFileError, match=r"tfds.load\('cassava:0.1.0'"):
        registry.load("cassava_64", str(tmp_path))


def test_npz_by_path(tmp_path):
    images, label = np.zeros((2, 3, 3), np.uint8), np.array([0, 1])
    path = tmp_path / "own.npz"
    np.savez(path, train__image=images, train__label=label, test__image=images, test__label=label)
    assert registry.load(f"npz:{path}").name == "npz:own.npz"


def test_records_by_path(tmp_path):
    for split in ("train", "test"):
        records = [record_cases.tiny_example(bytes(64 * 64 * 3), label, label) for label in range(3)]
        record_cases.write_shard(tmp_path / "own" / f"{split}-00000-of-00001", records)
    loaded = registry.load(f"records:{tmp_path}/own")
    assert (loaded.name, loaded.train.images.shape) == ("records:own", (3, 64, 64, 3))
    assert registry.identify(f"records:{tmp_path}/own") == (loaded.name, loaded.version)
    with pytest.raises(errors.MissingFileError, match="gone: no such folder"):
        registry.identify("records:gone")


def test_tfds_by_name(tmp_path):
    with pytest.raises(errors.MissingFileError, match="cifar100"):
        registry.load("cifar100", str(tmp_path))


def test_identify_agrees_with_load(tmp_path, monkeypatch):
    images, label = np.zeros((2, 3, 3), np.uint8), np.array([0, 1])
    path = tmp_path / "own.npz"
    np.savez(path, train__image=images, train__label=label, test__image=images, test__label=label)
    monkeypatch.chdir(tmp_path)
    for name in ("digits", f"npz:{path}", "npz:own.npz"):
        loaded = registry.load(name)
        assert registry.identify(name) == (loaded.name, loaded.version)
    np.savez(path, train__image=images + 1, train__label=label, test__image=images, test__label=label)
    assert registry.identify("npz:own.npz") != (loaded.name, loaded.version)
    with pytest.raises(errors.MissingFileError, match="gone"):
        registry.identify("npz:gone.npz")


def test_identify_needs_neither_data_nor_tensorflow():
    program = "import sys; from heldout.datasets import registry; print(registry.identify('cifar10'), "
    program += "[name for name in ('tensorflow', 'sklearn') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "('cifar10', '3.0.2') []"


@pytest.mark.parametrize("program", [registry.load, registry.identify])
@pytest.mark.parametrize("name", ["cifar", "", "npz", "MNIST", "cats_vs_dogs", "cats_vs_dogs_0", "dogs_64"])
def test_unknown_names(name, program):
    with pytest.raises(errors.InvalidValueError, match=r"unknown; use one of digits, gaussians, mnist.* or npz:PATH"):
        program(name)


def test_importing_brings_no_large_library():
    program = (
        "import sys; from heldout.datasets import registry; "
        "print([name for name in ('tensorflow', 'tensorflow_datasets', 'sklearn', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

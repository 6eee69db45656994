"""Two data sets in one: shares, labels that stay with their images, forms of images, refusals."""

import numpy as np
import pytest

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import digits, registry, source_mixture
from zoo import errors


def made(name, shape, num_train, num_test, dtype=np.uint8, scale=255.0, first_value=0):
    """Images of one value each, which is their number; the label is its remainder by 3."""

    def split(start, count):
        number = np.arange(start, start + count)
        images = np.broadcast_to(number[:, None, None, None], (count, *shape)).astype(dtype)
        return dataset_lib.Split(images.copy(), number % 3)

    train, test = split(first_value, num_train), split(first_value + num_train, num_test)
    return dataset_lib.Dataset(name, "1", train, test, ("a", "b", "c"), scale)


@pytest.mark.parametrize(("share", "sizes"), [(0.1, (90, 30)), (0.5, (40, 60)), (0.9, (30, 100))])
def test_the_second_gives_its_share_and_half_of_the_tests(share, sizes):
    first = made("a", (3, 4, 1), sizes[0], 20)
    second = made("b", (3, 4, 1), sizes[1], 12, first_value=130)
    mixture = source_mixture.mix(first, second, share, seed=0)
    counts = mixture.counts("train")
    total = sum(counts.values())
    assert abs(counts["second"] - share * total) <= 1
    # As many as can be had with that share.
    assert counts["first"] >= sizes[0] - 1 or counts["second"] >= sizes[1] - 1
    assert mixture.counts("test") == {"first": 12, "second": 12}
    for name in ("train", "test"):
        split, source = getattr(mixture, name), getattr(mixture, f"{name}_source")
        number = split.images[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(split.label, number % 3)
        np.testing.assert_array_equal(source == "second", number >= 130)
        assert len(set(number.tolist())) == len(number)
        # In an order by chance: neither source comes first.
        assert 0.1 < np.mean(np.flatnonzero(source == "second")) / len(source) < 0.9


def test_the_same_data_twice_have_no_example_in_common_and_can_be_reversed():
    data = made("a", (2, 2, 1), 60, 20)
    mixture = source_mixture.mix(data, data, 0.2, seed=3, reversed_second=True)
    is_second = mixture.train_source == "second"
    number = mixture.train.images[:, 0, 0, 0].astype(int)
    number[is_second] = 255 - number[is_second]
    np.testing.assert_array_equal(mixture.train.label, number % 3)
    assert set((number % 2)[is_second]) == {1}
    assert set((number % 2)[~is_second]) == {0}
    other = source_mixture.mix(data, data, 0.2, seed=4, reversed_second=True)
    assert not np.array_equal(other.train.images, mixture.train.images)


def test_images_of_the_second_come_in_the_form_of_the_first():
    first = made("a", (4, 3, 1), 60, 20, scale=100.0)
    colours = made("b", (2, 7, 3), 60, 20, dtype=np.float32, scale=50.0)
    colours.train.images[..., 0] += 30  # the mean of the channels is 10 more
    mixture = source_mixture.mix(first, colours, 0.5, seed=0)
    assert mixture.train.images.shape[1:] == (4, 3, 1)
    assert (mixture.train.images.dtype, mixture.scale, mixture.class_names) == (np.uint8, 100.0, ("a", "b", "c"))
    second = mixture.train.images[mixture.train_source == "second"]
    # One row of zeros above and below; values times 100 / 50, at most 100.
    assert not second[:, [0, 3]].any()
    label = mixture.train.label[mixture.train_source == "second"]
    number = second[:, 1, 1, 0].astype(int) // 2 - 10
    known = second[:, 1, 1, 0] < 100
    assert known.any()
    np.testing.assert_array_equal(number[known] % 3, label[known])
    grey = source_mixture.mix(colours, first, 0.5, seed=0)
    assert grey.train.images.shape[1:] == (2, 7, 3)
    assert grey.train.images.dtype == np.float32


def test_the_file_is_a_data_set_with_sources(tmp_path):
    data = digits.load()
    mixture = source_mixture.mix(data, data, 0.1, seed=0, reversed_second=True)
    source_mixture.write(tmp_path / "mixed.npz", mixture)
    loaded = registry.load(f"npz:{tmp_path}/mixed.npz")
    np.testing.assert_array_equal(loaded.train.images, mixture.train.images)
    np.testing.assert_array_equal(loaded.test.label, mixture.test.label)
    assert (loaded.scale, loaded.class_names) == (16.0, data.class_names)
    with np.load(tmp_path / "mixed.npz") as stored:
        np.testing.assert_array_equal(stored["train__source"], mixture.train_source)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_shares_that_are_none_are_refused(share):
    data = made("a", (2, 2, 1), 20, 8)
    with pytest.raises(errors.InvalidValueError, match=f"--share={share}: expected a number between 0 and 1"):
        source_mixture.mix(data, data, share, seed=0)


def test_other_classes_are_refused():
    with pytest.raises(errors.InvalidValueError, match="--second: digits has 10 classes, a 3; expected the same"):
        source_mixture.mix(made("a", (2, 2, 1), 20, 8), digits.load(), 0.1, seed=0)

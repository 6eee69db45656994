"""Batches whose size stays."""

import numpy as np
import pytest

from estimators import errors, examples
from estimators.jacobian import batching


@pytest.mark.parametrize(
    ("most", "nums", "expected"),
    [(8, [20, 20, 3, 21], [7, 7, 7, 7]), (8, [3, 2, 5, 100], [3, 3, 8, 8]), (4, [4, 1, 9], [4, 4, 4]), (5, [1], [1])],
)
def test_a_size_stays_unless_it_makes_more_batches_and_then_becomes_the_most(most, nums, expected):
    sizes = batching.Sizes(most)
    assert [sizes.choose(num) for num in nums] == expected


def test_batches_have_every_example_once_and_are_filled_up():
    sizes = batching.Sizes(4)
    for num in (7, 2, 8):
        data = examples.Examples(np.arange(num), np.arange(num), np.arange(num) + 10)
        batches = list(sizes.batches(data))
        assert {len(batch) for batch, _ in batches} == {4}
        found = np.concatenate([batch.ids[:count] for batch, count in batches])
        np.testing.assert_array_equal(found, data.ids)
    with pytest.raises(errors.InvalidArgumentError, match="batch_size 0: must be at least 1"):
        batching.Sizes(0)

"""Test examples by class and by id."""

import numpy as np
import pytest

from estimators import examples
from scripts.attribution import chosen_examples, influence_config
from zoo import errors

LABELS = np.array([2, 0, 0, 2, 1, 0, 2, 2])
TEST = examples.Examples(np.zeros((8, 1)), LABELS, np.arange(10, 18))


def positions(**options):
    return chosen_examples.positions(influence_config.InfluenceConfig(**options), TEST).tolist()


def test_all_without_a_choice():
    assert positions() == list(range(8))


def test_so_many_of_each_class_from_a_start_on():
    assert positions(test_sample_num=1) == [0, 1, 4]
    assert positions(test_sample_num=2, test_sample_start_per_class=1) == [2, 3, 5, 6]
    assert positions(test_sample_start_per_class=3) == [7]


def test_ids_are_original_indices():
    assert positions(test_ids=(17, 10)) == [0, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_ids": (9,)}, "test_ids 9: there is no such test example; ids go from 10 to 17"),
        ({"test_ids": (10, 10)}, "test_ids 10,10: name at least one, each once"),
        ({"test_ids": ()}, "test_ids : name at least one"),
        ({"test_sample_start_per_class": 4}, "no class has more than 4 test examples"),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        positions(**options)


def test_numbers_are_no_classes():
    test = examples.Examples(np.zeros((8, 1)), np.zeros(8))
    with pytest.raises(errors.InvalidValueError, match="are no classes; choose by test_ids"):
        chosen_examples.positions(influence_config.InfluenceConfig(test_sample_num=1), test)

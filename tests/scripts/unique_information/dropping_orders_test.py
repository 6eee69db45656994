"""Orders of dropping: by hand, against explicit training of what is left, by parts, and what they leave."""

import numpy as np
import pytest

from heldout.experiments import subset_rankings
from scripts.unique_information import (
    dropping_orders,
    linearised_problem,
    linearised_scores,
    scoring_config,
    summary_files,
)
from zoo import errors

_INDEX = np.array([2, 3, 5, 7, 11, 13])
_RATE, _STEPS, _L2 = 0.1, 40, 0.01


def test_the_highest_scores_come_first_and_of_equal_ones_the_lower_position():
    score = np.array([1.0, 4.0, 1.0, 0.0, 9.0, 4.0])
    assert dropping_orders.by_score(_INDEX, score, "top").tolist() == [11, 3, 13, 2, 5, 7]
    assert dropping_orders.by_score(_INDEX, score, "bottom").tolist() == [7, 5, 2, 13, 3, 11]
    score[[1, 4]] = np.nan
    with pytest.raises(errors.InvalidValueError, match="2 of the 6 training examples have no score"):
        dropping_orders.by_score(_INDEX, score, "top")


def test_chance_follows_the_seed():
    one, again, other = (dropping_orders.by_chance(_INDEX, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert sorted(one) == _INDEX.tolist()
    # Each example is first about as often: 600 draws, 100 each, within five standard errors.
    firsts = [dropping_orders.by_chance(_INDEX, seed)[0] for seed in range(600)]
    assert np.abs(np.unique(firsts, return_counts=True)[1] - 100).max() < 5 * np.sqrt(600 / 6 * 5 / 6)


def test_what_is_left_is_scored_again_and_known_parts_are_not():
    asked = []

    def score(places):
        asked.append(places.tolist())
        return -np.abs(_INDEX[places] - _INDEX[places].mean())  # the most extreme ones score lowest

    parts = [part.tolist() for part in dropping_orders.rescored(_INDEX, score, "iterative_bottom", 1 / 6)]
    assert parts == [[13], [11], [7], [5], [3], [2]]  # without scoring again 13, 2, 11, 3, 5, 7
    assert asked == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2], [0, 1]]
    asked.clear()
    again = dropping_orders.rescored(_INDEX, score, "iterative_bottom", 1 / 6, [13, 11])
    assert [part.tolist() for part in again] == parts[2:]
    assert asked[0] == [0, 1, 2, 3]
    assert list(dropping_orders.rescored(_INDEX, score, "iterative_top", 0.5, _INDEX.tolist())) == []
    parts = dropping_orders.rescored(np.arange(20), lambda places: places, "iterative_top", 0.15)
    sizes = [len(part) for part in parts]
    assert sizes == [3, 3, 3, 3, 3, 5]


def trained(inputs, target):
    """Weights of a linear model after gradient descent on what it is given, written out."""
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        weights -= _RATE * (inputs.T @ (inputs @ weights - target) / len(target) + _L2 * weights)
    return weights


def by_hand(inputs, target, val_inputs, places):
    """1/2 mean squared change of predictions when each of the examples left is left out, by training again."""
    full = trained(inputs[places], target[places])
    changes = [
        trained(inputs[kept], target[kept]) - full for kept in (np.delete(places, i) for i in range(len(places)))
    ]
    return np.array([np.mean((val_inputs @ change) ** 2) / 2 for change in changes])


@pytest.mark.parametrize("way", ["iterative_top", "iterative_bottom"])
def test_the_iterative_order_is_that_of_training_by_hand(way):
    generator = np.random.default_rng(0)
    inputs, val_inputs = generator.normal(size=(20, 4)), generator.normal(size=(15, 4))
    target = inputs @ generator.normal(size=4) + generator.normal(size=20)
    problem = linearised_problem.Problem(
        form="dual",
        train_rows=inputs @ inputs.T,
        val_rows=val_inputs @ inputs.T,
        train_index=np.arange(20),
        val_index=np.arange(15),
        train_output=np.zeros((20, 1)),
        val_output=np.zeros((15, 1)),
        train_target=target[:, None],
        val_target=np.zeros((15, 1)),
        accuracy=1e-15,
    )
    training = scoring_config.Training(_RATE, _STEPS, _L2)
    scoring = scoring_config.ScoringConfig(measures=("predictions",), num_checked=0)

    def linearised(places):
        return linearised_scores.compute(problem.take(places), training, scoring).columns["predictions"]

    found = np.concatenate(list(dropping_orders.rescored(np.arange(20), linearised, way, 0.05)))
    expected, left = [], np.arange(20)
    while len(left) > 1:
        score = by_hand(inputs, target, val_inputs, left)
        at = score.argmax() if way == "iterative_top" else score.argmin()
        expected.append(left[at])
        left = np.delete(left, at)
    np.testing.assert_array_equal(found, [*expected, *left])
    one_shot = dropping_orders.by_score(np.arange(20), linearised(np.arange(20)), way)
    assert (one_shot != found).any()  # scoring again makes a difference


def test_numbers_of_dropped_examples():
    assert dropping_orders.counts([0.5, 0, 0.95], 20) == (0, 10, 19)
    for ratios in ([1.0], [-0.1], [0.99], [0.1, 0.11], []):
        with pytest.raises(errors.InvalidValueError, match=r"--ratios=.*: expected shares of the 20 examples"):
            dropping_orders.counts(ratios, 20)


@pytest.mark.parametrize("num_train", [2, 7, 20, 21, 100])
def test_ratios_that_nobody_chose_fit_any_number_of_examples(num_train):
    ratios = [float(ratio) for ratio in np.linspace(0, 0.95, 21)]
    fitting = dropping_orders.fitting(ratios, num_train)
    found = dropping_orders.counts(fitting, num_train)
    assert set(fitting) <= set(ratios)
    assert set(found) == {round(ratio * num_train) for ratio in ratios} - {num_train}
    assert fitting == ratios or num_train < 100


def test_a_refused_ratio_is_told_by_the_flag_that_has_it():
    with pytest.raises(errors.InvalidValueError, match=r"^--print_subset=top:2: expected shares of the 20 examples"):
        dropping_orders.counts([2.0], 20, "--print_subset=top:2")


def test_orders_return_from_their_file_and_subsets_are_rankings(tmp_path):
    assert not len(summary_files.read_order(tmp_path, "top", _INDEX))
    order = np.array([11, 3, 13])
    summary_files.write_order(tmp_path, "top", order)
    np.testing.assert_array_equal(summary_files.read_order(tmp_path, "top", _INDEX), order)
    with pytest.raises(errors.DamagedFileError, match="is no order of the examples of this experiment"):
        summary_files.read_order(tmp_path, "top", _INDEX[:3])
    order = np.array([11, 3, 13, 2, 5, 7])
    path = summary_files.subset_path(tmp_path, "top")
    summary_files.write_subsets(path, order, (0, 4))
    with np.load(path) as stored:
        assert stored["kept_train_index"].tolist() == [*_INDEX, 5, 7]
        assert stored["kept_offset"].tolist() == [0, 6, 8]
        ranking = subset_rankings.SubsetRanking(stored["train_index"], stored["value"])
    again = subset_rankings.read(path, ranking.sha256())
    np.testing.assert_array_equal(again.order("highest"), order[::-1])
    np.testing.assert_array_equal(np.sort(again.order("highest")[:2]), [5, 7])
    groups = summary_files.groups({"top": order}, (0, 2))
    assert groups == {("top", 0): (), ("top", 2): (3, 11)}

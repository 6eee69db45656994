"""Learning rates against numbers worked out by hand."""

import numpy as np
import pytest

from heldout.experiments import training_config
from heldout.training import schedules


def rates(**options):
    config = training_config.TrainingConfig(num_epochs=4, learning_rate=0.5, **options)
    return np.concatenate([schedules.learning_rates(config, 2, epoch) for epoch in range(4)])


def test_constant():
    np.testing.assert_array_equal(rates(), np.full(8, 0.5))


def test_step_lowers_the_rate_at_the_named_epochs():
    expected = [0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.005, 0.005]
    np.testing.assert_allclose(rates(schedule="step", step_epochs=(1, 3)), expected)


def test_cosine_falls_from_the_base_rate_to_nearly_zero():
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(rates(schedule="cosine"), expected)


def test_cosine_begins_after_the_warmup():
    # Two epochs of warm-up are four steps; the cosine then spans the other four.
    expected = [0.125, 0.25, 0.375, 0.5, *(0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)))]
    np.testing.assert_allclose(rates(schedule="cosine", warmup_epochs=2), expected)


def test_fractional_warmup():
    np.testing.assert_allclose(rates(warmup_epochs=1.5)[:4], [0.5 / 3, 1 / 3, 0.5, 0.5])


def test_warmup_begins_at_its_initial_rate():
    expected = [0.1 + 0.4 * t / 4 for t in (1, 2, 3, 4)]
    np.testing.assert_allclose(rates(warmup_epochs=2, warmup_initial=0.1)[:4], expected)
    # From above the rate of the schedule it comes down.
    np.testing.assert_allclose(rates(warmup_epochs=1, warmup_initial=2.5)[:3], [1.5, 0.5, 0.5])


@pytest.mark.parametrize("schedule", training_config.SCHEDULES)
def test_every_schedule_gives_one_positive_rate_per_step(schedule):
    steps = (2,) if schedule == "step" else ()
    drawn = rates(schedule=schedule, step_epochs=steps)
    assert drawn.shape == (8,)
    assert np.all(drawn > 0)

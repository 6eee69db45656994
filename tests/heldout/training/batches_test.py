"""Batches: every run its own order, every epoch another, nothing outside the subset."""

import numpy as np

from heldout import subsets
from heldout.experiments import training_config
from heldout.training import batches


def draws(count, size=50):
    return [batches.RunDraw(("e", 0.5, i), subsets.subset_indices("e", 0.5, i, size)) for i in range(count)]


def test_an_epoch_holds_each_subset_position_at_most_once():
    config = training_config.TrainingConfig(batch_size=4)
    runs = draws(3)
    epoch = batches.epoch_batches(config, runs, 0)
    assert epoch.indices.shape == (6, 3, 4)
    for position, run in enumerate(runs):
        seen = epoch.indices[:, position].ravel()
        assert len(set(seen)) == 24
        assert set(seen) <= set(run.subset_indices)


def test_epochs_and_runs_differ_but_repeat_exactly():
    config = training_config.TrainingConfig(batch_size=5)
    first, again = (batches.epoch_batches(config, draws(2), 0).indices for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, batches.epoch_batches(config, draws(2), 1).indices)


def test_a_run_draws_the_same_in_any_group():
    config = training_config.TrainingConfig(batch_size=5, augmentation=("crop", "flip"))
    together, alone = batches.epoch_batches(config, draws(3), 2), batches.epoch_batches(config, draws(3)[1:2], 2)
    np.testing.assert_array_equal(together.indices[:, 1], alone.indices[:, 0])
    np.testing.assert_array_equal(together.shifts[:, 1], alone.shifts[:, 0])
    np.testing.assert_array_equal(together.flips[:, 1], alone.flips[:, 0])


def test_every_example_is_left_out_of_some_epoch_only():
    # The incomplete last batch is dropped, but over the epochs every example of the subset is seen.
    config = training_config.TrainingConfig(batch_size=8)
    runs = draws(1)
    seen = np.concatenate([batches.epoch_batches(config, runs, epoch).indices.ravel() for epoch in range(5)])
    assert set(seen) == set(runs[0].subset_indices)


def test_batch_larger_than_the_subset_is_the_subset():
    config = training_config.TrainingConfig(batch_size=1000)
    assert batches.steps_per_epoch(config, 25) == 1
    assert batches.epoch_batches(config, draws(1), 0).indices.shape == (1, 1, 25)


def test_shifts_cover_the_whole_padding():
    config = training_config.TrainingConfig(batch_size=5, augmentation=("crop",), crop_padding=2)
    epoch = batches.epoch_batches(config, draws(4), 0)
    assert epoch.shifts.shape == (5, 4, 5, 2)
    assert set(np.unique(epoch.shifts)) == {0, 1, 2, 3, 4}
    assert epoch.flips.size == 0

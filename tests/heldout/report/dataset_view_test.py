"""Tests of heldout.report.dataset_view."""

import dataclasses

import numpy as np
import pytest

from heldout.datasets import dataset
from heldout.report import dataset_view
from tests.heldout.report import simulated
from zoo import errors


def test_a_data_set_that_fits_brings_labels_and_names():
    view = dataset_view.view(simulated.saved(labels=False), simulated.images())
    np.testing.assert_array_equal(view.train_label, simulated.TRAIN_LABEL)
    assert view.class_names == simulated.CLASS_NAMES


def test_without_a_data_set_the_labels_of_the_scores_stay():
    view = dataset_view.view(simulated.saved(), None)
    np.testing.assert_array_equal(view.test_label, simulated.TEST_LABEL)
    assert view.class_names is None


def test_another_order_is_refused_with_the_first_difference():
    images = simulated.images()
    label = images.test.label.copy()
    label[[3, 4]] = label[[4, 3]]
    other = dataclasses.replace(images, test=dataset.Split(images.test.images, label))
    with pytest.raises(errors.MismatchError, match=r"label of test example 3 is 1.*with 0 \(2 of 24 differ\)"):
        dataset_view.view(simulated.saved(), other)


def test_another_size_is_refused():
    images = simulated.images()
    other = dataclasses.replace(images, train=dataset.Split(images.train.images[:50], images.train.label[:50]))
    with pytest.raises(errors.MismatchError, match="50 training examples, the scores have 60"):
        dataset_view.view(simulated.saved(labels=False), other)


def test_images_that_cannot_be_drawn_are_refused():
    with pytest.raises(errors.InvalidValueError, match="can be drawn"):
        dataset_view.view(simulated.saved(), simulated.images(channels=4))

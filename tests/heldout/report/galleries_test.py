"""Tests of heldout.report.galleries against plain sorting."""

import dataclasses

import numpy as np
import pytest

from heldout.report import galleries, influence_scan
from tests.heldout.report import simulated


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.5]


def test_one_gallery_per_class_and_one_for_all(scores):
    shown = galleries.memorization_galleries(scores, simulated.TRAIN_LABEL, 4)
    assert [gallery.label for gallery in shown] == [None, 0, 1, 2]
    assert [gallery.num_examples for gallery in shown] == [60, 20, 20, 20]
    first = shown[0].most[0]
    assert (first.train_index, first.memorization, first.label) == (simulated.MEMORIZED, 1.0, 1)
    assert first.num_in + first.num_heldout == 40
    values = scores.memorization.values
    for gallery in shown[1:]:
        members = np.flatnonzero(gallery.label == simulated.TRAIN_LABEL)
        truth = np.sort(values[members][~np.isnan(values[members])])
        assert [card.memorization for card in gallery.most] == truth[::-1][:4].tolist()
        assert [card.memorization for card in gallery.least] == truth[:4].tolist()


def test_examples_without_a_value_are_counted_not_shown(scores):
    shown = galleries.memorization_galleries(scores, simulated.TRAIN_LABEL, 60)
    label = simulated.TRAIN_LABEL[simulated.NEVER_HELD_OUT]
    assert shown[0].num_undefined == shown[1 + label].num_undefined == 1
    assert [(gallery.num_never_in, gallery.num_never_heldout) for gallery in (shown[0], shown[1 + label])] == [
        (0, 1)
    ] * 2
    never_in = np.where(np.arange(60) < 4, 0, scores.memorization.num_in)
    fewer = dataclasses.replace(scores, memorization=dataclasses.replace(scores.memorization, num_in=never_in))
    others = galleries.memorization_galleries(fewer, simulated.TRAIN_LABEL, 60)
    assert [gallery.num_never_in for gallery in others] == [4, *np.bincount(simulated.TRAIN_LABEL[:4], minlength=3)]
    cards = [card.train_index for card in (*shown[0].most, *shown[0].least)]
    assert sorted(cards) == [index for index in range(60) if index != simulated.NEVER_HELD_OUT]


def test_a_class_without_any_value(scores):
    nothing = dataclasses.replace(scores.memorization, values=np.full(60, np.nan))
    gallery = galleries.memorization_galleries(dataclasses.replace(scores, memorization=nothing), None, 4)[0]
    assert gallery.most == gallery.least == ()
    assert gallery.num_undefined == 60


def test_without_labels_there_is_one_gallery(scores):
    (gallery,) = galleries.memorization_galleries(scores, None, 3)
    assert len(gallery.most) == len(gallery.least) == 3
    assert gallery.most[0].label is None


def test_many_classes_shrink_the_galleries():
    assert galleries.cards_per_side(10, 12) == 12
    assert galleries.cards_per_side(100, 12) * 2 * 101 <= galleries.MAX_GALLERY_CARDS
    assert galleries.cards_per_side(100_000, 12) == 1


def test_stories_begin_with_the_strongest_pair(scores):
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    stories = galleries.stories_of_tests(scores, scan, (simulated.TRAIN_LABEL, simulated.TEST_LABEL), 5, 3)
    assert len(stories) == 5
    assert stories[0].test_index == simulated.DEPENDENT_TEST
    assert stories[0].helpful[0].train_index == simulated.MEMORIZED
    for story in stories:
        column = scores.subset_influence[:, story.test_index]
        order = np.sort(column[~np.isnan(column)])
        assert [effect.value for effect in story.helpful] == pytest.approx(order[::-1][:3])
        assert [effect.value for effect in story.harmful] == pytest.approx([value for value in order[:3] if value < 0])
        assert story.label == simulated.TEST_LABEL[story.test_index]
        effect = story.helpful[0]
        place = (np.array(effect.train_index), np.array(story.test_index))
        assert effect.standard_error == scores.influence_standard_error(*place, scores.subset_influence[place])


def test_harm_alone_makes_a_story(scores):
    values = np.zeros_like(scores.subset_influence)
    values[3, 9], values[4, 2] = -0.5, 0.25
    scores = simulated.with_influence(scores, values)
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    first, second = galleries.stories_of_tests(scores, scan, (None, None), 5, 3)
    assert (first.test_index, second.test_index) == (9, 2)
    assert first.helpful == second.harmful == ()
    assert (first.harmful[0].train_index, first.harmful[0].value) == (3, -0.5)


def test_exact_zeros_are_counted(scores):
    values = np.linspace(0.1, 0.9, simulated.NUM_TRAIN)
    values[[0, 3, 4]] = 0.0
    values[6] = -1e-9
    memorization = dataclasses.replace(scores.memorization, values=values)
    shown = galleries.memorization_galleries(
        dataclasses.replace(scores, memorization=memorization), simulated.TRAIN_LABEL, 4
    )
    assert [gallery.num_zero for gallery in shown] == [3, 2, 1, 0]


def test_no_story_without_influence(scores):
    flat = np.zeros_like(scores.subset_influence)
    scores = simulated.with_influence(scores, flat)
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    assert galleries.stories_of_tests(scores, scan, (None, None), 5, 3) == []

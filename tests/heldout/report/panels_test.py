"""Panels of single examples against the simulated influence matrix, and how a page keeps within its budget."""

import json
import re

import numpy as np
import pytest

from heldout.report import dataset_view, page, panels, selection
from tests.heldout.report import simulated

LABELS = (simulated.TRAIN_LABEL, simulated.TEST_LABEL)


@pytest.fixture(scope="module")
def saved():
    return simulated.saved()


@pytest.fixture(scope="module")
def scores(saved):
    return selection.ratio_scores(saved)


def _strongest(values, count, sign):
    """Indices of the largest positive (or negative) values, plainly; ties at the cut make this a set of values."""
    order = [index for index in np.argsort(-sign * values, kind="stable") if sign * values[index] > 0]
    return np.round(values[order[:count]].astype(float), 7).tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_panel_lists_the_strongest_of_the_matrix(saved, scores, split):
    size = {"train": simulated.NUM_TRAIN, "test": simulated.NUM_TEST}[split]
    found = panels.payload(scores, saved.consistency, [(split, index) for index in range(size)], LABELS, 4)
    matrix = scores.subset_influence if split == "train" else scores.subset_influence.T
    other_label = LABELS[1] if split == "train" else LABELS[0]
    assert list(found) == [f"{split}-{index}" for index in range(size)]
    for index in range(size):
        panel = found[f"{split}-{index}"]
        assert panel["label"] == index % simulated.NUM_CLASSES
        for side, sign in (("helps", 1), ("harms", -1)):
            row = np.nan_to_num(matrix[index])
            assert [effect[2] for effect in panel[side]] == _strongest(row, 4, sign)
            for other, label, value, error in panel[side]:
                assert round(float(row[other]), 7) == value
                assert label == other_label[other]
                pair = (index, other) if split == "train" else (other, index)
                expected = scores.influence_standard_error(*pair, scores.subset_influence[pair])
                assert error == pytest.approx(float(expected), abs=5e-8)


def test_facts_of_examples(saved, scores):
    keys = [("train", simulated.MEMORIZED), ("train", simulated.NEVER_HELD_OUT), ("test", 3)]
    found = panels.payload(scores, saved.consistency, keys, (None, None), 2)
    memorized, never, test = found.values()
    support = scores.memorization
    assert memorized["memorization"] == 1
    assert memorized["num_in"] == support.num_in[simulated.MEMORIZED]
    assert memorized["label"] is None
    assert all(effect[1] is None for effect in memorized["helps"])
    assert never["memorization"] is None
    assert (never["num_heldout"], never["helps"], never["harms"]) == (0, [], [])
    assert test["accuracy"] == pytest.approx(scores.test_accuracy[3], abs=5e-5)
    json.dumps(found, allow_nan=False)


def test_the_budget_goes_to_what_is_shown_then_to_what_is_near(scores):
    roots = [("test", simulated.DEPENDENT_TEST), ("train", 1)]
    assert panels.chosen(scores, roots, 1, 3) == roots[:1]
    assert panels.chosen(scores, roots, 0, 3) == []
    lists = scores.influence.by_test
    helpful = lists.helpful_index[simulated.DEPENDENT_TEST]
    found = panels.chosen(scores, roots, 4, 3)
    assert found[:2] == roots
    assert found[2] == ("train", helpful[0])
    assert found[3] == ("train", lists.harmful_index[simulated.DEPENDENT_TEST][0])
    everything = panels.chosen(scores, roots, 1000, 3)
    assert len(everything) == len(set(everything)) <= simulated.NUM_TRAIN + simulated.NUM_TEST
    assert ("train", simulated.NEVER_HELD_OUT) not in everything  # it influences nobody that is known


def _page(saved, **options):
    scores = selection.ratio_scores(saved)
    return page.build(saved, scores, dataset_view.view(saved, simulated.images()), page.PageOptions(**options)).html


def _payload(text):
    return json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])


def test_every_link_to_a_panel_has_one(saved):
    for budget in (0, 5, 2000):
        text = _page(saved, num_panels=budget, num_gallery=2, num_stories=1)
        data = _payload(text)
        assert len(data["panels"]) <= budget
        assert set(re.findall(r'href="#((?:train|test)-\d+)"', text)) <= set(data["panels"])
        assert bool(budget) == ('href="#train-' in text or 'href="#test-' in text)


def test_images_that_only_panels_show_stop_at_the_bound(saved, monkeypatch):
    everything = set(_payload(_page(saved, num_gallery=1, num_stories=1))["images"])
    monkeypatch.setattr(page, "_PANEL_IMAGE_BYTES", 0)
    shown = set(_payload(_page(saved, num_gallery=1, num_stories=1))["images"])
    without = set(_payload(_page(saved, num_gallery=1, num_stories=1, num_panels=0))["images"])
    assert shown == without  # what the page shows itself is never left out
    assert shown < everything

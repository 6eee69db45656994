"""The page of test images beside training images: what is drawn, in which order, and nothing from outside."""

import re

import numpy as np
import pytest

from heldout.datasets import dataset
from heldout.report import attribution_page
from tests import cases
from zoo import errors

FACTS = attribution_page.Facts("<model>", "EK-FAC", "what it means", 60, 3)


def story(**options):
    effects = {
        "helpful": (attribution_page.Effect(7, 1, 0.5), attribution_page.Effect(9, 2, 0.25)),
        "harmful": (attribution_page.Effect(8, 3, -0.125),),
    }
    return attribution_page.Story(**{"test_index": 4, "label": 5, "predicted": 5} | effects | options)


def test_examples_are_shown_with_their_values_and_images():
    html = attribution_page.build(cases.tiny_digits(), FACTS, [story()])
    assert "&lt;model&gt;" in html
    assert "1 of 3 test examples are shown" in html
    assert re.findall(r'class="index">(\d+)<', html) == ["7", "9", "8"]
    assert re.findall(r'class="value">([^<]+)<', html) == ["+0.5", "+0.25", "-0.125"]
    assert re.findall(r"width:([\d.]+)%", html) == ["100.0", "50.0", "25.0"]
    assert "predicted right" in html
    assert len(re.findall(r"url\(data:image/png;base64,", html)) == 4
    assert "http" not in html.replace("http-equiv", "")


def test_a_wrong_prediction_is_named():
    html = attribution_page.build(cases.tiny_digits(), FACTS, [story(predicted=6)])
    assert re.search(r"predicted as\s+\S*\s*6", html)
    assert "predicted" not in attribution_page.build(cases.tiny_digits(), FACTS, [story(predicted=None)])


def test_a_side_without_examples_says_so():
    html = attribution_page.build(cases.tiny_digits(), FACTS, [story(helpful=(), harmful=())])
    assert "nothing: no value is above zero" in html
    assert "nothing: no value is below zero" in html


def test_images_that_cannot_be_drawn_are_refused():
    split = dataset.Split(np.zeros((3, 4, 4, 2), np.uint8), np.zeros(3, np.int64))
    data = dataset.Dataset("npz:x.npz", "1", split, split, ("a", "b"), 255.0)
    with pytest.raises(errors.InvalidValueError, match=r"only .* can be drawn"):
        attribution_page.build(data, FACTS, [])

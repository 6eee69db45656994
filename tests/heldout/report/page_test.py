"""Tests of heldout.report.page: the HTML as text, and what its embedded JSON holds."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest

from heldout.report import dataset_view, page, selection
from tests.heldout.report import simulated


class Outline(html.parser.HTMLParser):
    """Notes tags, ids and addresses; fails on tags that are not closed."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.addresses.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _page(saved=None, dataset=None, **options):
    saved = saved or simulated.saved()
    scores = selection.ratio_scores(saved)
    return page.build(saved, scores, dataset_view.view(saved, dataset), page.PageOptions(**options)).html


def _payload(text):
    return json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def pictured():
    return _page(dataset=simulated.images())


def test_the_page_is_well_formed_and_fetches_nothing(pictured):
    outline = Outline(pictured)
    assert len(outline.ids) == len(set(outline.ids))
    local = [address for address in outline.addresses if address.startswith("#")]
    assert {address.split("?")[0][1:] for address in local if "?" in address or "-" not in address} <= set(outline.ids)
    assert [address for address in outline.addresses if not address.startswith("#")] == ["data:,"]
    assert set(re.findall(r"url\((?!#)([^:)]*:)", pictured)) == {"data:"}
    assert "@import" not in pictured
    assert "default-src 'none'" in pictured


def test_class_names_cannot_break_out(pictured):
    assert "</script><b>" not in pictured
    assert "&lt;/script&gt;&lt;b&gt;bird" in pictured
    assert _payload(pictured)["classNames"] == list(simulated.CLASS_NAMES)


def test_a_title_is_escaped():
    assert "<h1>A &lt;i&gt; &amp; B</h1>" in _page(title="A <i> & B")


def test_key_numbers(pictured):
    scores = simulated.saved().ratios[0.5]
    for share in (scores.mean_accuracy_in, scores.mean_accuracy_heldout, scores.mean_test_accuracy):
        assert f"<dd>{100 * share:.1f}\u202f%</dd>" in pictured
    assert f"<dd>{scores.memorized.count}</dd>" in pictured
    assert f"of {simulated.table().num_runs} at 2 ratios" in pictured


def test_examples_without_heldout_run_are_counted(pictured):
    assert "Of 60 training examples, 1 has no held-out run" in pictured
    assert _payload(pictured)["tables"]["examples"]["memorization"][simulated.NEVER_HELD_OUT] is None


def test_every_embedded_image_is_there_once(pictured):
    named = _payload(pictured)["images"]
    rules = re.findall(r"\.(i\d+)\{background-image", pictured)
    assert len(rules) == len(set(rules))
    assert set(named.values()) == set(rules)
    bodies = re.findall(r"base64,([^)]*)\)", pictured)
    assert len(bodies) == len(set(bodies)) == len(rules)
    assert f"train-{simulated.MEMORIZED}" in named
    assert f"test-{simulated.DEPENDENT_TEST}" in named
    assert len(re.findall(r'class="image i\d+', pictured)) >= len(rules) - 1
    if {"train-0", "train-1"} <= named.keys():
        assert named["train-0"] == named["train-1"]


def test_without_a_data_set_it_says_what_to_pass():
    text = _page(simulated.saved(labels=False))
    assert "Pass <code>--dataset</code>" in text
    assert "without images and without classes" in text
    assert "background-image" not in text
    payload = _payload(text)
    assert "label" not in payload["tables"]["examples"]
    assert payload["images"] == {}


def test_scores_that_name_their_data_set_give_the_hint():
    saved = simulated.saved()
    text = _page(dataclasses.replace(saved, provenance={**saved.provenance, "dataset": "digits"}))
    assert "the scores name <code>digits</code>" in text


def test_one_ratio_gives_a_statement_and_no_chart():
    saved = simulated.saved(subset_ratios=(0.8,))
    text = _page(saved)
    assert "All runs are at this one ratio" in text
    assert 'aria-label="Consistency against subset ratio"' not in text
    assert f"{100 * np.nanmean(saved.consistency.profile[0]):.1f}\u202f%" in text


def test_several_ratios_give_a_chart(pictured):
    assert 'aria-label="Consistency against subset ratio"' in pictured
    assert "so there is one point" not in pictured


def test_no_heldout_run_at_all():
    saved = simulated.saved(subset_ratios=(0.8,))
    scores, consistency = saved.ratios[0.8], saved.consistency
    nothing = np.full(simulated.NUM_TRAIN, np.nan)
    scores = dataclasses.replace(
        scores,
        memorization=dataclasses.replace(
            scores.memorization, values=nothing, standard_error=nothing, num_heldout=np.zeros(60, np.int64)
        ),
        accuracy_heldout=nothing,
        mean_accuracy_heldout=float("nan"),
    )
    scores = simulated.with_influence(scores, np.full_like(scores.subset_influence, np.nan))
    consistency = dataclasses.replace(consistency, profile=nothing[None], score=nothing)
    text = _page(dataclasses.replace(saved, ratios={0.8: scores}, consistency=consistency))
    Outline(text)
    assert "No example has a held-out run" in text
    assert "60 have no held-out run" in text
    assert "<dd>no data</dd>" in text


def _with_memorization(saved, **fields):
    """The scores at ratio 0.5 alone, with other values or counts."""
    scores = saved.ratios[0.5]
    memorization = dataclasses.replace(scores.memorization, **fields)
    return dataclasses.replace(saved, ratios={0.5: dataclasses.replace(scores, memorization=memorization)})


def test_few_runs_are_said_at_the_top(pictured):
    median = int(np.median(selection.support(simulated.saved().ratios[0.5])))
    banner = re.search(r"<strong>Only 40 runs: a typical example was ([a-z ]+) (\d+) times; single", pictured)
    assert banner[1] in ("held out", "trained on")
    assert int(banner[2]) == median
    assert banner.start() < pictured.index('<section id="distributions">')
    enough = np.full(simulated.NUM_TRAIN, 30)
    saved = _with_memorization(simulated.saved(), num_in=enough, num_heldout=enough)
    flat = np.zeros((simulated.NUM_TRAIN, simulated.NUM_TEST))
    flat = simulated.with_influence(saved.ratios[0.5], flat)
    assert 'class="warning"' not in _page(dataclasses.replace(saved, ratios={0.5: flat}))


def test_ties_at_zero_are_counted_beside_the_heading(pictured):
    values = np.linspace(0.1, 0.9, simulated.NUM_TRAIN)
    assert "tied at exactly" not in _page(_with_memorization(simulated.saved(), values=values))
    values[20:40] = 0.0
    values[5] = -0.0036
    text = _page(_with_memorization(simulated.saved(), values=values))
    assert "20 examples are tied at exactly 0" in text
    assert '<span class="value">−0.004 ' in text


def test_labels_that_were_changed_on_purpose_are_marked():
    clean = simulated.TRAIN_LABEL.copy()
    clean[[simulated.MEMORIZED, 20]] = (clean[[simulated.MEMORIZED, 20]] + 1) % simulated.NUM_CLASSES
    text = _page(dataclasses.replace(simulated.saved(), clean_train_label=clean))
    assert "2 of 60 training labels were changed on purpose" in text
    assert "Of the memorized examples 1 carry one" in text
    assert f"changed, was class {clean[simulated.MEMORIZED]}" in text
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])
    column = payload["tables"]["examples"]["clean_label"]
    assert [index for index, label in enumerate(column) if label is not None] == [simulated.MEMORIZED, 20]
    assert column[20] == clean[20]
    assert "changed on purpose" not in _page(simulated.saved())


def test_strong_harm_is_a_story():
    saved = simulated.saved(subset_ratios=(0.5,))
    values = np.zeros_like(saved.ratios[0.5].subset_influence)
    values[3, 9], values[4, 2] = -0.5, 0.25
    scores = simulated.with_influence(saved.ratios[0.5], values)
    text = _page(dataclasses.replace(saved, ratios={0.5: scores}))
    assert text.index('href="#test-9"') < text.index('href="#test-2"')
    assert "nothing: no value is above zero" in text
    assert re.findall(r'class="arrow" style="width:([\d.]+)%"', text) == ["100.0", "50.0"]


def test_provenance_names_the_data_set_where_images_are_shown(pictured):
    assert "not given" not in pictured
    assert "<dt>images from</dt><dd>simulated-images, version 1</dd>" in pictured
    assert "<dt>dataset</dt><dd>not given</dd>" in _page()


def test_numbers_keep_their_units(pictured):
    assert not re.search(r"\d\s*[ \n]%", re.sub(r"<(svg|style|script).*?</\1>", "", pictured, flags=re.DOTALL))


def test_cut_tables_say_so():
    text = _page(max_examples=10, max_pairs=2)
    assert "The 10 most memorized of 60 training examples" in text
    assert "The 2 strongest are listed" in text
    assert {name: len(next(iter(rows.values()))) for name, rows in _payload(text)["tables"].items()} == {
        "examples": 10,
        "pairs": 2,
    }


def test_stretched_images_are_mentioned(pictured):
    images = simulated.images(scale=255.0)
    assert "Stretched images" not in pictured
    assert "Stretched images" in _page(dataset=dataclasses.replace(images, scale=100.0))


def test_colour_images(pictured):
    Outline(_page(dataset=simulated.images(channels=3)))


def test_the_guide_explains_sign_and_uncertainty(pictured):
    assert "Positive helps, negative harms" in pictured
    assert "high_influence_pairs.parquet" in pictured
    assert "It is exactly 0 where both shares are 0 or 1" in pictured
    certain = int((simulated.saved().ratios[0.5].memorization.standard_error == 0).sum())
    assert f"({certain} training examples here)" in pictured


def test_the_page_is_the_same_every_time(pictured):
    assert _page(dataset=simulated.images()) == pictured


def test_scripts_use_only_columns_that_exist(pictured):
    script = (page.TEMPLATES / "report.js").read_text("utf-8")
    columns = {key for rows in _payload(pictured)["tables"].values() for key in rows}
    # Shown only where labels were changed on purpose.
    assert set(re.findall(r'\{ key: "(\w+)"', script)) == columns | {"clean_label"}

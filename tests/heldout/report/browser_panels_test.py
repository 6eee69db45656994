"""Linked galleries in a real browser: mouse, keys, the back button, and examples that have no panel."""

import os

import numpy as np
import pytest

from heldout.report import dataset_view, page, selection
from tests.heldout.report import devtools, simulated

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        devtools.CHROMIUM is None and not os.environ.get("HELDOUT_REQUIRE_BROWSER"),
        reason="needs chromium: apt-get install -y chromium",
    ),
]

TITLE = "document.getElementById('panel-title').textContent"
OPEN = "document.getElementById('panel').open"


def _write(path, **options):
    saved = simulated.saved()
    view = dataset_view.view(saved, simulated.images())
    options = page.PageOptions(pairs_memorization=0.0, **options)
    path.write_text(page.build(saved, selection.ratio_scores(saved), view, options).html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with devtools.Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one
        assert one.errors == []


def test_a_click_leads_to_whom_an_example_influences_and_on_and_back(browser, page_path):
    browser.open(page_path)
    browser.click(f"#memorized .panel.shown a.image[href='#train-{simulated.MEMORIZED}']")
    browser.wait(OPEN)
    scrolled = browser.value("window.scrollY")
    assert scrolled > 0
    assert browser.value(TITLE) == f"Training example {simulated.MEMORIZED}"
    assert "memorization +1.000" in browser.value("document.getElementById('panel-content').textContent")
    hops = browser.value("Array.from(document.querySelectorAll('#panel .helps .hop')).map((one) => one.hash)")
    matrix = simulated.saved().ratios[0.5].subset_influence
    assert hops[0] == f"#test-{simulated.DEPENDENT_TEST}"
    assert len(hops) == min(5, int((matrix[simulated.MEMORIZED] > 0).sum()))
    assert browser.value("document.querySelector('#panel .helps .value').textContent") == "+1.000 ± 0.000"
    assert browser.value("document.querySelectorAll('#panel .hop .image:not(.absent)').length") == browser.value(
        "document.querySelectorAll('#panel .hop').length"
    )
    browser.click("#panel .helps .hop")
    browser.wait(f"{TITLE} === 'Test example {simulated.DEPENDENT_TEST}'")
    assert browser.value("document.querySelector('#panel .helps .hop').hash") == f"#train-{simulated.MEMORIZED}"
    browser.click("#panel .harms .hop")
    browser.wait(f"{TITLE}.startsWith('Training example') && location.hash !== '#train-{simulated.MEMORIZED}'")
    browser.click("#panel-back")
    browser.wait(f"{TITLE} === 'Test example {simulated.DEPENDENT_TEST}'")
    browser.value("history.back()")
    browser.wait(f"{TITLE} === 'Training example {simulated.MEMORIZED}'")
    browser.value("history.back()")
    browser.wait(f"!{OPEN}")
    assert browser.value("location.hash") == ""
    assert browser.value("window.scrollY") == scrolled


def test_keys_alone_are_enough(browser, page_path):
    browser.open(page_path)
    browser.value("document.querySelector('#influences .subject a.image').focus()")
    start = browser.value("document.activeElement.hash")
    browser.press("Enter")
    browser.wait(OPEN)
    assert browser.value("document.activeElement.id") == "panel-title"
    browser.press("Tab")  # the link to the table
    browser.press("Tab")
    first = browser.value("document.activeElement.hash")
    assert browser.value("document.activeElement.className") == "hop"
    browser.press("Enter")
    browser.wait(f"location.hash === '{first}' && document.activeElement.id === 'panel-title'")
    for _ in range(40):  # round and round, never behind the panel
        browser.press("Tab")
        assert browser.value("document.activeElement === document.body || panel.contains(document.activeElement)")
    browser.press("Escape")
    browser.wait(f"!{OPEN}")
    assert browser.value("location.hash") == ""
    assert browser.value("document.activeElement.hash") == start  # where one was
    browser.value("history.back()")
    browser.wait(OPEN)


def test_an_address_opens_a_panel_and_the_table_leads_there(browser, page_path):
    browser.open(page_path, "#test-3")
    assert browser.value(TITLE) == "Test example 3"
    browser.click("#panel-close")
    browser.wait(f"!{OPEN} && location.hash === ''")
    browser.value("location.hash = '#examples?index=11'")
    browser.wait("document.querySelectorAll('#examples tbody tr').length === 1")
    browser.open(page_path, f"#pairs?test={simulated.DEPENDENT_TEST}")
    browser.click("#pairs tbody td a")
    browser.wait(OPEN)
    assert browser.value(TITLE) == f"Training example {simulated.MEMORIZED}"
    browser.click("#panel .example a")
    browser.wait(f"!{OPEN}")
    assert browser.value("location.hash") == f"#examples?index={simulated.MEMORIZED}"
    assert browser.value("document.querySelectorAll('#examples tbody tr').length") == 1


def test_steps_back_from_a_page_that_began_with_a_panel_stay_on_it(browser, page_path):
    first, second = f"train-{simulated.MEMORIZED}", f"test-{simulated.DEPENDENT_TEST}"
    browser.open(page_path, f"#{first}")
    browser.wait(f"location.hash === '#{first}' && document.getElementById('panel').open")
    browser.click(f"#panel a[href='#{second}']")
    browser.wait(f"location.hash === '#{second}'")
    browser.click("#panel-back")
    browser.wait(f"location.hash === '#{first}' && document.getElementById('panel').open")
    browser.click("#panel-back")
    browser.wait("location.hash === '' && !document.getElementById('panel').open")
    assert browser.value("location.pathname").endswith(page_path.name)


def test_closing_keeps_the_view_of_the_table(browser, page_path):
    browser.open(page_path, "#examples?sort=index&class=1")
    browser.click("#examples tbody tr:nth-child(3) td a")
    browser.wait(OPEN)
    assert browser.value(TITLE) == "Training example 7"
    browser.press("Escape")
    browser.wait(f"!{OPEN}")
    assert browser.value("location.hash") == "#examples?sort=index&class=1"
    assert browser.value("document.querySelector('#examples tbody td').textContent") == "1"


def test_a_step_back_leaves_the_page_where_it_lay(browser, page_path):
    browser.open(page_path, "#examples?sort=index&class=1")
    browser.click("#memorized .panel.shown a.image")
    browser.wait(OPEN)
    scrolled = browser.value("window.scrollY")
    browser.value("history.back()")
    browser.wait(f"!{OPEN}")
    assert browser.value("window.scrollY") == scrolled
    assert browser.value("location.hash") == "#examples?sort=index&class=1"


def test_an_example_without_a_panel_is_found_in_the_table(browser, tmp_path):
    path = _write(tmp_path / "small.html", num_panels=1, num_stories=1)
    browser.open(path, f"#test-{simulated.DEPENDENT_TEST}")
    assert browser.value(TITLE) == f"Test example {simulated.DEPENDENT_TEST}"
    assert browser.value("document.querySelectorAll('#panel .hop:not(.out)').length") == 0
    wanted = browser.value("document.querySelector('#panel .helps .hop').hash")
    browser.click("#panel .helps .hop")
    browser.wait(f"!{OPEN}")
    rows = "Array.from(document.querySelectorAll('#examples tbody tr')).map((one) => one.cells[0].textContent)"
    assert browser.value(rows) == [wanted.removeprefix("#train-")]
    browser.open(path, "#train-999999")
    assert not browser.value(OPEN)
    assert browser.value(rows.replace("cells[0].", "")) == ["No row passes the filters."]


def test_a_panel_fits_a_phone(tmp_path, page_path):
    with devtools.Browser(tmp_path, width=500, height=900) as browser:
        browser.open(page_path, f"#train-{simulated.MEMORIZED}")
        sizes = browser.value("[panel.scrollWidth, panel.clientWidth, panel.getBoundingClientRect().right, innerWidth]")
    assert sizes[0] <= sizes[1]
    assert sizes[2] <= sizes[3]


def test_typing_filters_with_every_key(browser, page_path):
    browser.open(page_path)
    browser.value("document.querySelector('#examples [name=index]').focus()")
    shown = "Array.from(document.querySelectorAll('#examples tbody tr')).map((one) => one.cells[0].textContent)"
    browser.press("1")
    assert browser.value(shown) == ["1"]
    browser.press("1")
    assert browser.value(shown) == ["11"]
    assert browser.value("location.hash").startswith("#examples?")
    np.testing.assert_equal(browser.value("document.querySelector('#examples .pager span').textContent")[:3], "1–1")

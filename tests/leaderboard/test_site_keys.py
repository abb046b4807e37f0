# SPDX-License-Identifier: MIT
"""The page from the keyboard alone, and the published pages, in a headless browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import BROWSER, WHY, Browser
from test_site_browser import made_up

PUBLISHED = Path(__file__).parents[2] / "leaderboards"
LARGEST = [
    f"methods/{one.name}" for one in sorted(PUBLISHED.glob("methods/*.html"), key=lambda one: one.stat().st_size)
][-3:]
"""Pages of methods on which there is most that could go wrong."""
HEAD = "table.results button"
NAMES = "[...document.querySelector('table.results').tBodies[0].rows].map((row) => row.cells[0].dataset.v)"
FOCUSED = "document.activeElement"

pytestmark = pytest.mark.skipif(BROWSER is None, reason=WHY)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(browser, tmp_path) -> Browser:
    (tmp_path / "page.html").write_text(made_up(tmp_path))
    browser.open(tmp_path / "page.html")
    return browser


def test_keys_lead_to_a_head_and_sort_by_it(page):
    best_first = page.run(NAMES)
    page.press("Tab")
    assert page.run(f"{FOCUSED}.textContent") == "Skip to the tables"
    page.tab_to(HEAD)
    assert page.run(f"{FOCUSED}.textContent") == "method"
    assert page.run(f"getComputedStyle({FOCUSED}).outlineStyle") != "none"
    assert page.run(NAMES) == best_first  # to arrive sorts nothing
    page.press("Enter")
    assert page.run(NAMES) == sorted(best_first)
    page.press("Space")
    assert page.run(NAMES) == sorted(best_first, reverse=True)
    page.press("Tab", "Tab", "Tab")  # rank, seeds, @1 or what comes first
    head = page.run(f"{FOCUSED}.closest('th').getAttribute('aria-sort')")
    page.press("Enter")
    assert page.run(f"{FOCUSED}.closest('th').getAttribute('aria-sort')") not in (None, head)


def test_rows_are_filtered_by_what_is_typed_and_ticked(page):
    shown = "document.querySelectorAll('table.results tbody tr:not([hidden])').length"
    article = "document.querySelector('.tools').closest('article')"
    before = page.run(shown)
    page.tab_to("input[type=search]")
    page.press(*"flam")
    assert page.run(f"{article}.querySelector('output').textContent").startswith("1 of")
    assert page.run(shown) < before
    page.press("Tab", "Space")
    assert page.run(f"{FOCUSED}.checked") is False


def test_definitions_open_from_the_keyboard(page):
    page.tab_to(".glossary summary")
    page.press("Enter")
    assert page.run(f"{FOCUSED}.parentElement.open") is True
    terms = page.run(f"[...{FOCUSED}.parentElement.querySelectorAll('dt')].map((one) => one.textContent)")
    heads = page.run(
        f"[...{FOCUSED}.closest('article').querySelectorAll('{HEAD}')]"
        ".map((one) => one.getAttribute('aria-label') ?? one.textContent)"
    )
    assert terms == heads
    assert page.run(f"{FOCUSED}.parentElement.querySelector('dd').getClientRects().length") > 0


@pytest.mark.parametrize("name", ["index.html", *LARGEST])
def test_the_published_pages_say_nothing_and_load_nothing(browser, name):
    browser.open(PUBLISHED / name)
    assert browser.run("document.querySelectorAll('table.results').length") > 0
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.said == []
    assert [address for address in browser.asked if not address.startswith("data:")] == []
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth)")


def test_the_published_page_sorts_from_the_keyboard(browser):
    browser.open(PUBLISHED / "index.html")
    before = browser.run(NAMES)
    browser.tab_to(HEAD)
    browser.press("Enter")
    names = browser.run(NAMES)
    assert sorted(names) == sorted(before)
    assert names != before
    assert browser.said == []


def test_what_a_page_says_and_asks_for_is_noticed(browser, tmp_path):
    """The tests above would be blind if this failed."""
    (tmp_path / "page.html").write_text(
        "<img src='http://localhost:9/x.png'><script>console.log('hello'); nope()</script>"
    )
    browser.open(tmp_path / "page.html")
    assert any("hello" in line for line in browser.said)
    assert any("nope" in line for line in browser.said)
    assert browser.asked == ["http://localhost:9/x.png"]

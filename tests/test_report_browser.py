"""The report's pages in a real browser, headless: what loads, what is reached, what is seen."""

from __future__ import annotations

import base64
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headless import CONTRASTS, READABLE, chromium, media, needs_chromium, press

from dtwin_fast.twin import Twin

pytestmark = needs_chromium

HERE = Path(__file__).parent
REAL = runpy.run_path(str(HERE / "report_real.py"))


@pytest.fixture(scope="module")
def report(tiny_twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an intervention and of scores."""
    out: Path = REAL["reported_results"](tiny_twin, tmp_path_factory.getbasetemp())
    return out / "report"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(params=["index.html", "sub-00002.html"])
def opened(request: pytest.FixtureRequest, browser: Any, report: Path) -> Any:
    """The browser with a page of the report."""
    media(browser)
    browser.get((report / request.param).as_uri())
    return browser


def test_pages_open_without_a_word_in_the_console(opened: Any) -> None:
    assert opened.get_log("browser") == []
    addresses = opened.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert all(address.startswith("data:") for address in addresses)


def test_every_figure_is_drawn(opened: Any) -> None:
    sizes = opened.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])"
    )
    assert len(sizes) > 5
    assert all(complete and natural > 100 and shown > 100 for complete, natural, shown in sizes)


def test_links_lead_to_a_person_and_back(browser: Any, report: Path) -> None:
    index = (report / "index.html").as_uri()
    browser.get(index)
    browser.find_element("link text", "sub-00002").click()
    assert browser.current_url == (report / "sub-00002.html").as_uri()
    assert browser.find_element("css selector", "h1").text.startswith("sub-00002:")
    browser.find_element("partial link text", "Next").click()
    assert browser.current_url == (report / "sub-00003.html").as_uri()
    browser.find_element("link text", "All people").click()
    assert browser.current_url == index


def test_the_keyboard_reaches_everything(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    first = press(opened, Keys.TAB)
    assert first.get_attribute("class") == "skip"
    assert first.rect["x"] >= 0
    assert "solid" in first.value_of_css_property("outline-style")
    assert press(opened, Keys.ENTER).get_attribute("id") == "content"
    # From there to every table, link and fold of the content, in their order.
    inside = opened.find_elements(
        "css selector", "main a, main summary, main .scroll:not(details *)"
    )
    for wanted in inside[:8]:
        assert press(opened, Keys.TAB) == wanted


def test_folds_open_by_key(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get((report / "index.html").as_uri())
    fold = browser.find_element("css selector", "details")
    table = fold.find_element("css selector", "table")
    assert not table.is_displayed()
    browser.execute_script("arguments[0].focus()", fold.find_element("css selector", "summary"))
    press(browser, Keys.ENTER)
    assert table.is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(opened: Any, scheme: str) -> None:
    media(opened, scheme=scheme)
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(part) for part in ground[4:-1].split(","))
    assert max(red, green, blue) < 50 if scheme == "dark" else min(red, green, blue) > 200
    for what in ("h1", "p", "a", "td", "th", "caption", "figcaption", ".notice", "footer", "li"):
        contrasts = opened.execute_script(CONTRASTS, what)
        assert contrasts, what
        assert min(contrasts) > READABLE, what
    # Figures are drawn for light ground.
    cards = opened.execute_script(
        "return [...document.querySelectorAll('figure')]"
        ".map(figure => getComputedStyle(figure).backgroundColor)"
    )
    assert all(min(int(part) for part in card[4:-1].split(",")) > 200 for card in cards)


def test_pages_print(opened: Any) -> None:
    media(opened, "print", "dark")
    shown = opened.execute_script(
        "return ['nav', '.skip', 'main', '.notice']"
        ".map(name => getComputedStyle(document.querySelector(name)).display !== 'none')"
    )
    assert shown == [False, False, True, True]
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    fit = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", fit)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 700  # A4 between its margins: nothing is cut off
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") >= 2


@pytest.mark.parametrize("width", [360, 800])
def test_narrow_screens_scroll_down_only(opened: Any, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = opened.execute_script("return document.documentElement.scrollWidth")
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width

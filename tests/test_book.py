"""The built book in a real browser: Debian's chromium, over a port of this machine.

What a browser shows is the reference here: it typesets, requests, draws and searches by itself.
``make book`` builds the site; without it, or without chromium, these tests are skipped.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

SITE = Path(os.environ.get("ORTHOCOND_BOOK", Path(__file__).parents[1] / "book/_build/html"))
PAGES = sorted(p.name for p in SITE.glob("*.html"))
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
]
PHONE = {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
PAGE_BYTES, HTML_BYTES = 3_000_000, 1_500_000
"""Most bytes of a page's HTML, data and pictures, and of its HTML alone."""

pytestmark = [
    pytest.mark.skipif(not PAGES, reason=f"no book in {SITE}: make book"),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are missing"),
]

TYPESET = """
const done = arguments[arguments.length - 1];
const ready = window.MathJax ? MathJax.startup.promise : Promise.resolve();
ready.then(() => document.fonts.ready).then(() => done({
  left: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container'))
    .map(e => e.textContent),
  wrong: [...document.querySelectorAll('mjx-merror')].map(e => e.textContent),
  equations: document.querySelectorAll('mjx-container').length,
}));
"""
FIGURES = """
const done = arguments[arguments.length - 1];
const facts = async image => {
  await image.decode().catch(() => null);
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [200, 200];
  const context = canvas.getContext('2d');
  let colours = 0;
  if (image.naturalWidth) {
    context.drawImage(image, 0, 0, 200, 200);
    colours = new Set(new Uint32Array(context.getImageData(0, 0, 200, 200).data.buffer)).size;
  }
  const caption = image.closest('figure').querySelector('figcaption');
  return {source: image.src, alt: image.alt, width: image.offsetWidth, colours,
    caption: caption.offsetHeight ? caption.textContent : ''};
};
Promise.all([...document.querySelectorAll('figure.kit img')].map(facts)).then(done);
"""
THEME = "document.documentElement.dataset.theme = arguments[0];"
OVERFLOW = """
const width = arguments[0];
const scrolls = e => e.tagName !== 'ARTICLE' && (
  ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
const past = e => e.getBoundingClientRect().right > width + 1 && !scrolls(e)
  && !e.closest('mjx-assistive-mml');  // for screen readers, not drawn
return [...document.querySelectorAll('article *')].filter(past)
  .map(e => `${e.tagName} ${e.textContent.slice(0, 80)}`);
"""
WHOLE_WIDTH = "return document.documentElement.scrollWidth;"
LINKS = "return [...document.querySelectorAll('a[href], area[href]')].map(a => a.href);"
TARGETS = "return [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name);"


@dataclass(frozen=True)
class Visit:
    """What the browser saw of one page."""

    title: str
    console: list[str]
    requests: list[str]
    failed: list[str]
    maths: dict[str, Any]
    figures: dict[str, list[dict[str, Any]]]  # theme -> images
    overflow: list[str]  # what sticks out of a phone's screen
    phone_width: int  # of the whole page there: a wider page scrolls sideways
    links: list[str]
    targets: list[str]


class Quiet(SimpleHTTPRequestHandler):
    """Serves the site, without a line a request."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def _network(browser: Any, address: str) -> tuple[list[str], list[str]]:
    """The addresses that a page asked for since the last call, and those that failed."""
    asked: dict[str, str] = {}
    failed = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        event, told = message["method"], message["params"]
        if event == "Network.requestWillBeSent" and told["documentURL"] == address:
            asked[told["requestId"]] = told["request"]["url"]
        elif told.get("requestId") not in asked:
            continue  # of the browser's own first tab
        elif event == "Network.responseReceived" and told["response"]["status"] >= 400:
            failed.append(f"{told['response']['status']} {told['response']['url']}")
        elif event == "Network.loadingFailed":
            failed.append(f"{told['errorText']} {asked[told['requestId']]}")
    return list(asked.values()), failed


@pytest.fixture(scope="session")
def visit(browser: Any, base: str) -> Callable[[str], Visit]:
    @functools.cache
    def visit(page: str) -> Visit:
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(base + page)
        maths = browser.execute_async_script(TYPESET)
        figures = {}
        for theme in ("light", "dark"):
            browser.execute_script(THEME, theme)
            figures[theme] = browser.execute_async_script(FIGURES)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        overflow = browser.execute_script(OVERFLOW, PHONE["width"])
        phone_width = browser.execute_script(WHOLE_WIDTH)
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        console = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
        links, targets = browser.execute_script(LINKS), browser.execute_script(TARGETS)
        network = _network(browser, base + page)
        phone = overflow, phone_width
        return Visit(browser.title, console, *network, maths, figures, *phone, links, targets)

    return visit


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_without_an_error(page: str, visit: Callable[[str], Visit]) -> None:
    seen = visit(page)
    assert seen.title
    assert seen.console == []
    assert seen.failed == []


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_nothing_from_other_hosts(
    page: str, visit: Callable[[str], Visit], base: str
) -> None:
    seen = visit(page)
    assert base + page in seen.requests
    assert [url for url in seen.requests if not url.startswith((base, "data:", "blob:"))] == []


@pytest.mark.parametrize("page", PAGES)
def test_equations_are_typeset(page: str, visit: Callable[[str], Visit]) -> None:
    maths = visit(page).maths
    assert maths["left"] == maths["wrong"] == []
    assert maths["equations"] > 0 or 'class="math ' not in (SITE / page).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_figures_have_pixels_in_both_themes(page: str, visit: Callable[[str], Visit]) -> None:
    for theme, images in visit(page).figures.items():
        assert [i["source"] for i in images if i["colours"] < 3] == []
        assert [i["source"] for i in images if len(i["alt"]) < 20] == []
        shown = [i["source"] for i in images if i["width"] > 0]
        assert len(shown) == len(images) / 2
        assert [i["source"] for i in images if "SVG PDF CSV" not in i["caption"]] == []
        assert all(("-dark.svg" in source) == (theme == "dark") for source in shown)


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(page: str, visit: Callable[[str], Visit]) -> None:
    """Tables, formulas and code that are wider than a phone scroll in a box of their own."""
    seen = visit(page)
    assert seen.overflow == []
    assert seen.phone_width <= PHONE["width"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_small(page: str, visit: Callable[[str], Visit], base: str) -> None:
    """Scripts, styles and fonts in the folder that all pages share are not counted."""
    own = {url.partition("?")[0] for url in visit(page).requests if url.startswith(base)}
    files = {unquote(url.removeprefix(base)) for url in own if "/_static/" not in url}
    sizes = {file: (SITE / file).stat().st_size for file in files}
    assert sizes[page] < HTML_BYTES
    assert sum(sizes.values()) < PAGE_BYTES, sizes


@pytest.mark.parametrize("page", PAGES)
def test_links_have_existing_targets(page: str, visit: Callable[[str], Visit], base: str) -> None:
    lost = []
    for link in visit(page).links:
        address, target = urldefrag(link)
        if not address.startswith(base):
            continue
        file = unquote(address.removeprefix(base).partition("?")[0]) or "index.html"
        known = visit(file).targets if target and file in PAGES else [unquote(target)]
        if not (SITE / file).is_file() or unquote(target) not in known:
            lost.append(link)
    assert lost == []


def test_every_chapter_is_reached_from_the_first_page(
    visit: Callable[[str], Visit], base: str
) -> None:
    reached = {urldefrag(link)[0].removeprefix(base) for link in visit("index.html").links}
    built = {"genindex.html", "search.html", "py-modindex.html", "index.html"}
    assert set(PAGES) - built <= reached


def test_search_finds_orthogonal(browser: Any, base: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(base + "search.html?q=orthogonal")
    found = WebDriverWait(browser, 30).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results ul.search li a")
    )
    pages = {urldefrag(link.get_attribute("href"))[0] for link in found}
    assert any("nearest_orthogonal_gradient.html" in page for page in pages)


@pytest.mark.parametrize("word", ["orthogonal", "covariance", "seeds"])
def test_search_shows_neither_latex_nor_hashes(browser: Any, base: str, word: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{base}search.html?q={word}")
    shown = WebDriverWait(browser, 30).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results p.context")
    )
    texts = [line.text for line in shown]
    assert any(word in text.lower() for text in texts)
    assert [t for t in texts if re.search(r"\\[a-zA-Z(\[]|\b[0-9a-f]{40}\b", t)] == []


def test_search_index_has_no_latex_and_no_hashes() -> None:
    index = (SITE / "searchindex.js").read_text()
    assert not {"mathbf", "boldsymbol", "mathrm"} & set(re.findall(r"[a-z]+", index))
    assert re.findall(r"\b[0-9a-f]{40}\b", index) == []

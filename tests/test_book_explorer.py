"""The explorer of the built book in a real browser: mouse, keyboard, phone, both themes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

import pytest
import test_book
from test_book import SITE

base, browser = test_book.base, test_book.browser  # fixtures
pytestmark = [
    *test_book.pytestmark,
    pytest.mark.skipif(not (SITE / "files/explorer.js").exists(), reason="a book without runs"),
]

MB = 1e6
PHONE = {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
STATE = """
const shown = selector => [...document.querySelectorAll(selector)].filter(e => e.offsetParent);
return {
  lines: [...document.querySelectorAll('.explorer .mark-line path')].map(e => e.getAttribute('d')),
  title: document.querySelector('.explorer .chart .mark-text.role-title-text').textContent,
  methods: shown('[name=method]').filter(e => e.checked).map(e => e.value),
  offered: shown('[name=method]').map(e => e.value),
  rows: shown('.explorer tbody tr').map(r => [...r.cells].map(c => c.textContent)),
  counted: document.querySelector('.explorer output').textContent,
  empty: !!shown('.explorer .empty').length,
};
"""
POINT = """
const point = document.querySelector('.explorer .mark-line path');
const at = point.getPointAtLength(point.getTotalLength()).matrixTransform(point.getScreenCTM());
return [Math.round(at.x), Math.round(at.y)];
"""
COLOURS = """
const styles = ['select', 'thead button', 'label', '.chart text', '[type=search]'].map(
  selector => getComputedStyle(document.querySelector(`.explorer ${selector}`)));
const page = getComputedStyle(document.body).backgroundColor;
const box = getComputedStyle(document.querySelector('.text_html:has(.explorer)')).backgroundColor;
return {ink: styles.map((s, i) => i == 3 ? s.fill : s.color), page, box,
  lines: [...document.querySelectorAll('.mark-line path')].map(e => getComputedStyle(e).stroke)};
"""
SETTLED = """
const done = arguments[arguments.length - 1];
const settled = () => document.querySelector('.explorer').ariaBusy === 'false'
  ? requestAnimationFrame(done) : setTimeout(settled, 20);
setTimeout(settled);
"""


class Explorer:
    """The page, as a reader uses it."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", f".explorer {selector}")

    def box(self, value: str) -> Any:
        return self.find(f'input[value="{value}"]')

    def choose(self, field: str, text: str) -> dict[str, Any]:
        from selenium.webdriver.support.ui import Select

        select = Select(self.find(f"[name={field}]"))
        chosen = next(option for option in select.options if option.text.startswith(text))
        select.select_by_visible_text(chosen.text)
        return self.state()

    def state(self) -> dict[str, Any]:
        self.browser.execute_async_script(SETTLED)
        return self.browser.execute_script(STATE)

    def press(self, element: Any, key: str) -> dict[str, Any]:
        element.send_keys(key)
        return self.state()


@pytest.fixture
def explorer(browser: Any, base: str) -> Iterator[Explorer]:
    browser.get(base + "explorer.html")
    page = Explorer(browser)
    page.state()
    yield page
    browser.execute_script(test_book.THEME, "light")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def recorded() -> list[dict[str, str]]:
    """Return the rows of the table that can be downloaded."""
    with (SITE / "files/explorer.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_has_its_methods_as_lines_and_its_runs_as_rows(explorer: Explorer) -> None:
    for study in dict.fromkeys(row["study"] for row in recorded()):
        state = explorer.choose("study", study)
        own = [row for row in recorded() if row["study"] == study]
        assert set(state["offered"]) == {row["method"] for row in own}
        chosen = [row for row in own if row["method"] in state["methods"]]
        assert len(state["lines"]) == len(state["methods"]) > 0
        assert [row[:2] for row in state["rows"]] == [[r["method"], r["seed"]] for r in chosen]
        assert state["counted"] == f"{len(chosen)} runs"


def test_another_quantity_or_a_line_per_seed_changes_the_curves(explorer: Explorer) -> None:
    before = explorer.state()
    after = explorer.choose("quantity", "learning rate")
    assert [before["title"], after["title"]] == ["training loss", "learning rate"]
    assert before["lines"] != after["lines"] and not after["empty"]
    seeds = explorer.choose("lines", "each seed")
    assert len(seeds["lines"]) == len(seeds["rows"]) > len(after["lines"])
    assert explorer.choose("quantity", "training accuracy, evaluation mode")["empty"] != bool(
        explorer.state()["lines"]
    )


def test_the_legend_toggles_lines_by_mouse_and_by_keyboard(explorer: Explorer) -> None:
    from selenium.webdriver.common.keys import Keys

    before = explorer.state()
    method = before["methods"][-1]
    explorer.box(method).click()
    without = explorer.state()
    assert without["methods"] == before["methods"][:-1]
    assert len(without["lines"]) == len(before["lines"]) - 1
    assert not any(row[0] == method for row in without["rows"])
    again = explorer.press(explorer.box(method), Keys.SPACE)
    assert again["lines"] == before["lines"] and again["rows"] == before["rows"]
    nothing = explorer.press(explorer.find("[data-none]"), Keys.ENTER)
    assert nothing["lines"] == nothing["rows"] == [] and nothing["empty"]
    everything = explorer.press(explorer.find("[data-all]"), Keys.ENTER)
    assert everything["methods"] == everything["offered"]


def test_a_seed_can_be_left_out(explorer: Explorer) -> None:
    before = explorer.state()
    explorer.find('[name=seed][value="0"]').click()
    after = explorer.state()
    assert after["rows"] == [row for row in before["rows"] if row[1] != "0"]
    assert after["lines"] != before["lines"]


def test_pointing_at_a_line_shows_its_values(explorer: Explorer) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    explorer.browser.execute_script("arguments[0].scrollIntoView()", explorer.find(".chart"))
    x, y = explorer.browser.execute_script(POINT)
    pointer = ActionChains(explorer.browser)
    pointer.w3c_actions.pointer_action.move_to_location(x - 3, y - 3)
    pointer.w3c_actions.pointer_action.move_to_location(x, y)
    pointer.perform()
    explorer.state()
    tooltip = explorer.browser.find_element("id", "vg-tooltip-element")
    assert tooltip.is_displayed()
    assert re.search(r"method.*SVD.*step.*[\d,]+.*value.*\d.*seeds.*\d", tooltip.text, re.DOTALL)


@pytest.mark.parametrize("key", [None, "\n"], ids=["mouse", "keyboard"])
def test_a_heading_sorts_by_its_column_and_missing_values_come_last(
    explorer: Explorer, key: str | None
) -> None:
    headings = explorer.browser.find_elements("css selector", ".explorer thead th")
    for place in (0, 1, 5):  # text, whole numbers, numbers
        button = headings[place].find_element("tag name", "button")
        for direction in ("ascending", "descending"):
            button.send_keys(key) if key else button.click()
            assert headings[place].get_attribute("aria-sort") == direction
            column = [row[place] for row in explorer.state()["rows"]]
            known = [cell for cell in column if cell != "–"]
            expected = sorted(known, key=str.lower if place == 0 else float)
            assert column[: len(known)] == (
                expected if direction == "ascending" else expected[::-1]
            )
            assert set(column[len(known) :]) <= {"–"}


def test_words_leave_only_the_rows_that_contain_all_of_them(explorer: Explorer) -> None:
    before = explorer.state()
    after = explorer.press(explorer.find("[name=words]"), "NOG olr")
    assert after["rows"] == [r for r in before["rows"] if "NOG" in r[0] and "OLR" in r[0]]
    assert after["lines"] == before["lines"]
    assert explorer.press(explorer.find("[name=words]"), " none of these")["rows"] == []


def test_every_control_is_reached_by_the_tab_key(explorer: Explorer) -> None:
    from selenium.webdriver.common.keys import Keys

    script = "return document.activeElement.name || document.activeElement.tagName"
    explorer.find("[name=study]").send_keys("")
    reached = []
    for _ in range(80):
        explorer.browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(explorer.browser.execute_script(script))
        if reached[-1] == "words":
            break
    assert list(dict.fromkeys(reached)) == [
        *("quantity", "lines", "method", "BUTTON", "seed", "words"),
    ]


def test_the_page_fits_a_phone_and_its_chart_too(explorer: Explorer, base: str) -> None:
    explorer.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    explorer.browser.get(base + "explorer.html")
    state = explorer.state()
    assert state["lines"]
    assert explorer.browser.execute_script(test_book.OVERFLOW, PHONE["width"]) == []
    for part in (".chart svg", "[name=study]", "[name=words]", "fieldset"):
        place = explorer.find(part).rect
        assert place["x"] >= 0 and place["x"] + place["width"] <= PHONE["width"], part


def test_text_and_lines_have_the_colours_of_the_theme(explorer: Explorer) -> None:
    seen = {}
    for theme in ("light", "dark"):
        explorer.browser.execute_script(test_book.THEME, theme)
        explorer.state()
        seen[theme] = found = explorer.browser.execute_script(COLOURS)
        assert found["box"] in ("rgba(0, 0, 0, 0)", found["page"])
        for ink in (*found["ink"], *found["lines"]):
            assert abs(_brightness(ink) - _brightness(found["page"])) > 60, (theme, ink)
    assert seen["light"]["lines"] != seen["dark"]["lines"]


def _brightness(colour: str) -> float:
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_scripts_data_and_pictures_of_the_page_are_small_and_only_this_page_loads_them() -> None:
    page = (SITE / "explorer.html").read_text()
    files = {SITE / name for name in re.findall(r'(?:src|href)="((?:files/)[^"]+)"', page)}
    assert (SITE / "_static/vega.js").stat().st_size < 1.5 * MB
    assert len(page.encode()) < 1.5 * MB
    assert len(page.encode()) + sum(file.stat().st_size for file in files) < 3 * MB
    assert [p for p in test_book.PAGES if "vega.js" in (SITE / p).read_text()] == ["explorer.html"]

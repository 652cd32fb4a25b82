"""A first visit, and what a visitor does next: compare, look closer, draw a grid, take a link and files away; as it looks."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import CHROMIUM, move, opened, shown, upload
from conftest import PORTRAIT
from peft import PeftConfig
from playwright.sync_api import Browser, Page

from lora_lab.links import link
from lora_lab.merging import MergeRecipe

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
TABS = ("Merge", "Grid", "Interference", "With photos", "New task", "Own adapter", "Take away")
OWN = ".ll-part, .ll-card, .ll-grid, .ll-about, .ll-here, .ll-times, .ll-legend, .ll-note, .ll-notice, #pairs, #sets"
SERIOUS = ("serious", "critical")
WAITED = """([name, weight]) => JSON.parse(document.querySelector('.ll-json').textContent)
    .recipe.adapters.some(a => a.name === name && a.weight === weight)"""


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with opened(address) as page:
        yield page


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def another(page: Page, url: str, width: int) -> Page:
    """A page in a fresh browser, with no error in its console so far."""
    browser = page.context.browser
    assert isinstance(browser, Browser)
    fresh = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    fresh.set_default_timeout(60_000)
    fresh.goto(url)
    fresh.wait_for_selector(".ll-part")
    return fresh


def test_a_first_visit_shows_a_result_and_solo_pin_undo_and_the_map_work(page: Page):
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.wait_for_selector(".ll-part")
    first = shown(page)
    assert len(first["faces"]) == 1
    assert first["recipe"]["method"] == "saved:six"
    row = page.locator("[data-task=emotion]")
    assert [row.locator(f".ll-{column} b").count() for column in ("base", "alone", "merged")] == [1, 1, 1]

    page.click("#pin")
    page.wait_for_selector("[data-task=emotion] .ll-pinned")
    page.click("#solo-emotion")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.length === 1")
    assert page.locator("[data-task=emotion] .ll-pinned b").count() == 1
    page.click("#undo")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.length === 6")
    assert shown(page)["recipe"] == first["recipe"]

    drawn = page.get_attribute("#drawn img", "src")
    page.click("#view input")
    page.get_by_role("option", name="Patches changed, faces").click()
    page.wait_for_function("(src) => document.querySelector('#drawn img').src !== src", arg=drawn)
    assert errors == []


def test_a_slider_moves_by_keyboard(page: Page):
    page.wait_for_selector(".ll-part")
    page.locator("#weight-galaxy input[type=range]").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(WAITED, arg=["galaxy", 0.98])


def test_a_cell_of_the_grid_sets_both_sliders(page: Page):
    upload(page, PORTRAIT)
    tab(page, "Grid")
    page.click("#grid-draw")
    cell = page.locator("[data-grid=landmarks] td[data-weights='age_class=0.25;landmarks=0.75']")
    cell.wait_for()
    assert page.locator("[data-grid]").count() == 6
    cell.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(WAITED, arg=["landmarks", 0.75])
    weights = {a["name"]: a["weight"] for a in shown(page)["recipe"]["adapters"]}
    assert (weights["age_class"], weights["landmarks"], weights["galaxy"]) == (0.25, 0.75, 1.0)


def test_a_link_brings_the_merge_back_and_a_zip_goes_into_peft(page: Page, tmp_path: Path):
    page.wait_for_selector(".ll-part")
    moved = move(page, "landmarks", 0.4)["recipe"]
    tab(page, "Take away")
    page.wait_for_function("() => document.querySelector('#link textarea, #link input').value.includes('recipe=')")
    address = page.input_value("#link textarea, #link input")
    page.fill("#note textarea, #note input", "less of the points")
    page.click("#note-keep")
    page.wait_for_function("() => document.querySelector('#notes input').value === 'less of the points'")
    page.click("#export")
    with page.expect_download() as download:
        page.locator("#export-file a").first.click()
    download.value.save_as(tmp_path / "merge.zip")
    with zipfile.ZipFile(tmp_path / "merge.zip") as archive:
        archive.extractall(tmp_path / "out")
    (config,) = (tmp_path / "out").rglob("adapter_config.json")
    assert PeftConfig.from_pretrained(str(config.parent)).peft_type == "LORA"

    elsewhere = another(page, address, 1360)
    elsewhere.wait_for_function(WAITED, arg=["landmarks", 0.4])
    assert shown(elsewhere)["recipe"] == moved


def test_no_serious_fault_of_access_in_our_own_markup_by_day_and_night_and_on_a_phone(page: Page, address: str):
    ties = MergeRecipe.parse("emotion=1,landmarks=0.5", "dinov2-small").model_copy(update={"method": "ties"})
    pages = {"day": page, "phone by night": another(page, link(f"{address}/?__theme=dark", ties), 390)}
    page.wait_for_selector(".ll-part")
    found = []
    for name, one in pages.items():
        for title in TABS if name == "day" else TABS[:1]:
            tab(one, title)
            one.wait_for_timeout(500)
            result = Axe().run(one, context=OWN).response
            assert result["passes"], "the scan has looked at something"
            found += [(name, title, v["id"], v["nodes"][0]["html"]) for v in result["violations"] if v["impact"] in SERIOUS]
    assert found == []
    phone = pages["phone by night"]
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.evaluate("document.body.classList.contains('dark')")

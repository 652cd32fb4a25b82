"""The tab *Own adapter*: its buttons are wired, and what it adds joins the page that is open."""

import gc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from browser import CHROMIUM, move, opened, served
from playwright.sync_api import Page

from lora_lab.backbones.dinov2_small import weights_path
from lora_lab.cards import adapter_folder
from lora_lab.lab import Lab
from lora_lab.ui import own_panel
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.mixer import Mixer


# Gradio leaves an event loop behind in every page that is not launched; it is collected here, not in the next test.
@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
def test_both_buttons_of_the_tab_do_something(tiny_lab: Lab):
    with gr.Blocks(analytics_enabled=False) as page:
        mixer = Mixer(tiny_lab, Expectations(tiny_lab))
        with gr.Tabs() as tabs, gr.Tab(own_panel.TITLE) as tab:
            own_panel.build(mixer, tabs, tab)
    # What follows a load, such as the merge of a link, must not come again when the rank of an adapter that joined is changed.
    spare = mixer.slots[-1].card
    assert {event for fn in page.fns.values() if spare in fn.outputs for _, event in fn.targets} == {"load"}
    ids = {block.elem_id: number for number, block in page.blocks.items() if getattr(block, "elem_id", None)}
    clicked = {number for fn in page.fns.values() for number, event in fn.targets if event == "click"}
    assert {ids["own-add"], ids["own-cancel"]} <= clicked
    (run,) = (fn for fn in page.fns.values() if (ids["own-add"], "click") in fn.targets)
    assert [block.elem_id for block in run.inputs] == ["own-zip", "own-name", "own-images", "own-framing"]
    assert [block.elem_id for block in run.outputs] == ["own-report"]


@pytest.fixture
def own_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page of a person who has brought nothing yet."""
    (tmp_path / "backbones").symlink_to(weights_path().parent)
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path))
    with served() as url, opened(url) as page:
        yield page


def packed(folder: Path, path: Path, leave_out: str = "") -> Path:
    """An adapter's folder as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            if file.name != leave_out:
                archive.write(file, file.name)
    return path


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_an_adapter_that_joins_has_a_slider_at_once_and_one_that_is_refused_says_why(own_page: Page, tmp_path: Path):
    page, folder = own_page, adapter_folder("dinov2-small", "emotion", "r16")
    page.get_by_role("tab", name="Own adapter", exact=True).click()
    page.fill("#own-name textarea, #own-name input", "mood")
    page.set_input_files("#own-zip input[type=file]", str(packed(folder, tmp_path / "headless.zip", "head.safetensors")))
    page.click("#own-add")
    page.get_by_text("Not added.").wait_for()
    assert "has no head" in (page.text_content("#own-report") or "")
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("#own-zip input[type=file]", str(packed(folder, tmp_path / "mood.zip")))
    page.click("#own-add")
    page.get_by_text("It has a slider").wait_for()
    assert page.locator("#weight-own-0").is_hidden()
    page.get_by_role("tab", name="Merge", exact=True).click()
    page.click("#solo-own-0")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.length === 1")
    answer = move(page, "own-0", 1.0, "mood")
    assert [a["name"] for a in answer["recipe"]["adapters"]] == ["mood"]
    assert (
        page.locator("[data-task=mood] .ll-alone b").text_content()
        == page.locator("[data-task=mood] .ll-merged b").text_content()
    )
    page.get_by_role("tab", name="Grid", exact=True).click()
    page.click("#grid-x input")
    page.get_by_role("option").nth(6).wait_for()

    # Whoever reloads the page has it still, and nobody else has.
    page.reload()
    page.wait_for_selector(".ll-part")
    page.wait_for_selector("#weight-own-0 input[type=number]")
    assert page.locator("#weight-own-0").is_visible()
    assert page.context.browser
    other = page.context.browser.new_context().new_page()
    other.goto(page.url)
    other.wait_for_selector(".ll-part", timeout=60_000)
    other.wait_for_timeout(2_000)
    assert other.locator("#weight-own-0").is_hidden()
    other.get_by_role("tab", name="Grid", exact=True).click()
    other.click("#grid-x input")
    other.get_by_role("option").nth(5).wait_for()
    assert other.get_by_role("option").count() == 6

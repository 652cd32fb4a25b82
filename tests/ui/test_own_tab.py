"""The tab *Own adapter* is laid out, and its buttons are wired."""

import gc
from collections.abc import Iterator

import gradio as gr
import pytest

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
    ids = {block.elem_id: number for number, block in page.blocks.items() if getattr(block, "elem_id", None)}
    clicked = {number for fn in page.fns.values() for number, event in fn.targets if event == "click"}
    assert {ids["own-add"], ids["own-cancel"]} <= clicked
    (run,) = (fn for fn in page.fns.values() if (ids["own-add"], "click") in fn.targets)
    assert [block.elem_id for block in run.inputs] == ["own-zip", "own-name", "own-images", "own-framing"]
    assert [block.elem_id for block in run.outputs] == ["own-report"]

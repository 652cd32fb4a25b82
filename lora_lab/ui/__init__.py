"""The page: its tabs, in order. Only this folder knows gradio."""

import signal
from importlib import import_module
from importlib.util import find_spec

import gradio as gr
from starlette.middleware import Middleware

from lora_lab.bundled import bundled
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.memory import keep_low
from lora_lab.ui import api, compose_panel, grid_panel, images_panel, interference_panel, merge_panel, own_panel, takeaway_panel
from lora_lab.ui.address import free_port, reach_oneself
from lora_lab.ui.boundary import HANDLERS, Page
from lora_lab.ui.common import MERGE_TAB
from lora_lab.ui.scripts import KEYS
from lora_lab.ui.theme import theme
from lora_lab.ui.uploads import own_folder, swept
from lora_lab.ui.visitors import Known, VisitorLab, is_allowed, is_local
from lora_lab.ui.words import _

ASSETS = bundled("assets")
PANELS = (grid_panel, interference_panel, images_panel, compose_panel, own_panel, takeaway_panel)
HOUR = 3600

INTRO = _("""
# LoRA Lab
Six adapters, one Vision Transformer. Each adapter is a small change to the same frozen encoder, trained for one task; the
sliders add them up, and every head reads the sum.
""")

NOTICE = _("""
Age and mood read from a face are **guesses**, and often wrong; never use them to judge a person. Photos stay on the machine
that serves this page, and are deleted there within two hours. Code: MIT. Backbone: DINOv2 ViT-S/14, Apache-2.0. Adapters:
non-commercial research, from the terms of their data.
""")


def build(lab: Lab, allowed: bool = False, local: bool = True) -> gr.Blocks:
    """The page of a lab; visitors may keep things of their own where that is `allowed`, or only this machine reaches it."""
    lab = VisitorLab(lab, allowed, local)
    panels = PANELS if allowed or local else [one for one in PANELS if one is not own_panel]
    with Page(title="LoRA Lab", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.Markdown(INTRO)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(merge_panel.TITLE, id=MERGE_TAB) as first:
                mixer = merge_panel.build(lab, ASSETS / "examples", first)
            mixer.changes = allowed or local
            for panel in panels:
                with gr.Tab(panel.TITLE, id=panel.__name__) as tab:
                    panel.build(mixer, tabs, tab)
        gr.Markdown(NOTICE, elem_classes="ll-notice")
        api.build(lab)
        page.load(None, js=KEYS)
    return page


def lent_gpu(page: gr.Blocks) -> gr.Blocks:
    """The page with every handler asking for a GPU while it runs, where the package `spaces` is installed, as on ZeroGPU.

    Elsewhere, and on a Space with hardware of its own, that changes nothing.
    """
    if find_spec("spaces") is not None:
        lent = import_module("spaces").GPU
        for handler in page.fns.values():
            if handler.fn is not None:
                handler.fn = lent(handler.fn)
    return page


def launch(lab: Lab, host: str = "127.0.0.1", port: int = 7860, mcp: bool = False, allow_changes: bool = False) -> None:
    """Serve the page of a lab until it is stopped; with `mcp`, its endpoints are tools for language models as well.

    Visitors add adapters and keep merges, each for themselves, where only this machine reaches the page; with `allow_changes`
    or the environment variable LORA_LAB_ALLOW_CHANGES elsewhere too.
    """
    if mcp and find_spec("mcp") is None:
        raise LoraLabError(
            _("serving tools needs the package mcp, which is not here: install lora-lab[mcp], or leave out --mcp")
        )
    # What stops a service is the same to it as Ctrl-C: it cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_low()
    with own_folder() as folder:
        page = lent_gpu(build(lab, allow_changes or is_allowed(), is_local(host)))
        port = free_port(host, port)
        reach_oneself()
        page.launch(
            server_name=host,
            server_port=port,
            css_paths=ASSETS / "style.css",
            theme=theme(),
            footer_links=["api"],
            ssr_mode=False,
            max_file_size="50mb",
            mcp_server=mcp,
            app_kwargs={
                "lifespan": swept(page, folder, HOUR),
                "exception_handlers": dict(HANDLERS),
                "middleware": [Middleware(Known)],
            },
        )

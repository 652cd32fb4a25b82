"""The tab *Own adapter*: a zip with an adapter in peft's format, which joins those that are there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.cards import AdapterCard
from lora_lab.composition.zipped import MOST_BYTES, MOST_IMAGES
from lora_lab.data import listening
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.own_adapters import Offer, add, forget
from lora_lab.owners import DAYS, MOST, room_for
from lora_lab.tasks.base import Framing
from lora_lab.ui.boundary import literal, with_notes
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import STOPPED, Running, StoppedError
from lora_lab.ui.uploads import sent
from lora_lab.ui.visitors import changing, own_of
from lora_lab.ui.words import _

TITLE = _("Own adapter")
LOOKED_AT = [(_("the middle of the picture"), "square"), (_("the face"), "face")]

EXPLAINED = _("""
Bring a LoRA adapter of **your own** for this encoder, as peft's `save_pretrained` wrote it: a zip with `adapter_config.json`
and `adapter_model.safetensors`. It needs a head to answer with. If the zip holds `head.safetensors` and `card.json` of LoRA
Lab, these are taken; otherwise send a second zip with a folder of images for each class (at most {images} images and
{megabytes} MB), and a head is trained in seconds. Of each class some are held out to score by. The images are not
kept; the adapter is, on the machine that serves this page, for **this browser alone**: at most {most}, until you remove it
by its name, or do not come back for {days} days. For one that everybody has on this machine, there is `lora-lab add`.
""").format(images=MOST_IMAGES, megabytes=MOST_BYTES // 10**6, most=MOST, days=DAYS)


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    running = Running()
    gr.Markdown(EXPLAINED)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            archive = gr.File(label=_("Adapter (zip)"), file_types=[".zip"], elem_id="own-zip")
            name = gr.Textbox(
                label=_("Name"), placeholder=_("small letters, digits and _, such as flowers"), elem_id="own-name"
            )
            images = gr.File(label=_("Labelled images, a folder a class (zip)"), file_types=[".zip"], elem_id="own-images")
            framing = gr.Radio(LOOKED_AT, value="square", label=_("What of them is looked at"), elem_id="own-framing")
            with gr.Row():
                join = gr.Button(_("Add"), variant="primary", elem_id="own-add")
                cancel = gr.Button(_("Cancel"), elem_id="own-cancel")
                drop = gr.Button(_("Remove"), elem_id="own-remove")
        with gr.Column(scale=3, min_width=340):
            report = gr.Markdown(elem_id="own-report")

    def run(
        request: gr.Request,
        path: str | None,
        name: str,
        images: str | None,
        framing: Framing,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how gradio hands it in)
    ) -> str:
        said: list[str] = []
        with running.work(request, progress) as tell, listening(said.append):
            told = added_for_one(mixer, (path, name, images, framing), tell)
        return with_notes(told, said)

    def remove(name: str) -> str:
        return removed(mixer, name)

    join.click(run, [archive, name, images, framing], report, concurrency_limit=1, api_visibility="private")
    drop.click(remove, name, report, concurrency_limit=1, api_visibility="private")
    cancel.click(running.stop, None, None, queue=False, api_visibility="private")


def added_for_one(mixer: Mixer, given: tuple[str | None, str, str | None, Framing], tell: Any) -> str:
    """Add what was sent for whoever asks, where they may and there is room; the rest as `added`."""
    path, name, images, framing = given
    try:
        path, images = (str(sent(one)) if one else None for one in (path, images))
        with room_for(own_of(mixer.lab), "adapters"):
            return added(mixer.lab, (path, name, images, framing), tell, mixer.seat)
    except LoraLabError as error:
        return _("**Not added.** {fault}").format(fault=literal(str(error)))


def added(
    lab: Lab, given: tuple[str | None, str, str | None, Framing], tell: Any, seat: Callable[[str], bool] = lambda name: False
) -> str:
    """Add what was sent, and tell in Markdown what came of it; `given` is the zip, the name, the images' zip, the framing.

    `seat` gives an adapter a card on the page, and says whether it has one.

    What is wrong with an adapter is a list, which stays on the page longer than a message would.
    """
    path, name, images, framing = given
    try:
        if path is None:
            raise LoraLabError(_("there is no zip yet: send one that holds an adapter in peft's format"))
        offer = Offer(path, name.strip().lower(), Path(images) if images else None, framing)
        card = add(lab, offer, tell)
        return report_of(card, seat(card.name))
    except StoppedError:
        return STOPPED
    except LoraLabError as error:
        first, *lines = str(error).splitlines()
        told = _("**Not added.** {fault}").format(fault=literal(first))
        return "\n".join([told, "", *(f"- {literal(line.strip())}" for line in lines)])


def removed(mixer: Mixer, name: str) -> str:
    """Remove an adapter of whoever asks, and tell in Markdown what came of it."""
    try:
        lab, name = changing(mixer.lab), name.strip().lower()
        forget(lab.backbone.name, name, lab.joins)
    except LoraLabError as error:
        return _("**Not removed.** {fault}").format(fault=literal(str(error)))
    mixer.unseat(name)
    return _("Removed **{name}**.").format(name=literal(name))


def report_of(card: AdapterCard, seated: bool) -> str:
    """Markdown: what was added, its scores, and what it can do from now on; `seated` where it has a card already."""
    scores = card.scores.get("val", {})
    rows = []
    for metric, one in scores.items():
        bounds = _("{low:.1f} to {high:.1f}").format(low=one.low, high=one.high)
        rows.append(f"| {literal(metric)} | {one.value:.1f} | {bounds} | {one.n} |")
    head = ["", _("| metric | held-out images | 95 % interval | images |"), "|---|---|---|---|"]
    told = _("Added **{name}** at rank {rank}, on {modules} modules.")
    slider = _("It has a slider in the tab *Merge* now, in this browser.")
    restart = _("All sliders of this page are taken: remove another adapter of yours, load the page again, and it has one.")
    told = told.format(name=literal(card.name), rank=card.rank, modules=len(card.target_modules))
    return "\n".join([f"{told} {slider if seated else restart}", *(head + rows if rows else [])])

"""The tab *New task*: a few labelled images in a zip, and what the adapters that are there make of them."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.composition import WAYS, Composition, Plan, compose, composed, members_for
from lora_lab.composition.zipped import MOST_BYTES, MOST_IMAGES, task_of_zip
from lora_lab.data import listening
from lora_lab.errors import LoraLabError
from lora_lab.inference import NO_FACE
from lora_lab.lab import Lab
from lora_lab.plots import layer_weights
from lora_lab.records import PhotoPrediction
from lora_lab.tasks.base import Framing
from lora_lab.ui.boundary import literal, with_notes
from lora_lab.ui.common import on_photo, photo_input, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import Running
from lora_lab.ui.words import _

TITLE = _("New task")
QUICK = [way.name for way in WAYS.values() if not way.slow]
LOOKED_AT = [(_("the middle of the picture"), "square"), (_("the face"), "face")]

EXPLAINED = _("""
Teach the encoder something that **no adapter knows**, from a few pictures. Learned composition leaves all adapters as they are
and only finds **how much of each to use at each layer**, together with a new head
([arXiv 2402.15414](https://arxiv.org/abs/2402.15414)). Send a zip with a folder of images for each class: at least two classes
of two images, at most {images} images and {megabytes} MB. One image a class, and all that are not learned from,
are held out to score by. Nothing of the zip is kept.
""").format(images=MOST_IMAGES, megabytes=MOST_BYTES // 10**6)


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    lab = mixer.lab
    kept = gr.State(None, time_to_live=3600)
    gr.Markdown(EXPLAINED)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            archive = gr.File(label=_("Images, a folder a class (zip)"), file_types=[".zip"], elem_id="compose-zip")
            shots = gr.Slider(1, 20, 5, step=1, label=_("Images a class to learn from"), elem_id="compose-shots")
            framing = gr.Radio(LOOKED_AT, value="square", label=_("What is looked at"), elem_id="compose-framing")
            slow = gr.Checkbox(
                False, label=_("Compare with LoRA from scratch and full fine-tuning (slow)"), elem_id="compose-slow"
            )
            with gr.Row():
                learn = gr.Button(_("Learn"), variant="primary", elem_id="compose-learn")
                cancel = gr.Button(_("Cancel"), elem_id="compose-cancel")
            photo = photo_input(label=_("Try a photo"), height=240, elem_id="compose-photo")
            answer = gr.Label(label=_("The composed model says"), num_top_classes=5, elem_id="compose-answer")
        with gr.Column(scale=3, min_width=340):
            report = gr.Markdown(elem_id="compose-report")
            heat = gr.Plot(show_label=False, elem_id="compose-weights")
    _wire_learning(lab, (archive, shots, framing, slow), (learn, cancel), (kept, report, heat), (photo, answer))


def _wire_learning(lab: Lab, wish: tuple, buttons: tuple, outputs: tuple, trial: tuple) -> None:
    learn, cancel = buttons
    running = Running()

    def run(
        request: gr.Request,
        path: str | None,
        shots: int,
        framing: Framing,
        slow: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how gradio hands it in)
    ) -> tuple:
        said: list[str] = []
        with shown(), running.work(request, progress) as tell, listening(said.append):
            found = learned_from(lab, path, (int(shots), framing, slow), tell)
        return found, with_notes(report_of(found), said), weights_of(lab, found)

    event = learn.click(run, list(wish), list(outputs), concurrency_limit=1, api_visibility="private")

    cancel.click(running.stop, None, None, queue=False, api_visibility="private")
    _wire_trial(lab, event, outputs[0], trial)


def _wire_trial(lab: Lab, learned: Any, kept: gr.State, trial: tuple) -> None:
    photo, answer = trial

    def say(path: str | None, found: Composition | None) -> dict[str, float] | None:
        with shown():
            return answer_of(lab, path, found)

    for trigger in (on_photo(photo, lab).then, learned.then):
        trigger(say, [photo, kept], answer, api_visibility="private", show_progress="hidden")


def learned_from(lab: Lab, path: str | None, wish: tuple[int, Framing, bool], tell: Any) -> Composition:
    """The composition of a zip; `wish` holds the images a class, what is looked at, and whether slow ways are compared."""
    if path is None:
        raise LoraLabError(_("there is no zip yet: send one with a folder of images for each class"))
    shots, framing, slow = wish
    tell(0.0, _("reading the images"))
    new = task_of_zip(Path(path), lab.backbone.image_size, shots, framing=framing)
    return compose(lab, members_for(lab, new.task), new, Plan(list(WAYS) if slow else QUICK), tell)


def report_of(composition: Composition) -> str:
    """Markdown: how each way did, and which adapters carry most."""
    card, metric = composition.card, composition.task.metric
    lines = [_("| way | macro F1, % | 95 % interval | seconds |"), "|---|---|---|---|"]
    for name, result in card.ways.items():
        score = result.scores[metric]
        bounds = _("{low:.1f} to {high:.1f}").format(low=score.low, high=score.high)
        lines.append(f"| {WAYS[name].title} | {score.value:.1f} | {bounds} | {result.seconds:.0f} |")
    n = card.ways["learned"].scores[metric].n
    shares = ", ".join(f"{literal(name)} {share:.0%}" for name, share in composition.carrying[:3])
    told = _(
        "Learned from {images} images, scored on {others} others. Carrying most, on average over the layers: **{shares}**."
    )
    return "\n".join([told.format(images=card.images, others=n, shares=shares), "", *lines])


def weights_of(lab: Lab, composition: Composition) -> Any:
    """The figure of the layer weights."""
    tasks = lab.tasks()
    return layer_weights(
        {escape(tasks[name].title): row for name, row in composition.layers.items()}, _("How much of each adapter")
    )


def answer_of(lab: Lab, path: str | None, composition: Composition | None) -> dict[str, float] | None:
    """What a composed model says about a photo: a share for each class; nothing until there are both."""
    if path is None or composition is None:
        return None
    model = composed(lab, composition)
    located = lab.locate(lab.photo(Path(path)))
    return shares_of(model.answer(located, model.features(located)), composition.task.name)


def shares_of(prediction: PhotoPrediction, name: str) -> dict[str, float]:
    """The probabilities of the classes, of the first face where faces are looked at. Raises `LoraLabError`."""
    if prediction.note:
        raise LoraLabError(_("{what}: take a photo with one").format(what=NO_FACE))
    predictions = prediction.faces[0].predictions if prediction.faces else {}
    one = {**prediction.photo.predictions, **predictions}[name]
    assert one.probabilities is not None, "a task of folders has classes"
    return one.probabilities

"""The tab *Merge*: a photo, a card for each adapter, and every head's answer while the sliders move."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from lora_lab.changes import changes
from lora_lab.drawing import draw, draw_changes, preview
from lora_lab.lab import Answer, Lab
from lora_lab.merging import MergeRecipe
from lora_lab.photos import Photo
from lora_lab.recent import Recent
from lora_lab.records import PhotoPrediction
from lora_lab.ui import history
from lora_lab.ui.answers import Beside, answers_html, times_html
from lora_lab.ui.common import photo_input, shown
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.presets import BEST, preset_recipe, presets
from lora_lab.ui.words import _

TITLE = _("Merge")
NO_PHOTO = _("Drop a photo, or take one of the examples.")
NO_ADAPTER = _("Every adapter is switched off. Switch one on to get an answer.")
FOUND, ON_FACES, ON_SQUARE = "found", "faces", "square"
VIEWS = [
    (_("What was found"), FOUND),
    (_("Patches changed, faces"), ON_FACES),
    (_("Patches changed, centre square"), ON_SQUARE),
]
ALL_FACES = -1
PIN, UNPIN = _("Pin to compare"), _("Unpin")

FIRST = "grace_hopper.jpg"

TOUR = _("""
1. **Drop a photo**, or take an example. The page opens with the **best merge of all adapters** that there is.
2. Take *Exact sum* as the **method**: plain sums of many adapters break one another. Words in orange say what has changed.
3. Press *Solo* to see one adapter at its best, then bring in another and **move its slider**. *On* switches an adapter and its
   head; at weight 0 its head still answers, from an encoder without it.
4. *Pin* keeps a merge in view beside the next ones; *Undo* takes a step back.
5. *Grid* draws two weights at once, *Interference* says who disturbs whom, *Take away* gives you a link, code and files.
""")


class Parts(NamedTuple):
    """The components of the tab that are neither cards nor the method."""

    photo: gr.Image
    preset: gr.Dropdown
    undo: gr.Button
    pin: gr.Button
    view: gr.Dropdown
    face: gr.Radio
    past: gr.State
    pinned: gr.State
    drawn: gr.Image
    times: gr.HTML
    answers: gr.HTML


@dataclass(frozen=True)
class Look:
    """What a person wants to see of an answer: one face or all, the map of changes, and a merge beside it."""

    view: str = FOUND
    face: int = ALL_FACES
    pinned: MergeRecipe | None = None


def build(lab: Lab, examples: Path, tab: gr.Tab) -> Mixer:
    """Lay out the tab and wire it; gives the cards that other tabs may set, and the photo that they may look at."""
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            # A first visit shows what the page can do before anything is asked for; whoever opens it by a link sees that merge.
            first = str(examples / FIRST) if (examples / FIRST).exists() else None
            photo = photo_input(value=first, label=_("Photo"), height=300, elem_id="photo")
            gr.Examples([str(path) for path in sorted(examples.glob("*.jpg"))], photo, label=_("Examples"))
            with gr.Accordion(_("A short tour"), open=True):
                gr.Markdown(TOUR)
        with gr.Column(scale=4, min_width=340):
            with gr.Row(elem_classes="ll-steps"):
                titles = [BEST, *presets(lab)]
                preset = gr.Dropdown(titles, value=BEST, label=_("Weights to begin with"), elem_id="preset", min_width=170)
                undo = gr.Button(_("Undo"), size="sm", scale=0, min_width=70, elem_id="undo")
                pin = gr.Button(PIN, size="sm", scale=0, min_width=90, elem_id="pin")
            mixer = Mixer(lab, Expectations(lab))
            times = gr.HTML(elem_id="times")
        with gr.Column(scale=5, min_width=360):
            drawn = gr.Image(
                label=_("Found"), format="jpeg", interactive=False, height=380, elem_id="drawn", buttons=["download"]
            )
            with gr.Row():
                view = gr.Dropdown(VIEWS, value=FOUND, label=_("Drawn"), elem_id="view", min_width=150)
                face = gr.Radio(
                    [(_("all"), ALL_FACES)], value=ALL_FACES, label=_("Faces"), visible=False, elem_id="face", min_width=150
                )
            answers = gr.HTML(note(NO_PHOTO), elem_id="answers")
    past, pinned = gr.State([]), gr.State(None)
    _wire(mixer, Parts(photo, preset, undo, pin, view, face, past, pinned, drawn, times, answers))
    _foretell(mixer)
    # An adapter that has just joined has its card, and its preset, when its owner comes back to this tab.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    for event in (mixer.joined, mixer.join(tab.select, mixer.spare_ranks)):
        event.then(lambda: gr.update(choices=[BEST, *presets(lab)]), None, preset, **quiet)
    return mixer


def _wire(mixer: Mixer, parts: Parts) -> None:
    previews = Recent(8)
    values = [parts.photo, parts.view, parts.face, parts.past, parts.pinned, *mixer.values]
    outputs = [parts.drawn, parts.times, parts.answers, parts.face, parts.past]

    def answer(path: str | None, view: str, face: int | None, *rest: Any) -> tuple:
        past, pinned, *rows = rest
        with shown():
            recipe = mixer.recipe(rows)
            look = Look(view, ALL_FACES if face is None else face, MergeRecipe.model_validate_json(pinned) if pinned else None)
            seen = respond(mixer.lab, previews, path, recipe, look)
        return *seen, history.remembered(past, recipe.model_dump_json()) if recipe else past

    live: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 2}
    live["api_visibility"] = "private"
    mixer.photo = parts.photo
    mixer.follow = lambda event: event.then(answer, values, outputs, **live)
    moved = [parts.photo.change, parts.view.input, parts.face.input, *(value.input for value in mixer.moved)]
    gr.on(moved, answer, values, outputs, **live)
    for switched in mixer.switched:
        mixer.follow(switched)
    _wire_steps(mixer, parts)


def _wire_steps(mixer: Mixer, parts: Parts) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def choose(title: str, *rows: Any) -> list[Any]:
        return mixer.rows(preset_recipe(mixer.lab, title, mixer.recipe(rows) or mixer.lab.best()))

    def undo(past: list[str], *rows: Any) -> list[Any]:
        now = mixer.recipe(rows)
        rest, before = history.back(past, now.model_dump_json() if now else "")
        if before is None:
            gr.Info(_("There is nothing to take back."))
            return [past, *(gr.skip() for _ in mixer.shown)]
        return [rest, *mixer.rows(MergeRecipe.model_validate_json(before))]

    def pin(pinned: str | None, *rows: Any) -> tuple:
        now = mixer.recipe(rows)
        keep = None if pinned or now is None else now.model_dump_json()
        return keep, UNPIN if keep else PIN

    mixer.follow(parts.preset.input(choose, [parts.preset, *mixer.values], mixer.shown, **quiet))
    mixer.follow(parts.undo.click(undo, [parts.past, *mixer.values], [parts.past, *mixer.shown], **quiet))
    mixer.follow(parts.pin.click(pin, [parts.pinned, *mixer.values], [parts.pinned, parts.pin], **quiet))


def _foretell(mixer: Mixer) -> None:
    def foretell(*rows: Any) -> list[str]:
        with shown():
            return mixer.told(mixer.recipe(rows))

    live: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    gr.on([value.change for value in mixer.values], foretell, mixer.values, mixer.cards, queue=False, **live)


def respond(lab: Lab, previews: Recent, path: str | None, recipe: MergeRecipe | None, look: Look) -> tuple:
    """The drawn photo, the times, the answers and the choice of faces."""
    if path is None:
        return None, "", note(NO_PHOTO), gr.update(visible=False)
    photo = lab.photo(Path(path))
    small = previews.get(photo.key, lambda: preview(photo.image))
    if recipe is None:
        return small, "", note(NO_ADAPTER), gr.skip()
    answer = lab.predict(photo, recipe)
    alone = {a.name: lab.alone(photo, a.name, a.rank) for a in recipe.adapters}
    pinned = lab.kept(photo, look.pinned) if look.pinned else None
    faces = answer.prediction.faces
    face = look.face if 0 <= look.face < len(faces) else ALL_FACES
    beside = Beside(lab.base(photo)[0], alone, pinned, lab.judged(photo))
    tasks = lab.tasks()
    html = answers_html(answer, beside, tasks, None if face == ALL_FACES else face)
    html = f'<div data-photo="{photo.key}">{html}</div>'
    choices = [(_("all"), ALL_FACES), *((str(i + 1), i) for i in range(len(faces)))]
    choice = gr.update(choices=choices, value=face, visible=len(faces) > 1)
    points = next((one for name, one in alone.items() if tasks[name].kind == "points"), None)
    return drawn(lab, photo, small, answer, (look.view, points)), times_html(answer), html, choice


def note(words: str) -> str:
    """A quiet line, as HTML."""
    return f'<p class="ll-note">{words}</p>'


def drawn(lab: Lab, photo: Photo, small: Image.Image, answer: Answer, view: tuple[str, PhotoPrediction | None]) -> Image.Image:
    """The photo with what a view shows: boxes and points beside those of the adapter alone, or the changed patches."""
    name, alone = view
    scale = small.width / photo.width
    if name != FOUND:
        on_faces, square = changes(lab.locate(photo), answer.prediction, answer.features, lab.base(photo)[1])
        picked: Sequence = on_faces if name == ON_FACES else [square] if square else []
        for one in picked:
            small = draw_changes(small, scale, (one.frame.x, one.frame.y, one.frame.side), one.patches.numpy())
        return small
    return draw(small, scale, answer.prediction, alone)

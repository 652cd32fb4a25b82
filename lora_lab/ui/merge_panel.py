"""The tab *Merge*: a photo, a card for each adapter, and every head's answer while the sliders move."""

from collections.abc import Callable, Sequence
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
from lora_lab.ui.common import on_photo, photo_input, shown
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.presets import BEST, CUSTOM, held_as, preset_recipe, presets
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
4. *Pin* keeps a merge in view beside the next ones; *Undo* takes back a gesture, *Redo* brings it again.
5. *Grid* draws two weights at once, *Interference* says who disturbs whom, *Take away* gives you a link, code and files.
""")


class Parts(NamedTuple):
    """The components of the tab that are neither cards nor the method."""

    photo: gr.Image
    preset: gr.Dropdown
    undo: gr.Button
    redo: gr.Button
    pin: gr.Button
    view: gr.Dropdown
    face: gr.Radio
    steps: gr.State
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
                titles = menu(lab)
                preset = gr.Dropdown(titles, value=BEST, label=_("Weights to begin with"), elem_id="preset", min_width=170)
                small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 70, "interactive": False}
                undo, redo = gr.Button(_("Undo"), elem_id="undo", **small), gr.Button(_("Redo"), elem_id="redo", **small)
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
    begun = [value.value for value in mixer.values]
    steps, pinned = gr.State(history.settled(history.Steps(), begun)), gr.State(None)
    _wire(mixer, Parts(photo, preset, undo, redo, pin, view, face, steps, pinned, drawn, times, answers))
    # An adapter that has just joined has its card, and its preset, when its owner comes back to this tab.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    for event in (mixer.joined, mixer.join(tab.select, mixer.spare_ranks)):
        event.then(lambda: gr.update(choices=menu(lab)), None, preset, **quiet)
    return mixer


def _wire(mixer: Mixer, parts: Parts) -> None:
    previews = Recent(8)
    values = [parts.photo, parts.view, parts.face, parts.pinned, *mixer.values]
    outputs = [parts.drawn, parts.times, parts.answers, parts.face]

    def answer(path: str | None, view: str, face: int | None, *rest: Any) -> tuple:
        pinned, *rows = rest
        with shown():
            recipe = mixer.recipe(rows)
            look = Look(view, ALL_FACES if face is None else face, MergeRecipe.model_validate_json(pinned) if pinned else None)
            return respond(mixer.lab, previews, path, recipe, look)

    live: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 2}
    live["api_visibility"] = "private"
    mixer.photo = parts.photo
    settle, begin = _wire_steps(mixer, parts)

    # Another method may have to prepare the adapters, which can take seconds; a moved slider only flickers.
    seen: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": parts.answers}

    def follow(event: Any, begins: bool = False) -> Any:
        # Remembered beside the answer, not after it: who is quicker than the answer still takes two steps, not one.
        (begin if begins else settle)(event.then)
        return event.then(answer, values, outputs, **live | seen)

    mixer.follow = follow
    # A step is remembered already; values that come late would be taken for a gesture.
    for step in mixer.steps:
        step.then(answer, values, outputs, **live | seen)
    on_photo(parts.photo, mixer.lab).then(answer, values, outputs, **live)
    moved = [parts.view.input, parts.face.input, *(value.input for value in mixer.moved)]
    gr.on(moved, answer, values, outputs, **live)
    for switched in mixer.switched:
        mixer.follow(switched)
    _wire_choices(mixer, parts)


def _wire_steps(mixer: Mixer, parts: Parts) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Wire undo and redo; gives what remembers the values after an event, and what forgets all that was before it."""
    # One at a time, so that no step is written over another.
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    quiet |= {"concurrency_id": "steps", "concurrency_limit": 1}
    inputs, buttons = [parts.steps, *mixer.values], [parts.steps, parts.undo, parts.redo]

    def buttons_of(steps: history.Steps) -> tuple:
        return steps, gr.update(interactive=len(steps.past) > 1), gr.update(interactive=bool(steps.ahead))

    def settled(steps: history.Steps, *now: Any) -> tuple:
        return buttons_of(history.settled(steps, now))

    def stepped(step: Callable[[history.Steps, Sequence[Any]], history.Steps]) -> Callable[..., tuple]:
        def run(steps: history.Steps, *now: Any) -> tuple:
            with shown():
                after = step(steps, now)
                return *buttons_of(after), *mixer.restored(after.past[-1])

        return run

    def settle(trigger: Callable[..., Any]) -> Any:
        return trigger(settled, inputs, buttons, **quiet)

    def begin(trigger: Callable[..., Any]) -> Any:
        return trigger(lambda *now: buttons_of(history.begun(now)), mixer.values, buttons, **quiet)

    gr.on(mixer.settling, settled, inputs, buttons, trigger_mode="multiple", **quiet)
    pressed: dict[str, Any] = {**quiet, "trigger_mode": "multiple"}
    mixer.steps = [
        parts.undo.click(stepped(history.undone), inputs, [*buttons, *mixer.shown], **pressed),
        parts.redo.click(stepped(history.redone), inputs, [*buttons, *mixer.shown], **pressed),
    ]
    return settle, begin


def _wire_choices(mixer: Mixer, parts: Parts) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    held = gr.State({held_as(mixer.lab.best()): BEST})

    def choose(held: dict[str, str], title: str, *rows: Any) -> list[Any]:
        with shown():
            recipe = preset_recipe(mixer.lab, title, mixer.recipe(rows) or mixer.lab.best())
            return [{**held, held_as(recipe): title}, *mixer.rows(recipe, mixer.off(rows) if title == CUSTOM else ())]

    def pin(pinned: str | None, *rows: Any) -> tuple:
        now = mixer.recipe(rows)
        keep = None if pinned or now is None else now.model_dump_json()
        return keep, UNPIN if keep else PIN

    def foretell(held: dict[str, str], *rows: Any) -> list[str]:
        with shown():
            recipe = mixer.recipe(rows)
            return [held.get(held_as(recipe), CUSTOM) if recipe else CUSTOM, *mixer.told(recipe)]

    mixer.follow(parts.preset.input(choose, [held, parts.preset, *mixer.values], [held, *mixer.shown], **quiet))
    mixer.follow(parts.pin.click(pin, [parts.pinned, *mixer.values], [parts.pinned, parts.pin], **quiet))
    changed = [value.change for value in mixer.values]
    live: dict[str, Any] = {**quiet, "trigger_mode": "always_last", "queue": False}
    gr.on(changed, foretell, [held, *mixer.values], [parts.preset, *mixer.cards], **live)


def menu(lab: Lab) -> list[str]:
    """The titles of the presets; the last is for weights that are none of them."""
    return [BEST, *presets(lab), CUSTOM]


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

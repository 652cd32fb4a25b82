"""The tab *Merge*: a photo, a row for each adapter, and every head's answer while the sliders move."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.drawing import draw, preview
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.recent import Recent
from lora_lab.tasks import Task
from lora_lab.ui.answers import answers_html, times_html
from lora_lab.ui.common import photo_input, shown
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.mixer import Mixer

TITLE = "Merge"
NO_PHOTO = '<p class="ll-note">Drop a photo, or take one of the examples.</p>'
NO_ADAPTER = '<p class="ll-note">Every adapter is switched off. Switch one on to get an answer.</p>'

EXPLAINED = """
The page opens with the **best merge of all adapters** that there is. Take *Exact sum* as the method to see how plain sums of
many adapters break one another; set one slider to 1 and the others to 0 to see an adapter at its best, then bring in another.
*Off* leaves an adapter and its head out; at weight 0 its head still answers, from an encoder without it.
"""


def presets(names: Sequence[str], tasks: Mapping[str, Task]) -> dict[str, Callable[[str], float]]:
    """Weights by the button that sets them."""
    faces = [name for name in names if tasks[name].framing == "face"]
    others = [name for name in names if name not in faces]
    return {
        "All 1/K": lambda name: 1 / len(names),
        "All 1": lambda name: 1.0,
        "All 0": lambda name: 0.0,
        "Faces": lambda name: 1 / max(1, len(faces)) if name in faces else 0.0,
        "Sky, land": lambda name: 1 / max(1, len(others)) if name in others else 0.0,
    }


def build(lab: Lab, examples: Path) -> Mixer:
    """Lay out the tab and wire it; gives the rows that other tabs may set."""
    tasks = lab.tasks()
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            photo = photo_input(label="Photo", height=300, elem_id="photo")
            gr.Examples([str(path) for path in sorted(examples.glob("*.jpg"))], photo, label="Examples")
            gr.Markdown(EXPLAINED)
        with gr.Column(scale=4, min_width=340):
            with gr.Row():
                reset = gr.Button("Best", size="sm", min_width=60, elem_id="best")
                weights_of = presets(list(lab.ranks()), tasks)
                buttons = [(gr.Button(title, size="sm", min_width=60), weight_of) for title, weight_of in weights_of.items()]
            mixer = Mixer(lab, Expectations(lab))
            forecast = gr.HTML(mixer.expectations.html(lab.best()), elem_id="forecast")
            times = gr.HTML(elem_id="times")
        with gr.Column(scale=5, min_width=400):
            drawn = gr.Image(label="Found", format="jpeg", interactive=False, height=380, elem_id="drawn", buttons=["download"])
            answers = gr.HTML(NO_PHOTO, elem_id="answers")
    _wire(mixer, photo, buttons, (drawn, times, answers))
    _foretell(mixer, forecast)
    best = reset.click(lambda: mixer.rows(lab.best()), None, mixer.shown, api_visibility="private", show_progress="hidden")
    mixer.follow(best)
    return mixer


def _wire(mixer: Mixer, photo: gr.Image, buttons: list, outputs: tuple) -> None:
    previews = Recent(8)
    values = [photo, *mixer.values]

    def answer(request: gr.Request, path: str | None, *rows: Any) -> tuple:
        with shown():
            return respond(mixer.lab, previews, path, mixer.recipe(rows), request.session_hash)

    live = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 2}
    moved = [photo.change, *(value.input for value in mixer.moved)]
    gr.on(moved, answer, values, list(outputs), api_name="answer", **live)
    for switched in mixer.switched:
        switched.then(answer, values, list(outputs), api_visibility="private", **live)
    mixer.follow = lambda event: event.then(answer, values, list(outputs), api_visibility="private", **live)
    for button, weight_of in buttons:
        set_all = [weight_of(name) for name in mixer.names]
        event = button.click(lambda given=set_all: given, None, mixer.weights, api_visibility="private", show_progress="hidden")
        mixer.follow(event)


def _foretell(mixer: Mixer, forecast: gr.HTML) -> None:
    def foretell(*rows: Any) -> str:
        with shown():
            return mixer.expectations.html(mixer.recipe(rows))

    gr.on(
        [value.change for value in mixer.values],
        foretell,
        mixer.values,
        forecast,
        show_progress="hidden",
        trigger_mode="always_last",
        queue=False,
        api_visibility="private",
    )


def respond(lab: Lab, previews: Recent, path: str | None, recipe: MergeRecipe | None, session: str | None) -> tuple:
    """The drawn photo, the times and the answers."""
    if path is None:
        return None, "", NO_PHOTO
    photo = lab.photo(Path(path))
    shown = previews.get(photo.key, lambda: preview(photo.image))
    if recipe is None:
        return shown, "", NO_ADAPTER
    answer = lab.predict(photo, recipe, session)
    alone = {a.name: lab.alone(photo, a.name, a.rank) for a in recipe.adapters}
    tasks = lab.tasks()
    points = next((one for name, one in alone.items() if tasks[name].kind == "points"), None)
    picture = draw(shown, shown.width / photo.image.width, answer.prediction, points)
    return picture, times_html(answer), answers_html(answer, alone, tasks)

"""The tab *Merge*: a photo, a row for each adapter, and every head's answer while the sliders move."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.drawing import draw, preview
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.merging.recipe import HIGHEST, LOWEST
from lora_lab.recent import Recent
from lora_lab.tasks import Task
from lora_lab.ui.answers import answers_html, times_html
from lora_lab.ui.common import photo_input

TITLE = "Merge"
NO_PHOTO = '<p class="ll-note">Drop a photo, or take one of the examples.</p>'
NO_ADAPTER = '<p class="ll-note">Every adapter is switched off. Switch one on to get an answer.</p>'

EXPLAINED = """
The page opens with **uniform weights**: each of K adapters at 1/K, so that the sum is their mean. Plain sums of many adapters
break one another; set one slider to 1 and the others to 0 to see an adapter at its best, then bring in another. *Off* leaves
an adapter and its head out; at weight 0 its head still answers, from an encoder without it.
"""


class Slot:
    """The row of one adapter: switch, weight and rank."""

    def __init__(self, name: str, title: str, ranks: Sequence[int], weight: float):
        self.name = name
        with gr.Row(elem_classes="ll-slot"):
            self.on = gr.Checkbox(True, label="on", container=False, scale=0, min_width=56, elem_id=f"on-{name}")
            self.weight = gr.Slider(LOWEST, HIGHEST, weight, step=0.01, label=title, min_width=200, elem_id=f"weight-{name}")
            self.rank = gr.Dropdown(
                [(f"r{rank}", rank) for rank in ranks],
                value=ranks[0],
                label="rank",
                scale=0,
                min_width=104,
                interactive=len(ranks) > 1,
                elem_id=f"rank-{name}",
            )

    @property
    def inputs(self) -> list[Any]:
        """Components in the order in which a handler gets their values."""
        return [self.on, self.weight, self.rank]


def presets(names: Sequence[str], tasks: Mapping[str, Task]) -> dict[str, Callable[[str], float]]:
    """Weights by the button that sets them."""
    faces = [name for name in names if tasks[name].framing == "face"]
    others = [name for name in names if name not in faces]
    return {
        "Reset: 1/K": lambda name: 1 / len(names),
        "All 1": lambda name: 1.0,
        "All 0": lambda name: 0.0,
        "Faces": lambda name: 1 / max(1, len(faces)) if name in faces else 0.0,
        "Sky, land": lambda name: 1 / max(1, len(others)) if name in others else 0.0,
    }


def build(lab: Lab, examples: Path) -> None:
    """Lay out the tab and wire it."""
    start, tasks = lab.uniform(), lab.tasks()
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            photo = photo_input(label="Photo", height=300, elem_id="photo")
            gr.Examples([str(path) for path in sorted(examples.glob("*.jpg"))], photo, label="Examples")
            gr.Markdown(EXPLAINED)
        with gr.Column(scale=4, min_width=340):
            with gr.Row():
                names = [a.name for a in start.adapters]
                buttons = {
                    title: (gr.Button(title, size="sm", min_width=60), weights)
                    for title, weights in presets(names, tasks).items()
                }
            ranks = lab.ranks()
            slots = [Slot(a.name, tasks[a.name].title, sorted(ranks[a.name]), round(a.weight, 4)) for a in start.adapters]
            times = gr.HTML(elem_id="times")
        with gr.Column(scale=5, min_width=400):
            drawn = gr.Image(label="Found", format="jpeg", interactive=False, height=380, elem_id="drawn", buttons=["download"])
            answers = gr.HTML(NO_PHOTO, elem_id="answers")
    _wire(lab, (photo, slots, buttons), (drawn, times, answers))


def _wire(lab: Lab, controls: tuple, outputs: tuple) -> None:
    photo, slots, buttons = controls
    previews = Recent(8)
    values = [photo, *(value for slot in slots for value in slot.inputs)]

    def answer(request: gr.Request, path: str | None, *rows: Any) -> tuple:
        try:
            return respond(lab, previews, path, recipe_of(lab, slots, rows), request.session_hash)
        except LoraLabError as error:
            raise gr.Error(str(error), title="That did not work", print_exception=False) from error

    live = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 2}
    moved = [photo.change, *(e for s in slots for e in (s.on.input, s.weight.input, s.rank.input))]
    gr.on(moved, answer, values, list(outputs), api_name="answer", **live)
    weights = [slot.weight for slot in slots]
    for button, weight_of in buttons.values():
        set_all = [weight_of(slot.name) for slot in slots]
        button.click(lambda set_all=set_all: set_all, None, weights, api_visibility="private", show_progress="hidden").then(
            answer, values, list(outputs), api_visibility="private", **live
        )


def recipe_of(lab: Lab, slots: Sequence[Slot], rows: Sequence[Any]) -> MergeRecipe | None:
    """The recipe that the rows show; none when every adapter is off."""
    adapters = [
        RecipeAdapter(name=slot.name, rank=rank, weight=weight)
        for slot, on, weight, rank in zip(slots, rows[::3], rows[1::3], rows[2::3], strict=True)
        if on
    ]
    return lab.recipe(adapters) if adapters else None


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

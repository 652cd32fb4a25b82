"""The tab *Grid*: two weights over a grid, on the photo of the tab *Merge*, and what each task says at every point."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.records import Prediction
from lora_lab.tasks import Task
from lora_lab.ui.boundary import literal
from lora_lab.ui.common import MERGE_TAB, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.scripts import CLICKS
from lora_lab.ui.stops import STOPPED, Running, StoppedError
from lora_lab.ui.words import _
from lora_lab.weight_grids import Axis, WeightGrid, steps, tasks_of, weight_grid

TITLE = _("Grid")
SIDES = [("5 × 5", 5), ("7 × 7", 7), ("9 × 9", 9)]
FAR = {"number": 15.0, "points": 0.15}
"""What counts as wholly different from the adapter alone: years, and shares of the width of all points."""

EXPLAINED = _("""
**Two weights, on your own photo.** Every cell is a merge of its own: what this task answers there. The whiter, the more like
its adapter alone; the darker, the further from it. The other weights and the method are those of the tab *Merge*. A click
on a cell sets the two sliders.
""")


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it; the photo is that of the tab *Merge*."""
    lab, running = mixer.lab, Running()
    names = menu(mixer)
    gr.Markdown(EXPLAINED)
    with gr.Row():
        across = gr.Dropdown(names, value=names[0][1], label=_("Across"), elem_id="grid-x")
        down = gr.Dropdown(names, value=names[min(3, len(names) - 1)][1], label=_("Down"), elem_id="grid-y")
        low = gr.Number(0.0, label=_("From"), minimum=-1, maximum=2, elem_id="grid-low", min_width=90)
        high = gr.Number(1.0, label=_("To"), minimum=-1, maximum=2, elem_id="grid-high", min_width=90)
        side = gr.Dropdown(SIDES, value=5, label=_("Size"), elem_id="grid-size", min_width=90)
        draw = gr.Button(_("Draw"), variant="primary", elem_id="grid-draw", min_width=90)
        cancel = gr.Button(_("Cancel"), elem_id="grid-cancel", min_width=90)
    told = gr.Markdown(elem_id="grid-told")
    cells = gr.HTML(elem_id="grid-cells", js_on_load=CLICKS)

    # Gradio hands in what it has itself only before the values.
    def run(request: gr.Request, progress: gr.Progress = gr.Progress(), *given: Any) -> tuple[str, Any]:  # noqa: B008
        path, *wish, low, high, side = given[:6]
        with shown(), running.work(request, progress) as tell:
            axes = tuple(Axis(name, steps(low, high, side)) for name in wish)
            try:
                grid = weight_grid(lab, lab.photo(asked(path)), merge_of(mixer, given[6:]), (axes[0], axes[1]), tell)
            except StoppedError:
                return STOPPED, gr.skip()
            return summary(grid, lab), grid_html(grid, lab)

    values = [mixer.photo, across, down, low, high, side, *mixer.values]
    draw.click(run, values, [told, cells], concurrency_limit=1, api_visibility="private")
    cancel.click(running.stop, None, None, queue=False, api_visibility="private")

    def go(event: gr.EventData, *rows: Any) -> list[Any]:
        with shown():
            return [
                gr.Tabs(selected=MERGE_TAB),
                *mixer.rows(at_cell(mixer.recipe(rows) or lab.best(), event.weights), mixer.off(rows)),
            ]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(lambda: [gr.update(choices=menu(mixer))] * 2, None, [across, down], **quiet)
    for number in (low, high):
        # What arrives is in range; the page shows it.
        number.blur(lambda value: value, number, number, queue=False, **quiet)
    mixer.follow(cells.click(go, mixer.values, [tabs, *mixer.shown], **quiet))


def at_cell(recipe: MergeRecipe, weights: str) -> MergeRecipe:
    """A recipe at the weights of a cell, such as "emotion=0.5;galaxy=1". Raises `DataError`."""
    cell = {a.name: a.weight for a in MergeRecipe.parse(weights.replace(";", ","), recipe.backbone).adapters}
    moved = [a.model_copy(update={"weight": cell.get(a.name, a.weight)}) for a in recipe.adapters]
    return recipe.model_copy(update={"adapters": tuple(moved)})


def menu(mixer: Mixer) -> list[tuple[str, str]]:
    """Titles and names of the adapters that have a slider."""
    tasks = mixer.lab.tasks()
    return [(tasks[name].title, name) for name in mixer.names if name in tasks]


def asked(path: str | None) -> Path:
    """The photo's path. Raises `LoraLabError` where there is none."""
    if path is None:
        raise LoraLabError(_("there is no photo yet: drop one in the tab Merge"))
    return Path(path)


def merge_of(mixer: Mixer, rows: Sequence[Any]) -> MergeRecipe:
    """The recipe of the sliders; a kept merge, which no weight moves, gives way to the method that follows them."""
    recipe = mixer.recipe(rows)
    if recipe is None:
        raise LoraLabError(_("every adapter is switched off: switch on those that should be merged"))
    return mixer.loosened(recipe)


def summary(grid: WeightGrid, lab: Lab) -> str:
    """What is drawn, in words."""
    tasks = lab.tasks()
    across, down = (literal(tasks[axis.name].title) for axis in (grid.x, grid.y))
    told = _("{merges} merges: **{across}** across, **{down}** down.")
    return told.format(merges=len(grid.x.weights) * len(grid.y.weights), across=across, down=down)


def grid_html(grid: WeightGrid, lab: Lab) -> str:
    """A table for each task of each face and of the whole photo."""
    tables = "".join(_table(grid, lab.tasks()[name], face) for name, face in tasks_of(grid.cells[0][0]))
    return f'<div class="ll-grids">{tables}</div>'


def _table(grid: WeightGrid, task: Task, face: int | None) -> str:
    own = grid.own(task.name, face)
    where = _("whole photo") if face is None else _("face {number}").format(number=face + 1)
    head = "".join(f'<th scope="col">{weight:g}</th>' for weight in grid.x.weights)
    rows = []
    for b, answers in zip(grid.y.weights, grid.answers(task.name, face), strict=True):
        cells = [_cell(one, own, {grid.x.name: a, grid.y.name: b}) for a, one in zip(grid.x.weights, answers, strict=True)]
        rows.append(f'<tr><th scope="row">{b:g}</th>{"".join(cells)}</tr>')
    told = _("{where}; alone: {answer}").format(where=where, answer=escape(own.answer))
    caption = f"{escape(task.title)} <small>{told}</small>"
    place = f'data-grid="{task.name}" tabindex="0" aria-label="{escape(f"{task.title}, {where}")}"'
    return (
        f'<section class="ll-grid" {place}><table><caption>{caption}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _cell(merged: Prediction, own: Prediction, weights: dict[str, float]) -> str:
    shade = distance(merged, own)
    points = ";".join(f"{name}={weight!r}" for name, weight in weights.items())
    text = _("{distance:.0f} px").format(distance=pixels(merged, own)) if merged.points else merged.answer
    title = escape(_("{share:.0%} of the way to another answer").format(share=shade))
    return (
        f'<td tabindex="0" role="button" data-weights="{points}" style="--far:{shade:.2f}" title="{title}">{escape(text)}</td>'
    )


def pixels(merged: Prediction, own: Prediction) -> float:
    """The mean distance of points, in pixels of the photo."""
    return float(np.linalg.norm(np.subtract(merged.points or (), own.points or ()), axis=1).mean())


def distance(merged: Prediction, own: Prediction) -> float:
    """How far an answer is from another, 0 to 1: the probability that is placed elsewhere; years and pixels up to `FAR`."""
    if merged.probabilities and own.probabilities:
        return sum(abs(share - own.probabilities[label]) for label, share in merged.probabilities.items()) / 2
    if merged.points and own.points:
        width = float(np.ptp(np.asarray(own.points)[:, 0]))
        return min(1.0, pixels(merged, own) / (FAR["points"] * max(width, 1.0)))
    return min(1.0, abs((merged.value or 0) - (own.value or 0)) / FAR["number"])

"""A pair's weights: what each of the two tasks keeps wherever the two sliders stand."""

from typing import Any

import gradio as gr

from lora_lab.findings import RETENTION, Findings
from lora_lab.forecast import RANK
from lora_lab.plots import weight_contour
from lora_lab.tasks import TASKS
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.words import _

EXPLAINED = _("White dots were measured, the colours between them are drawn through. The cross is where the sliders stand now.")


def build(findings: Findings, mixer: Mixer, tab: gr.Tab) -> None:
    """Lay out the view and wire it."""
    pairs = findings.grids(RANK)
    if not pairs:
        gr.Markdown(_("No pair was measured at other weights than these."))
        return
    names = [" + ".join(TASKS[name].title for name in pair) for pair in pairs]
    with gr.Row():
        pair = gr.Dropdown(
            list(zip(names, map(" ".join, pairs), strict=True)), value=" ".join(pairs[0]), label=_("Pair"), elem_id="pair"
        )
        gr.Markdown(EXPLAINED)
    with gr.Row():
        plots = [gr.Plot(show_label=False, elem_id=f"contour-{i}") for i in range(2)]

    def show(pair: str, *rows: Any) -> list[Any]:
        one, two = pair.split(" ")
        recipe = mixer.recipe(rows)
        now = {a.name: a.weight for a in recipe.adapters} if recipe else {}
        grid = findings.grid((one, two), RANK)
        grid = grid[grid.metric == RETENTION]
        mark = (now.get(one, 0.0), now.get(two, 0.0))
        axes = (TASKS[one].title, TASKS[two].title)
        titles = {name: _("What {task} keeps").format(task=TASKS[name].title) for name in (one, two)}
        return [weight_contour(grid[grid.task == name], axes, title, mark) for name, title in titles.items()]

    gr.on([tab.select, pair.change], show, [pair, *mixer.values], plots, show_progress="hidden", api_visibility="private")

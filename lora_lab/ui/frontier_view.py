"""What a task scores alone and after merging all adapters, for longer and shorter training; what retention costs in time."""

import gradio as gr
import plotly.graph_objects as go

from lora_lab.frontier import merges_of, reached, undominated
from lora_lab.plots import cost_scatter, frontier_scatter
from lora_lab.records import LONG, SHORT
from lora_lab.standings import Standing
from lora_lab.tasks import TASKS
from lora_lab.ui.words import _

EXPLAINED = _("""
An adapter that was trained for longer scores more alone, and is harder to merge. A grey line is a method: it leads from the
adapters of short training to those of long training. **On the dashed line nothing is lost.** Right: how long the merge took to
make, and what it keeps in the mean; the steps join those that none beats in as little time. After long training merges were
made beside an H200, after short training on two CPU cores.
""")
NAMES = {LONG: _("long training"), SHORT: _("short training")}


def build(tab: gr.Tab) -> None:
    """Lay out the view and wire it."""
    gr.Markdown(EXPLAINED)
    task = gr.Dropdown([(one.title, one.name) for one in TASKS.values()], label=_("Task"), elem_id="frontier-task")
    with gr.Row():
        scores, costs = gr.Plot(show_label=False, elem_id="frontier"), gr.Plot(show_label=False, elem_id="costs")

    def show(name: str) -> tuple[go.Figure, go.Figure]:
        chosen = TASKS[name]
        points: dict[str, dict[str, tuple[float, float]]] = {title: {} for title in NAMES.values()}
        for one in reached(name):
            # Of a method with several settings the best comes first.
            points[NAMES[one.training]].setdefault(one.standing.title, (one.alone.value, one.merged.value))
        axes = (_("{task}, adapter alone").format(task=chosen.title), _("after merging all"))
        costs = {title: [_cost(row) for row in merges_of(training) if row.seconds] for training, title in NAMES.items()}
        front = [(row.seconds or 0.0, row.mean.value) for row in undominated(merges_of(LONG))]
        return frontier_scatter(points, axes), cost_scatter(costs, front, (_("seconds for a merge"), _("kept in the mean, %")))

    gr.on([tab.select, task.change], show, task, [scores, costs], show_progress="hidden", api_visibility="private")


def _cost(row: Standing) -> tuple[float, float, str]:
    assert row.seconds is not None, "asked only of those that were timed"
    return row.seconds, row.mean.value, _("{method}; needs {needs}").format(method=row.title, needs=row.needs)

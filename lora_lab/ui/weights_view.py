"""Interference from the weights alone: by layer and pair, and how well each measure foretells what was measured."""

import gradio as gr
import plotly.graph_objects as go

from lora_lab.derived import harm, predictors, read_weights
from lora_lab.findings import Findings
from lora_lab.interference import MEASURES
from lora_lab.plots import harm_scatter, layer_map
from lora_lab.tasks import TASKS
from lora_lab.ui.words import _

HARM = _("Measured interference (100 − retention)")


def build(findings: Findings, tab: gr.Tab) -> None:
    """Lay out the view and wire it."""
    with gr.Row():
        measure = gr.Dropdown(
            [(m.title, m.name) for m in MEASURES.values()], label=_("Measure of the weights"), elem_id="of-weights"
        )
        rank = gr.Radio([("r16", 16), ("r64", 64)], value=16, label=_("Rank"))
    meaning = gr.Markdown(elem_id="foretells")
    with gr.Row():
        layers, scatter = gr.Plot(show_label=False, elem_id="layers"), gr.Plot(show_label=False, elem_id="foretold")

    def show(name: str, rank: int) -> tuple[str, go.Figure, go.Figure]:
        what = MEASURES[name]
        weights = read_weights()
        weights = weights[(weights.measure == name) & (weights["rank"] == rank)]
        named = weights.assign(task=weights.task.map(_title), partner=weights.partner.map(_title))
        pairs = weights.groupby(["task", "partner"], sort=False).value.mean()
        measured = harm(findings, rank)
        both = [place for place in pairs.index if place in measured]
        names = [f"{_title(task)} ← {_title(partner)}" for task, partner in both]
        dots = harm_scatter([pairs[place] for place in both], [measured[place] for place in both], names, (what.title, HARM))
        found = predictors(findings, rank)[name]
        correlation = _("{value:.2f} ({low:.2f} to {high:.2f})").format(value=found.value, low=found.low, high=found.high)
        told = _("**Rank correlation with what was measured: {correlation}** over {pairs} directed pairs.")
        text = f"{what.meaning}. {told.format(correlation=correlation, pairs=found.n)}"
        return text, layer_map(named, _("{measure} by layer: task ← partner").format(measure=what.title)), dots

    events = [tab.select, measure.change, rank.change]
    gr.on(events, show, [measure, rank], [meaning, layers, scatter], show_progress="hidden", api_visibility="private")


def _title(name: str) -> str:
    return TASKS[name].title

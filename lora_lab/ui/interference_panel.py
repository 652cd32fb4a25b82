"""The tab *Interference*: which adapters disturb which, measured and from the weights alone."""

from typing import Any

import gradio as gr

from lora_lab.findings import EXACT, MEASURES, RETENTION, UNIFORM, Findings, Source
from lora_lab.heatmaps import pair_merges, pairs_svg, sets_svg, table
from lora_lab.merging import MergeRecipe
from lora_lab.paper import Paper
from lora_lab.ui import grid_view, weights_view
from lora_lab.ui.common import MERGE_TAB, as_csv, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.scripts import CLICKS, DOWNLOAD
from lora_lab.ui.words import _

TITLE = _("Interference")
OURS, PAPERS = "ours", "paper"
METHODS = [(_("Exact sum, weights 1"), EXACT), (_("Uniform, weights 1/K"), UNIFORM)]
NO_RECORDS = _("""
No merges of these adapters were measured. `lora-lab sweep published --data …` measures them; it takes hours on a small machine.
""")
NO_SETS, NOT_IN_PAPER = _("No sets of this size were measured so."), _("The paper has none of these.")

EXPLAINED = _("""
Each row is a task, each column a partner that was merged with it: the cell says how the task fares. **Light is kept, dark is
lost**. Hover for 95 % intervals; **click a cell to load that merge into the sliders**.
""")


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    findings = mixer.expectations.findings
    if findings is None:
        gr.Markdown(NO_RECORDS)
        return
    sources: dict[str, Source] = {OURS: findings, PAPERS: Paper()}
    gr.Markdown(EXPLAINED)
    with gr.Row():
        source = gr.Radio(
            [(_("Measured here"), OURS), (_("The paper's tables"), PAPERS)], value=OURS, label=_("Figures"), elem_id="source"
        )
        rank = gr.Radio([("r16", 16), ("r64", 64)], value=16, label=_("Rank"), elem_id="rank")
        method = gr.Radio(METHODS, value=EXACT, label=_("Method"), elem_id="method")
        measure = gr.Dropdown(
            [(m.title, m.name) for m in MEASURES.values()], value=RETENTION, label=_("Measure"), elem_id="measure"
        )
    controls = [source, rank, method, measure]
    with gr.Row():
        with gr.Column(min_width=340):
            heat = gr.HTML(elem_id="pairs", js_on_load=CLICKS)
        with gr.Column(scale=0, min_width=230):
            meaning = gr.Markdown()
            gr.Button(_("Picture (PNG)"), size="sm").click(None, js=DOWNLOAD.format(name="pairs"))
            csv = gr.DownloadButton(_("Figures (CSV)"), size="sm", elem_id="csv")
    _wire_pairs(sources, controls, (heat, meaning, csv), tab)
    strip = _sets(findings, controls[1:], tab)
    for chart in (heat, strip):
        _loads(chart, mixer, tabs)
    with gr.Accordion(_("A pair's weights: where both fare well"), open=False):
        grid_view.build(findings, mixer, tab)
    with gr.Accordion(_("From the weights alone, without an image"), open=False):
        weights_view.build(findings, tab)


def _wire_pairs(sources: dict[str, Source], controls: list, outputs: tuple, tab: gr.Tab) -> None:
    def show(source: str, rank: int, method: str, measure: str) -> tuple:
        chosen, what = sources[source], MEASURES[measure]
        frame = table(chosen, pair_merges(chosen, rank, method), what)
        svg = pairs_svg(chosen, rank, method, what) if len(frame) else f'<p class="ll-note">{NOT_IN_PAPER}</p>'
        return svg, f"**{what.title}**: {what.meaning}.", as_csv(frame, f"{source}-{measure}-r{rank}-{method}")

    gr.on(
        [tab.select, *(control.change for control in controls)],
        show,
        controls,
        list(outputs),
        show_progress="hidden",
        api_visibility="private",
    )


def _sets(findings: Findings, controls: list, tab: gr.Tab) -> gr.HTML:
    with gr.Accordion(_("Larger sets"), open=True):
        with gr.Row():
            size = gr.Radio([3, 4, 5, 6], value=6, label=_("Adapters"), elem_id="size")
            csv = gr.DownloadButton(_("Figures (CSV)"), size="sm", scale=0)
        strip = gr.HTML(elem_id="sets", js_on_load=CLICKS)

    def show(size: int, rank: int, method: str, measure: str) -> tuple:
        merges, what = findings.sets(rank, method, size), MEASURES[measure]
        svg = sets_svg(findings, merges, what) if merges else f'<p class="ll-note">{NO_SETS}</p>'
        return svg, as_csv(table(findings, merges, what), f"sets-of-{size}-{measure}-r{rank}-{method}")

    values = [size, *controls]
    gr.on(
        [tab.select, *(v.change for v in values)], show, values, [strip, csv], show_progress="hidden", api_visibility="private"
    )
    return strip


def _loads(chart: gr.HTML, mixer: Mixer, tabs: gr.Tabs) -> None:
    def load(event: gr.EventData) -> list[Any]:
        with shown():
            recipe = MergeRecipe.parse(event.merge, mixer.lab.backbone.name)
        return [gr.Tabs(selected=MERGE_TAB), *mixer.rows(recipe)]

    event = chart.click(load, None, [tabs, *mixer.shown], show_progress="hidden", api_visibility="private")
    mixer.follow(event)

"""The tab *Interference*: which adapters disturb which, measured and from the weights alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from lora_lab.findings import EXACT, MEASURES, RETENTION, Findings, Source
from lora_lab.forecast import findings_in
from lora_lab.heatmaps import method_title, pair_merges, pairs_svg, sets_svg, table
from lora_lab.merging import MergeRecipe
from lora_lab.paper import Paper
from lora_lab.records import LONG, SHORT, TRAININGS
from lora_lab.ui import frontier_view, grid_view, weights_view
from lora_lab.ui.common import MERGE_TAB, as_csv, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.scripts import CLICKS, DOWNLOAD
from lora_lab.ui.takeaway_panel import checked
from lora_lab.ui.words import _

TITLE = _("Interference")
OURS, PAPERS = "ours", "paper"
NO_RECORDS = _("""
No merges of these adapters were measured. `lora-lab sweep published --data …` measures them; it takes hours on a small machine.
""")
NO_SETS, NOT_MEASURED = _("No sets of this size were measured so."), _("None of these was measured.")

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
    there = {name: findings_in(folder, findings.backbone) for name, folder in TRAININGS.items() if name != LONG}
    shelf = Shelf({LONG: findings, **there}, Paper())
    gr.Markdown(EXPLAINED)
    controls = _controls(shelf)
    with gr.Row():
        with gr.Column(min_width=340):
            heat = gr.HTML(elem_id="pairs", js_on_load=CLICKS)
        with gr.Column(scale=0, min_width=230):
            meaning = gr.Markdown()
            gr.Button(_("Picture (PNG)"), size="sm").click(None, js=DOWNLOAD.format(name="pairs"))
            csv = gr.DownloadButton(_("Figures (CSV)"), size="sm", elem_id="csv")
    _wire_pairs(shelf, controls, (heat, meaning, csv), tab)
    strip = _sets(shelf, controls, tab)
    for chart in (heat, strip):
        _loads(chart, mixer, tabs)
    with gr.Accordion(_("Stronger alone, or better merged"), open=False):
        frontier_view.build(tab)
    with gr.Accordion(_("A pair's weights: where both fare well"), open=False):
        grid_view.build(findings, mixer, tab)
    with gr.Accordion(_("From the weights alone, without an image"), open=False):
        weights_view.build(findings, tab)


@dataclass(frozen=True)
class Shelf:
    """Where the figures come from: our records by how long the adapters were trained, and the paper's tables."""

    ours: Mapping[str, Findings]
    paper: Paper

    def source(self, name: str, training: str) -> Source:
        """The paper's tables, which know no training of ours, or our records."""
        return self.paper if name == PAPERS else self.ours[training]

    def methods(self, training: str, rank: int) -> list[tuple[str, str]]:
        """Titles and names of the methods by which all pairs were measured."""
        return [(method_title(name), name) for name in self.ours[training].methods(rank)]


class Controls(NamedTuple):
    """What the figures hang on, and what asks for them anew: other values, and the methods offered after them."""

    values: list[Any]
    changed: list[Any]
    offered: Any

    def ask(self, show: Callable[..., tuple], outputs: list[Any], events: list[Any], first: Sequence[Any] = ()) -> None:
        """Call `show` with `first` and the values whenever one of them, or one of the events, asks for it."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        given = [*first, *self.values]
        gr.on([*events, *self.changed, *(value.change for value in first)], show, given, outputs, **quiet)
        # Not at the change itself, when the method may be one that is not offered any more.
        self.offered.then(show, given, outputs, **quiet)


def _controls(shelf: Shelf) -> Controls:
    with gr.Row():
        source = gr.Radio(
            [(_("Measured here"), OURS), (_("The paper's tables"), PAPERS)], value=OURS, label=_("Figures"), elem_id="source"
        )
        training = gr.Radio(
            [(_("long"), LONG), (_("short"), SHORT)], value=LONG, label=_("Training of the adapters"), elem_id="training"
        )
        rank = gr.Radio([("r16", 16), ("r64", 64)], value=16, label=_("Rank"), elem_id="rank")
        method = gr.Dropdown(shelf.methods(LONG, 16), value=EXACT, label=_("Method"), elem_id="method")
        measure = gr.Dropdown(
            [(m.title, m.name) for m in MEASURES.values()], value=RETENTION, label=_("Measure"), elem_id="measure"
        )

    def offer(source: str, training: str, rank: int, method: str) -> Any:
        offered = [one for one in shelf.methods(training, rank) if source == OURS or one[1] == EXACT]
        kept = method if method in [name for _title, name in offered] else next((name for _title, name in offered), EXACT)
        return gr.update(choices=offered, value=kept)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    offered = gr.on([source.input, training.input, rank.input], offer, [source, training, rank, method], method, **quiet)
    return Controls([source, training, rank, method, measure], [method.change, measure.change], offered)


def _wire_pairs(shelf: Shelf, controls: Controls, outputs: tuple, tab: gr.Tab) -> None:
    def show(source: str, training: str, rank: int, method: str, measure: str) -> tuple:
        chosen, what = shelf.source(source, training), MEASURES[measure]
        frame = table(chosen, pair_merges(chosen, rank, method), what)
        # What was trained for short is served no more, so nothing of it can be loaded.
        loads = source == PAPERS or training == LONG
        svg = pairs_svg(chosen, rank, method, what, loads) if len(frame) else f'<p class="ll-note">{NOT_MEASURED}</p>'
        name = f"{source}-{training}-{measure}-r{rank}-{method.partition('(')[0]}"
        return svg, f"**{what.title}**: {what.meaning}.", as_csv(frame, name)

    controls.ask(show, list(outputs), [tab.select])


def _sets(shelf: Shelf, controls: Controls, tab: gr.Tab) -> gr.HTML:
    with gr.Accordion(_("Larger sets"), open=True):
        with gr.Row():
            size = gr.Radio([3, 4, 5, 6], value=6, label=_("Adapters"), elem_id="size")
            csv = gr.DownloadButton(_("Figures (CSV)"), size="sm", scale=0)
        strip = gr.HTML(elem_id="sets", js_on_load=CLICKS)

    def show(size: int, _source: str, training: str, rank: int, method: str, measure: str) -> tuple:
        findings, what = shelf.ours[training], MEASURES[measure]
        merges = findings.sets(rank, method, size)
        loads = training == LONG
        svg = sets_svg(findings, merges, what, loads) if merges else f'<p class="ll-note">{NO_SETS}</p>'
        name = f"sets-of-{size}-{training}-{measure}-r{rank}-{method.partition('(')[0]}"
        return svg, as_csv(table(findings, merges, what), name)

    controls.ask(show, [strip, csv], [tab.select], [size])
    return strip


def _loads(chart: gr.HTML, mixer: Mixer, tabs: gr.Tabs) -> None:
    def load(event: gr.EventData) -> list[Any]:
        with shown():
            text = str(event.merge)
            recipe = MergeRecipe.from_json(text) if text.startswith("{") else MergeRecipe.parse(text, mixer.lab.backbone.name)
            checked(mixer.lab, recipe)
        return [gr.Tabs(selected=MERGE_TAB), *mixer.rows(recipe)]

    event = chart.click(load, None, [tabs, *mixer.shown], show_progress="hidden", api_visibility="private")
    mixer.follow(event)

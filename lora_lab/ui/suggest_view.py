"""Suggested weights: from the records, from photos, or from labelled images; how tasks fare before and after."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from lora_lab.composition.zipped import read_zip
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, Sight
from lora_lab.merging.base import nobody
from lora_lab.nearness import Figure
from lora_lab.sights import Pictures, sight_of
from lora_lab.suggestions import SUGGESTERS, Question, Suggestion
from lora_lab.tasks import Head, Task
from lora_lab.tasks.base import Framing
from lora_lab.ui.common import MERGE_TAB, shown
from lora_lab.ui.expectations import BASES
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import STOPPED, Running, StoppedError
from lora_lab.ui.words import _

MOST_LABELLED = 200
NOTHING_BETTER = _("Nothing better was found; the weights that are set stay.")
UNITS: Mapping[tuple[bool, str], str] = {
    (False, "macro_f1"): _("% macro F1"),
    (False, "accuracy"): _("% right"),
    (False, "rmse"): _("years RMSE"),
    (False, "mae"): _("years off"),
    (False, "nme"): _("% NME"),
    (True, "accuracy"): _("% as alone"),
    (True, "mae"): _("years from alone"),
    (True, "nme"): _("% of the eyes' distance from alone"),
}
"""What a metric is called, by whether it compares with what the adapter says alone on the same images."""

EXPLAINED = _("""
### Suggest weights
For the adapters that are on. *Photos* are those on the left. *Labelled images* are a zip with a folder of images for each class
of **one** task that is on, named as its classes are; the other tasks are held near to what their adapters say alone.
""")

Tell = Callable[[float, str], None]
Look = Callable[[Sequence[str], Tell], Pictures]


def build(mixer: Mixer, tabs: gr.Tabs, photos: gr.File, look: Look, running: Running) -> None:
    """Lay out the view and wire it; `look` reads photos."""
    gr.Markdown(EXPLAINED)
    source = gr.Radio(
        [(s.title, s.name) for s in SUGGESTERS.values()], value="records", label=_("From"), elem_id="suggest-from"
    )
    archive = gr.File(label=_("Labelled images (zip)"), file_types=[".zip"], height=120, elem_id="suggest-zip")
    suggest = gr.Button(_("Suggest weights"), elem_id="suggest")
    table = gr.HTML(elem_id="suggested")
    use = gr.Button(_("Use these weights"), variant="primary", visible=False, elem_id="use-suggested")
    kept = gr.State(None, time_to_live=3600)

    # Gradio hands in what it has itself only before the values.
    def run(request: gr.Request, progress: gr.Progress = gr.Progress(), *given: Any) -> tuple:  # noqa: B008
        source, paths, archive, *values = given
        with shown(), running.work(request, progress) as tell:
            try:
                found = suggested(mixer, (source, paths, archive), mixer.recipe(values), look, tell)
            except StoppedError:
                return f'<p class="ll-note">{STOPPED}</p>', gr.update(visible=False), None
        return table_of(found, mixer.lab.tasks()), gr.update(visible=found.better), found.recipe.model_dump_json()

    given = [source, photos, archive, *mixer.values]
    suggest.click(run, given, [table, use, kept], concurrency_limit=1, api_visibility="private")

    def load(text: str | None) -> list[Any]:
        with shown():
            if text is None:
                raise LoraLabError(_("the suggestion is too old: ask for a new one"))
            return [gr.Tabs(selected=MERGE_TAB), *mixer.rows(MergeRecipe.model_validate_json(text))]

    event = use.click(load, kept, [tabs, *mixer.shown], show_progress="hidden", api_visibility="private")
    mixer.follow(event)


def suggested(
    mixer: Mixer, given: tuple[str, Any, str | None], recipe: MergeRecipe | None, look: Look, tell: Tell
) -> Suggestion:
    """A suggestion for a recipe; `given` holds the name of the way, the photos' paths and the zip's. Raises `LoraLabError`."""
    name, paths, archive = given
    if recipe is None:
        raise LoraLabError(_("every adapter is switched off: switch on those that weights are wanted for"))
    suggester, lab = SUGGESTERS[name], mixer.lab
    tell(0.0, suggester.title)
    sight = None
    if suggester.needs == "images":
        sight = sight_of(lab.serving, lab.heads(recipe), look(paths or [], tell), tell)
    if suggester.needs == "labels":
        sight = labelled(lab, lab.heads(recipe), archive, tell)
    forecast = mixer.expectations.forecast if suggester.needs == "records" else None
    return suggester.suggest(Question(lab, recipe, forecast, sight, tell))


def labelled(lab: Lab, heads: Sequence[Head], archive: str | None, tell: Tell = nobody) -> Sight:
    """What each head looks at in the images of a zip, with labels for the task whose classes its folders are.

    Raises `DataError` for what is no such zip, and `LoraLabError` where its folders are no task's classes.
    """
    if archive is None:
        raise LoraLabError(_("there is no zip yet: send one with a folder of images for each class"))
    pixels: dict[Framing, torch.Tensor] = {}
    framings: dict[Framing, None] = dict.fromkeys(head.task.framing for head in heads)
    for framing in framings:
        tell(0.0, _("reading {file}").format(file=Path(archive).name))
        folders, crops = read_zip(Path(archive), lab.serving.image_size, framing)
        rows = np.random.default_rng(0).permutation(len(crops))[:MOST_LABELLED]
        raw = torch.from_numpy(crops.pixels[rows]).to(lab.serving.device).permute(0, 3, 1, 2).float() / 255
        pixels[framing] = lab.serving.normalise(raw)
    task, places = task_with(folders.labels, [head.task for head in heads])
    labels = {task.name: torch.tensor(places)[torch.from_numpy(crops.targets[rows])].to(lab.serving.device)}
    by_name = {head.task.name: head for head in heads}
    return Sight(lab.serving, {name: pixels[head.task.framing] for name, head in by_name.items()}, by_name, labels, tell)


def task_with(classes: Sequence[str], tasks: Sequence[Task]) -> tuple[Task, list[int]]:
    """The task that has all these classes, however they are written, and the place of each among its labels."""
    for task in tasks:
        known = {_plain(label): place for place, label in enumerate(task.labels)}
        if all(_plain(name) in known for name in classes):
            return task, [known[_plain(name)] for name in classes]
    there = "; ".join(f"{task.title}: {', '.join(task.labels)}" for task in tasks if task.labels) or _("none")
    told = _("the folders {folders} are the classes of no task that is on; name them as these do: {there}")
    raise LoraLabError(told.format(folders=", ".join(classes), there=there))


def _plain(label: str) -> str:
    return "".join(sign for sign in label.lower().replace("–", "-") if sign not in " _-")


def table_of(suggestion: Suggestion, tasks: Mapping[str, Task]) -> str:
    """What was found, and how each task fares before and after, as HTML."""
    before = suggestion.before
    rows = [
        f'<tr data-suggested="{escape(name)}"><th>{escape(tasks[name].title)}</th>'
        f"<td>{_cell(before[name])}</td><td>{_cell(after)}</td></tr>"
        for name, after in suggestion.after.items()
    ]
    head = "".join(f"<th>{words}</th>" for words in ("", _("before"), _("after")))
    words = _words(suggestion) if suggestion.better else f'<p class="ll-note">{NOTHING_BETTER}</p>'
    return f'<section class="ll-expected">{words}<table><tr>{head}</tr>{"".join(rows)}</table></section>'


def _words(suggestion: Suggestion) -> str:
    factor = _("× a factor a layer")
    parts = [
        f"{escape(a.name)} <b>{a.weight:g}</b>" + (f" <small>{factor}</small>" if a.layers else "")
        for a in suggestion.recipe.adapters
    ]
    return f"<p>{escape(suggestion.recipe.method)}: {', '.join(parts)}</p>"


def _cell(figure: Figure) -> str:
    if figure.score is None:
        return "–"
    unit = UNITS.get((figure.basis == "own answers", figure.metric), figure.metric)
    return f"<b>{figure.score.text()}</b> <small>{escape(unit)}, {BASES[figure.basis]}</small>"

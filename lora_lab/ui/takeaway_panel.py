"""The tab *Take away*: the merge as link, JSON, code and files; a history with notes; and photos as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.drawing import draw, preview
from lora_lab.errors import LoraLabError
from lora_lab.exports import Exported, export_adapter, export_full, zipped
from lora_lab.lab import Lab
from lora_lab.links import PARAMETER, link, snippet, with_off
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.tables import answers_table, sent_names, write_csv
from lora_lab.ui.common import MERGE_TAB, fresh_folder, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import STOPPED, Running, StoppedError
from lora_lab.ui.words import _

TITLE = _("Take away")
EXACT, CUT, FULL = "exact", "cut", "full"
KINDS = [
    (_("An adapter for peft, nothing lost"), EXACT),
    (_("An adapter for peft, of a smaller rank"), CUT),
    (_("The whole merged backbone with its heads"), FULL),
]
MOST_KEPT = 50
STORE = "lora-lab-history"
NOTHING = _("every adapter is switched off: switch on those that should be merged")

SHARED = _("""
**A link brings the same merge back**, on any LoRA Lab with these adapters: methods, weights, ranks, knobs and seed. It holds
**no photo**, and nothing that was read from one. A merge that you made with photos of your own (*saved:*…) is on this machine
alone; take it away as a file instead.
""")


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    gr.Markdown(SHARED)
    with gr.Row():
        with gr.Column(min_width=340):
            _share(mixer, tabs, tab)
        with gr.Column(min_width=320):
            _files(mixer)
            _photos(mixer)
            _history(mixer, tabs)


def _share(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    address = gr.Textbox(label=_("Link"), buttons=["copy"], interactive=False, elem_id="link")
    as_json = gr.Code(label=_("Recipe"), language="json", interactive=False, elem_id="recipe-json", max_lines=16)
    code = gr.Code(label=_("In Python"), language="python", interactive=False, elem_id="recipe-code", max_lines=16)
    with gr.Row():
        given = gr.Textbox(label=_("Load a link or a recipe"), placeholder=_("a link, its code, or JSON"), elem_id="recipe-in")
        load = gr.Button(_("Load"), scale=0, min_width=80, elem_id="recipe-load")

    def tell(request: gr.Request, *rows: Any) -> tuple[str, str, str]:
        recipe = mixer.recipe(rows)
        if recipe is None:
            return "", "", f"# {NOTHING}"
        page = request.headers.get("referer") or f"http://{request.headers.get('host', 'localhost')}/"
        with shown():
            return link(page, recipe, mixer.off(rows)), recipe.model_dump_json(indent=1), snippet(recipe)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on([tab.select, *(value.change for value in mixer.values)], tell, mixer.values, [address, as_json, code], **quiet)

    def take(text: str) -> list[Any]:
        with shown():
            recipe, off = read(text)
            return [gr.Tabs(selected=MERGE_TAB), *mixer.rows(checked(mixer.lab, recipe), off)]

    mixer.follow(gr.on([load.click, given.submit], take, given, [tabs, *mixer.shown], **quiet))

    def arrive(request: gr.Request) -> list[Any]:
        sent = request.query_params.get(PARAMETER)
        if not sent:
            return [gr.skip() for _ in mixer.shown]
        with shown():
            recipe, off = with_off(sent)
            return mixer.rows(checked(mixer.lab, recipe), off)

    # Of a page that was opened by a link, once the adapters in it have their cards.
    mixer.follow(mixer.joined.then(arrive, None, mixer.shown, **quiet), begins=True)


def _files(mixer: Mixer) -> None:
    gr.Markdown(_("### The merge as files"))
    kind = gr.Radio(KINDS, value=EXACT, label=_("What"), elem_id="export-kind")
    rank = gr.Slider(1, 384, 32, step=1, label=_("Rank"), visible=False, elem_id="export-rank")
    make = gr.Button(_("Make the zip"), variant="primary", elem_id="export")
    told = gr.Markdown(elem_id="export-told")
    file = gr.File(label=_("Zip"), visible=False, elem_id="export-file")
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    kind.change(lambda chosen: gr.update(visible=chosen == CUT), kind, rank, queue=False, **quiet)

    def export(chosen: str, rank: int, *rows: Any) -> tuple[str, Any]:
        recipe = mixer.recipe(rows)
        with shown():
            if recipe is None:
                raise LoraLabError(NOTHING)
            folder = fresh_folder() / "lora-lab-merge"
            if chosen == FULL:
                done, words = export_full(mixer.lab, recipe, folder), _("The whole backbone, merged, with its heads.")
            else:
                done = export_adapter(mixer.lab, recipe, folder, rank=int(rank) if chosen == CUT else None)
                words = told_of(done)
            return words, gr.update(value=str(zipped(folder)), visible=True)

    make.click(export, [kind, rank, *mixer.values], [told, file], concurrency_limit=1, api_visibility="private")


def told_of(done: Exported) -> str:
    """The rank of an adapter that was written, and what was lost on the way, in words."""
    told = _("An adapter of rank **{rank}**; lost on the way: **{loss:.1%}** of the change to the weights")
    told = told.format(rank=done.rank, loss=done.loss)
    if done.output_loss is None:
        return f"{told}."
    put_out = _("**{loss:.1%}** of what they put out for inputs like those of the adapters' training.")
    return f"{told}, {put_out.format(loss=done.output_loss)}"


def _photos(mixer: Mixer) -> None:
    gr.Markdown(_("### Photos as a table, and the drawn photo"))
    running = Running()
    photos = gr.File(label=_("Photos"), file_count="multiple", file_types=["image"], height=120, elem_id="table-photos")
    with gr.Row():
        make = gr.Button(_("Make the table"), elem_id="table-make")
        cancel = gr.Button(_("Cancel"), elem_id="table-cancel")
        paint = gr.Button(_("Draw the photo as PNG"), elem_id="png-make")
    told = gr.Markdown(elem_id="table-told")
    file = gr.File(label=_("File"), visible=False, elem_id="table-file")

    # Gradio hands in what it has itself only before the values.
    def table(request: gr.Request, progress: gr.Progress = gr.Progress(), *given: Any) -> tuple[str, Any]:  # noqa: B008
        paths, *rows = given
        with shown(), running.work(request, progress) as tell:
            recipe = mixer.recipe(rows)
            if recipe is None or not paths:
                raise LoraLabError(NOTHING if recipe is None else _("there are no photos yet: drop some first"))
            try:
                files = [Path(path) for path in paths]
                found = answers_table(mixer.lab, recipe, files, tell, sent_names(files))
            except StoppedError:
                return STOPPED, gr.skip()
            path = fresh_folder() / "lora-lab-answers.csv"
            write_csv(found, path)
            words = _("{answers} answers about {photos} photos.").format(answers=len(found), photos=len(paths))
            return words, gr.update(value=str(path), visible=True)

    def picture(path: str | None, *rows: Any) -> Any:
        recipe = mixer.recipe(rows)
        with shown():
            if recipe is None or path is None:
                raise LoraLabError(NOTHING if recipe is None else _("there is no photo yet: drop one in the tab Merge"))
            return gr.update(value=str(annotated(mixer.lab, Path(path), recipe)), visible=True)

    make.click(table, [photos, *mixer.values], [told, file], concurrency_limit=1, api_visibility="private")
    cancel.click(running.stop, None, None, queue=False, api_visibility="private")
    paint.click(picture, [mixer.photo, *mixer.values], file, api_visibility="private")


def _history(mixer: Mixer, tabs: gr.Tabs) -> None:
    gr.Markdown(_("### Merges kept in this browser"))
    kept = gr.BrowserState([], storage_key=STORE)
    with gr.Row():
        note = gr.Textbox(label=_("Note"), placeholder=_("what it is good for"), elem_id="note")
        keep = gr.Button(_("Keep"), scale=0, min_width=80, elem_id="note-keep")
    with gr.Row():
        chosen = gr.Dropdown([], label=_("Kept"), elem_id="notes")
        load = gr.Button(_("Load"), scale=0, min_width=80, elem_id="note-load")
        forget = gr.Button(_("Forget"), scale=0, min_width=80, elem_id="note-forget")
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def add(kept: list[dict[str, str]], note: str, *rows: Any) -> tuple[list[dict[str, str]], Any, str]:
        recipe = mixer.recipe(rows)
        with shown():
            if recipe is None:
                raise LoraLabError(NOTHING)
        kept = noted(kept, note, recipe)
        return kept, gr.update(choices=titles(kept), value=kept[0]["note"]), ""

    def take(kept: list[dict[str, str]], title: str | None) -> list[Any]:
        with shown():
            recipe = checked(mixer.lab, read(found(kept, title)["recipe"])[0])
        return [gr.Tabs(selected=MERGE_TAB), *mixer.rows(recipe)]

    def drop(kept: list[dict[str, str]], title: str | None) -> tuple[list[dict[str, str]], Any]:
        with shown():
            rest = [one for one in kept if one is not found(kept, title)]
        return rest, gr.update(choices=titles(rest), value=None)

    keep.click(add, [kept, note, *mixer.values], [kept, chosen, note], **quiet)
    mixer.follow(load.click(take, [kept, chosen], [tabs, *mixer.shown], **quiet))
    forget.click(drop, [kept, chosen], [kept, chosen], **quiet)
    # At load, and whenever the history changes: what was just chosen stays chosen.
    gr.on(None, lambda kept: gr.update(choices=titles(kept or [])), kept, chosen, **quiet)


def read(text: str) -> tuple[MergeRecipe, tuple[RecipeAdapter, ...]]:
    """A recipe from a link, the code in it, or JSON, and the adapters that are off beside it. Raises `DataError`."""
    text = text.strip()
    if text.startswith("{"):
        return MergeRecipe.from_json(text), ()
    _before, found, code = text.partition(f"{PARAMETER}=")
    return with_off((code if found else text).partition("&")[0])


def checked(lab: Lab, recipe: MergeRecipe) -> MergeRecipe:
    """A recipe that the page can show: its backbone, adapters and method are here. Raises `LoraLabError`."""
    lab.members(recipe)
    method = lab.merger.methods[recipe.method]
    if method.needs in ("images", "labels", "task id"):
        told = _("{method} needs {needs}: make this merge in the tab With photos")
        raise LoraLabError(told.format(method=method.title, needs=method.needs))
    return recipe


def annotated(lab: Lab, path: Path, recipe: MergeRecipe) -> Path:
    """The photo with boxes and points drawn on it, as a PNG file."""
    photo = lab.photo(path)
    small = preview(photo.image)
    target = fresh_folder() / "lora-lab-photo.png"
    draw(small, small.width / photo.width, lab.predict(photo, recipe).prediction).save(target)
    return target


def noted(kept: Sequence[dict[str, str]], note: str, recipe: MergeRecipe) -> list[dict[str, str]]:
    """The history with one more merge in front; one of the same note gives way."""
    title = note.strip() or f"{recipe.method}: {recipe.title}"
    rest = [one for one in kept if titles([one]) != [title]]
    return [{"note": title, "recipe": recipe.model_dump_json()}, *rest][:MOST_KEPT]


def titles(kept: Sequence[dict[str, str]]) -> list[str]:
    """The notes of a history."""
    return [one["note"] for one in kept if isinstance(one, dict) and isinstance(one.get("note"), str)]


def found(kept: Sequence[dict[str, str]], title: str | None) -> dict[str, str]:
    """The entry of a note. Raises `LoraLabError`."""
    for one in kept:
        if title is not None and titles([one]) == [title] and isinstance(one.get("recipe"), str):
            return one
    raise LoraLabError(_("choose one of the merges that are kept"))

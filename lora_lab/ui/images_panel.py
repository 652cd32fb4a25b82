"""The tab *With photos*: merges by methods that must look at images, on photos that anybody drops here."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeMethod, MergeRecipe
from lora_lab.owners import MOST, room_for
from lora_lab.recent import Recent
from lora_lab.repairs import REPAIRS
from lora_lab.saved_merges import check_name
from lora_lab.sights import Pictures, sight_of
from lora_lab.ui import suggest_view
from lora_lab.ui.boundary import literal
from lora_lab.ui.common import MERGE_TAB, shown
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import STOPPED, Running, StoppedError
from lora_lab.ui.visitors import changing, own_of
from lora_lab.ui.words import _, _n

TITLE = _("With photos")
MOST_PHOTOS = 200
FIRST = "iteris"
NO_REPAIR = "none"
NO_PHOTOS = _("There are no photos yet: drop some above.")

EXPLAINED = _("""
The strongest methods **look at images** while they merge. They need no labels, only a few dozen photos of the kind that the
heads will see. Drop up to {most}; faces in them are found by themselves. The merge is kept under a name for **this browser
alone**, at most {merges} of them, and stands among the methods of the tab *Merge* from then on. The photos are not kept.
""").format(most=MOST_PHOTOS, merges=MOST)
ELSEWHERE = _(
    "On this server no merge is kept; weights can be suggested. Run LoRA Lab on your own machine to merge with photos."
)

Tell = Callable[[float, str], None]


def build(mixer: Mixer, tabs: gr.Tabs, tab: gr.Tab) -> None:
    """Lay out the tab and wire it."""
    lab, seen, running = mixer.lab, Recent[tuple[str, ...], Pictures](2), Running()
    gr.Markdown(EXPLAINED)
    with gr.Row():
        with gr.Column(min_width=320):
            photos = gr.File(label=_("Photos"), file_count="multiple", file_types=["image"], height=200, elem_id="photos")
            found = gr.Markdown(NO_PHOTOS, elem_id="photos-found")
            given, (merge, cancel, drop) = _wishes(mixer)
            report = gr.Markdown(elem_id="photos-report")
        with gr.Column(min_width=360):
            look = partial(pictures_of, lab, seen)
            suggest_view.build(mixer, tabs, photos, look, running)

    def count(request: gr.Request, paths: list[str] | None, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        if not paths:
            return NO_PHOTOS
        with shown(), running.work(request, progress) as tell:
            try:
                return counted(look(paths, tell))
            except StoppedError:
                return STOPPED

    photos.change(count, photos, found, concurrency_limit=1, api_visibility="private")
    _wire_merge((mixer, look, running), tabs, merge, [photos, *given], report)

    def remove(name: str) -> str:
        with shown():
            changing(lab).merger.forget(name.strip().lower())
        return _("Removed **{name}**.").format(name=literal(name.strip().lower()))

    drop.click(remove, given[-1], report, concurrency_limit=1, api_visibility="private")
    cancel.click(running.stop, None, None, queue=False, api_visibility="private")


def _wishes(mixer: Mixer) -> tuple[list[Any], tuple[gr.Button, gr.Button, gr.Button]]:
    """What a merge is wished like, its name last, and the buttons that start, end and remove one."""
    if not mixer.changes:
        gr.Markdown(ELSEWHERE)
    with gr.Column(visible=mixer.changes):
        method = gr.Dropdown(methods_of(mixer.lab), label=_("Method"), elem_id="photos-method")
        repair = gr.Dropdown(repairs(), value=NO_REPAIR, label=_("Repair of the features"), elem_id="photos-repair")
        full = gr.Checkbox(True, label=_("Every adapter at weight 1, wherever its slider stands"), elem_id="photos-full")
        name = gr.Textbox(label=_("Name"), placeholder=_("one is made up where this is empty"), elem_id="photos-name")
        with gr.Row():
            merge = gr.Button(_("Merge"), variant="primary", elem_id="photos-merge")
            cancel = gr.Button(_("Cancel"), elem_id="photos-cancel")
            drop = gr.Button(_("Remove"), elem_id="photos-remove")
    return [method, repair, full, name], (merge, cancel, drop)


def _wire_merge(work: tuple, tabs: gr.Tabs, merge: gr.Button, given: list, report: gr.Markdown) -> None:
    mixer, look, running = work

    # Gradio hands in what it has itself only before the values.
    def run(request: gr.Request, progress: gr.Progress = gr.Progress(), *given: Any) -> list[Any]:  # noqa: B008
        paths, method, repair, full, name, *values = given
        with shown(), running.work(request, progress) as tell:
            own = own_of(mixer.lab)
            wish = wished(mixer.recipe(values), method, None if repair == NO_REPAIR else repair, full)
            try:
                with room_for(own, "merges"):
                    kept = merged(mixer.lab, wish, free_name(mixer.lab, name, method), look(paths or [], tell), tell)
            except StoppedError:
                return [STOPPED, gr.skip(), *(gr.skip() for _ in mixer.shown)]
        words = _("Kept as **{method}**; the tab *Merge* shows it.").format(method=literal(kept.method))
        return [words, gr.Tabs(selected=MERGE_TAB), *mixer.rows(kept)]

    values, outputs = [*given, *mixer.values], [report, tabs, *mixer.shown]
    event = merge.click(run, values, outputs, concurrency_limit=1, api_visibility="private")
    mixer.follow(event)


def methods_of(lab: Lab) -> list[tuple[str, str]]:
    """Titles and names of the methods that look at images without labels, IterIS first."""
    methods: list[MergeMethod] = [m for m in lab.merger.methods.values() if m.needs == "images" and m.family != "bound"]
    return [(method.title, method.name) for method in sorted(methods, key=lambda method: method.name != FIRST)]


def repairs() -> list[tuple[str, str]]:
    """No repair, and those that need no labels."""
    return [(_("None"), NO_REPAIR), *((repair.title, repair.name) for repair in REPAIRS.values() if repair.needs == "images")]


def pictures_of(lab: Lab, seen: Recent[tuple[str, ...], Pictures], paths: Sequence[str], tell: Tell) -> Pictures:
    """The crops of photos, kept for those that were dropped lately. Raises `LoraLabError`, where there are too many as well."""
    if not paths:
        raise LoraLabError(_("there are no photos yet: drop some first"))
    if len(paths) > MOST_PHOTOS:
        told = _("{photos} photos are too many for this page: take {most} at most")
        raise LoraLabError(told.format(photos=len(paths), most=MOST_PHOTOS))
    return seen.get(tuple(paths), lambda: Pictures.read(lab.serving, [Path(path) for path in paths], tell))


def counted(pictures: Pictures) -> str:
    """How many photos and faces there are, in words."""
    photos, faces = len(pictures.squares), len(pictures.faces)
    told = _n("{number} photo", "{number} photos", photos).format(number=photos)
    return told + ", " + _n("{number} face found", "{number} faces found", faces).format(number=faces)


def wished(recipe: MergeRecipe | None, method: str, repair: str | None, full: bool) -> MergeRecipe:
    """What the sliders show, by another method; factors by layer were found for the sum and are left out."""
    if recipe is None:
        raise LoraLabError(_("every adapter is switched off: switch on those that should be merged"))
    change = {"weight": 1.0, "layers": ()} if full else {"layers": ()}
    adapters = tuple(a.model_copy(update=change) for a in recipe.adapters)
    return MergeRecipe(backbone=recipe.backbone, adapters=adapters, method=method, seed=recipe.seed, repair=repair)


def free_name(lab: Lab, name: str, method: str) -> str:
    """A name for a merge that none has yet: the one that is asked for, else one made up. Raises `LoraLabError`."""
    taken = {merge.card.name for merge in lab.merger.saved.values()}
    if not name.strip():
        return next(made for i in range(1, len(taken) + 2) if (made := f"{method}-{i}") not in taken)
    name = check_name(name.strip().lower())
    if name in taken:
        raise LoraLabError(_("there is a merge named {name} already: take another name").format(name=name))
    return name


def merged(lab: Lab, recipe: MergeRecipe, name: str, pictures: Pictures, tell: Tell) -> MergeRecipe:
    """Merge with photos and keep it; gives the recipe that brings it back. What `tell` raises ends the work."""
    sight = sight_of(lab.serving, lab.heads(recipe), pictures, tell)
    return lab.save_merge(recipe, sight, name, _("{images}, dropped on the page").format(images=counted(pictures)))

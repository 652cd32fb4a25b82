"""What programs may ask: four endpoints, over HTTP, and as tools over MCP where that is served."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
import torch
from gradio.data_classes import FileDataMeta
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta

from lora_lab.backbones import Deltas
from lora_lab.cache import whole_file
from lora_lab.cards import AdapterCard
from lora_lab.errors import DataError, LoraLabError
from lora_lab.exports import export_adapter, zipped
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of, scaled_by_layer
from lora_lab.merging import MergeRecipe
from lora_lab.repairs import REPAIRS
from lora_lab.ui.common import shown
from lora_lab.ui.words import _

MOST_RECIPES = 16
AT_ONCE = 2


class Sent(TypedDict):
    """A file that a client has sent, as gradio hands it over."""

    path: str
    meta: FileDataMeta


@dataclass(frozen=True)
class Endpoints:
    """What may be asked of a lab. Gradio and MCP show these names and docstrings to whoever calls."""

    lab: Lab

    def predict(self, photo: Sent, recipe: str = "") -> dict[str, Any]:
        """Read every head's answer about a photo from one merged model: age, emotion and landmarks of each face, and more.

        Args:
            photo: An image file of any common format.
            recipe: Adapters with weights such as "age_class=1,landmarks:r16=0.5", or a recipe as JSON; the best merge if empty.

        Returns:
            The faces with their answers, the answers about the whole photo, the recipe, and milliseconds.
        """
        with shown():
            return self.lab.predict(self.lab.photo(path_of(photo)), recipe_of(self.lab, recipe)).to_json()

    def merge(self, recipe: str = "", export: bool = False) -> tuple[dict[str, Any], Sent | None]:
        """Merge adapters, and tell what came of it.

        Args:
            recipe: Adapters with weights such as "age_class=1,landmarks:r16=0.5", or a recipe as JSON; the best merge if empty.
            export: Whether to give the merge as one adapter in peft's format as well, nothing lost; a repair is not in it.

        Returns:
            The method, what it needs, each adapter's weight, rank and norm, the norm of the merge, and milliseconds.
            A zip with the merged adapter, or nothing.
        """
        with shown():
            if not isinstance(export, bool):
                raise DataError(_("export is true or false, and this is {given!r}").format(given=export))
            asked = recipe_of(self.lab, recipe)
            return summary(self.lab, asked), exported(self.lab, asked) if export else None

    def compare(self, photo: Sent, recipes: list[str]) -> dict[str, Any]:
        """Ask several merges about the same photo, and each of their adapters alone.

        Args:
            photo: An image file of any common format.
            recipes: Recipes, each written as for predict.

        Returns:
            The answers of each merge in the order of the recipes, and those of each adapter alone by name and rank.
        """
        with shown():
            return compared(self.lab, path_of(photo), recipes)

    def adapters(self) -> list[dict[str, Any]]:
        """List the adapters that can be merged: what each answers, its ranks, its scores on val, and its terms.

        Returns:
            An entry for each adapter.
        """
        with shown():
            return listed(self.lab)


def build(lab: Lab) -> None:
    """Put the endpoints on the page that is being laid out."""
    ends = Endpoints(lab)
    for endpoint in (ends.predict, ends.merge, ends.compare, ends.adapters):
        gr.api(endpoint, concurrency_limit=AT_ONCE, concurrency_id="api")


def path_of(photo: Any) -> Path:
    """Where a photo lies that a client has sent. Raises `DataError`.

    Gradio looks only after what is marked as a file; a path without the mark might lead to any file of this machine.
    """
    if not is_file_obj_with_meta(photo):
        raise DataError(
            _('a photo is {"path": …, "meta": {"_type": "gradio.FileData"}}, the path as the upload gave it, or a URL')
        )
    return Path(photo["path"])


def recipe_of(lab: Lab, text: Any) -> MergeRecipe:
    """A recipe from JSON or from the short form, the best merge where there is none. Raises `DataError`."""
    if not isinstance(text, str):
        told = _("a recipe is a text, and this is {text!r}: write JSON into a string, or e.g. age_class=1")
        raise DataError(told.format(text=text))
    if not text.strip():
        return lab.best()
    if not text.strip().startswith("{"):
        return MergeRecipe.parse(text, lab.backbone.name)
    return MergeRecipe.from_json(text)


def summary(lab: Lab, recipe: MergeRecipe) -> dict[str, Any]:
    """What a merge is made of and what it comes to; norms are Frobenius norms over all target modules.

    An adapter's norm is that of its own delta, before the weight. A merge that must look at images is only described.
    """
    method = lab.merger.methods[recipe.method]
    needs = {method.needs} | ({REPAIRS[recipe.repair].needs} if recipe.repair else set())
    adapters = []
    for one in recipe.adapters:
        own = deltas_of(scaled_by_layer(lab.adapter(one.name, one.rank).factors, one.layers))
        adapters.append({"name": one.name, "rank": one.rank, "weight": one.weight, "norm": norm(own)})
    told = {
        "title": recipe.title,
        "key": recipe.key,
        "method": {"name": method.name, "title": method.title, "knobs": method.turned(recipe.knobs)},
        "needs": sorted(needs - {"nothing"}),
        "needs_images": bool(needs & {"images", "labels"}),
        "adapters": adapters,
        "recipe": recipe.model_dump(),
    }
    if told["needs_images"]:
        return {**told, "norm": None, "milliseconds": None}
    start = time.perf_counter()
    merged = lab.merge(recipe)
    taken = round(1e3 * (time.perf_counter() - start), 2)
    return {**told, "norm": norm(merged.deltas), "milliseconds": taken}


def norm(deltas: Deltas) -> float:
    """The Frobenius norm over all target modules."""
    return float(torch.stack([torch.zeros(()), *(delta.float().norm() for delta in deltas.values())]).norm())


def exported(lab: Lab, recipe: MergeRecipe) -> Sent:
    """A zip with a merge as one adapter that peft loads, nothing lost, where gradio deletes files once they are old."""
    place = Path(get_upload_folder()) / "merges" / f"{recipe.key}-{lab.fingerprint(recipe)}" / "adapter.zip"
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        archive = zipped(export_adapter(lab, recipe, Path(folder) / "adapter").folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as part:
            shutil.copyfile(archive, part)
    return Sent(path=str(place), meta={"_type": "gradio.FileData"})


def compared(lab: Lab, path: Path, recipes: list[str]) -> dict[str, Any]:
    """What each recipe says about a photo, and each of their adapters alone, by such as age_class:r16."""
    if not isinstance(recipes, list):
        raise DataError(_("recipes are a list of texts, and this is {given!r}").format(given=recipes))
    if not 1 <= len(recipes) <= MOST_RECIPES:
        raise LoraLabError(_("there are {number} recipes: give 1 to {most}").format(number=len(recipes), most=MOST_RECIPES))
    asked = [recipe_of(lab, text) for text in recipes]
    photo = lab.photo(path)
    merges = [lab.predict(photo, recipe).to_json() for recipe in asked]
    members = dict.fromkeys((one.name, one.rank) for recipe in asked for one in recipe.adapters)
    alone = {f"{name}:r{rank}": lab.alone(photo, name, rank).model_dump(exclude_none=True) for name, rank in members}
    return {"merges": merges, "alone": alone}


def listed(lab: Lab) -> list[dict[str, Any]]:
    """The adapters that can be merged, with only such fields as have a value."""
    by_name: dict[str, list[AdapterCard]] = {}
    for card in lab.cards():
        if card.mergeable:
            by_name.setdefault(card.name, []).append(card)
    return [_entry(cards) for cards in by_name.values()]


def _entry(cards: list[AdapterCard]) -> dict[str, Any]:
    task = cards[0].load_task()
    val = {card.variant: card.scores.get("val", {}) for card in cards}
    scores = {
        variant: {metric: score.model_dump() for metric, score in found.items() if metric in task.metrics}
        for variant, found in val.items()
    }
    told = {"labels": list(task.labels), "unit": task.unit, "points": task.points}
    return {
        "name": cards[0].name,
        "title": task.title,
        "kind": task.kind,
        "ranks": [card.rank for card in cards],
        **{name: value for name, value in told.items() if value},
        "framing": task.framing,
        "val": {variant: found for variant, found in scores.items() if found},
        "licence": cards[0].licence,
    }

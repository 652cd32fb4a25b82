"""Weights to begin with: everybody alone, the paper's triples, faces, and the whole range at once."""

from collections.abc import Mapping

from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.sweeps.plan import PAPER_TRIPLES
from lora_lab.ui.words import _

BEST = _("Best of all")
CUSTOM = _("Custom")
DECIMALS = 4


def presets(lab: Lab) -> dict[str, Mapping[str, float]]:
    """Weights by adapter, under the title of the preset; an adapter that is left out is switched off.

    An adapter at 0 changes nothing, but its head answers. Triples are those of Kesim and Helli (arXiv 2411.14064).
    """
    tasks, names = lab.tasks(), list(lab.ranks())
    faces = [name for name in names if tasks[name].framing == "face"]
    squares = [name for name in names if name not in faces]
    found: dict[str, Mapping[str, float]] = {
        _("All at 1"): dict.fromkeys(names, 1.0),
        _("All, shared evenly"): dict.fromkeys(names, 1 / len(names)),
        _("All at 0"): dict.fromkeys(names, 0.0),
    }
    for title, some in ((_("Faces, shared evenly"), faces), (_("Sky and land, shared evenly"), squares)):
        if some:
            found[title] = {name: 1 / len(some) if name in some else 0.0 for name in names}
    found |= {_("Alone: {task}").format(task=tasks[name].title): {name: 1.0} for name in names}
    for triple in PAPER_TRIPLES:
        if triple <= set(names):
            some = [name for name in names if name in triple]
            title = _("Paper's triple: {tasks}").format(tasks=", ".join(tasks[name].title for name in some))
            found[title] = dict.fromkeys(some, 1.0)
    return found


def preset_recipe(lab: Lab, title: str, now: MergeRecipe) -> MergeRecipe:
    """The recipe of a preset; method and ranks stay as they are, but for the best one, which brings its own."""
    if title == BEST:
        return lab.best()
    if title == CUSTOM:
        return now
    ranks = {name: min(there) for name, there in lab.ranks().items()} | {a.name: a.rank for a in now.adapters}
    weights = presets(lab)[title]
    adapters = tuple(RecipeAdapter(name=name, rank=ranks[name], weight=weight) for name, weight in weights.items())
    return now.model_copy(update={"adapters": adapters})


def held_as(recipe: MergeRecipe) -> str:
    """What tells whether a preset still holds: its recipe, with weights as finely as the page shows them."""
    rounded = tuple(a.model_copy(update={"weight": round(a.weight, DECIMALS)}) for a in recipe.adapters)
    return recipe.model_copy(update={"adapters": rounded}).key

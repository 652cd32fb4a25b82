"""The merge that the page shows: the method with its knobs, and a row for each adapter; the one place where it stands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from lora_lab.catalog import Catalog
from lora_lab.lab import Lab
from lora_lab.merger import Merger
from lora_lab.merging import MergeMethod, MergeRecipe, RecipeAdapter
from lora_lab.merging.recipe import HIGHEST, LOWEST
from lora_lab.ui.expectations import Expectations

DECIMALS = 4
FOLLOWS, EXACT, SAVED = "regmean", "exact", "saved"


class Slot:
    """The row of one adapter."""

    def __init__(self, name: str, title: str, ranks: Sequence[int], weight: float):
        self.name = name
        with gr.Row(elem_classes="ll-slot"):
            self.on = gr.Checkbox(True, label="on", container=False, scale=0, min_width=56, elem_id=f"on-{name}")
            self.weight = gr.Slider(LOWEST, HIGHEST, weight, step=0.01, label=title, min_width=200, elem_id=f"weight-{name}")
            self.rank = gr.Dropdown(
                [(f"r{rank}", rank) for rank in ranks],
                value=ranks[0],
                label="rank",
                scale=0,
                min_width=104,
                interactive=len(ranks) > 1,
                elem_id=f"rank-{name}",
            )


class MethodRow:
    """The method, its knobs and the seed. Knobs stand in as many sliders as any method has; the rest of them are hidden."""

    def __init__(self, merger: Merger, start: MergeRecipe):
        self._merger = merger
        chosen = self._methods[start.method]
        with gr.Row():
            self.name = gr.Dropdown(self.choices, value=chosen.name, label="Method", elem_id="merge-method")
            self.seed = gr.Number(start.seed, precision=0, label="Seed", scale=0, min_width=90, visible=False, elem_id="seed")
        self.about = gr.Markdown(about(chosen), elem_id="about-method")
        most = max(len(method.knobs) for method in self._methods.values() if usable(method))
        with gr.Row():
            self.knobs = [gr.Slider(0, 1, 0, min_width=150, visible=False, elem_id=f"knob-{i}") for i in range(most)]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Titles and names of the methods that follow the sliders, merges that were kept lately among them."""
        return [(method.title, method.name) for method in self._methods.values() if usable(method)]

    @property
    def values(self) -> list[Any]:
        """The components that say the method, in the order of `shown` and of what `read` takes."""
        return [self.name, self.seed, *self.knobs]

    @property
    def shows(self) -> list[Any]:
        """The components that `shown` updates."""
        return [*self.values, self.about]

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The fields of a recipe; a slider that still stands as another method had it counts as at its default."""
        name, seed, *numbers = values
        knobs = {}
        for knob, number in zip(self._methods[name].knobs, numbers, strict=False):
            if number is not None and knob.low <= number <= knob.high and number != knob.default:
                knobs[knob.name] = float(number)
        return {"method": name, "seed": int(seed or 0), "knobs": knobs}

    def shown(self, recipe: MergeRecipe) -> list[Any]:
        """Updates of `shows`, for a recipe."""
        method = self._methods[recipe.method]
        seed = gr.update(value=recipe.seed, visible="seed" not in method.laws)
        updates: list[Any] = [gr.update(value=method.name, choices=self.choices), seed]
        for place in range(len(self.knobs)):
            if place >= len(method.knobs):
                updates.append(gr.update(visible=False))
                continue
            knob = method.knobs[place]
            step = knob.step or round((knob.high - knob.low) / 100, DECIMALS)
            value = recipe.knobs.get(knob.name, knob.default)
            updates.append(
                gr.update(
                    minimum=knob.low,
                    maximum=knob.high,
                    step=step,
                    value=value,
                    label=knob.title,
                    info=knob.meaning,
                    visible=True,
                )
            )
        return [*updates, about(method)]

    @property
    def _methods(self) -> Catalog[MergeMethod]:
        return self._merger.methods


def about(method: MergeMethod) -> str:
    """A method in two lines for people."""
    if method.family == SAVED:
        return f"{method.summary} *It is for these weights: when a slider is moved, another method takes over.*"
    ignored = " *It looks only at which adapters are on, not at their weights.*" if "weights" in method.refuses else ""
    return f"{method.summary} ({method.paper}){ignored}"


class LayerRow:
    """Factors by layer and adapter, which no slider shows: what is told of them, and a button that clears them."""

    def __init__(self, start: MergeRecipe):
        factors = layers_of(start)
        self.factors = gr.State(factors)
        with gr.Row():
            self.told = gr.Markdown(told_of(factors), elem_id="layers-told")
            self.clear = gr.Button("Clear layer factors", size="sm", scale=0, visible=bool(factors), elem_id="clear-layers")

    @property
    def parts(self) -> list[Any]:
        """The components that `shown` updates."""
        return [self.factors, self.told, self.clear]

    def shown(self, factors: Mapping[str, Sequence[float]]) -> list[Any]:
        """Updates of `parts` for some factors by adapter."""
        return [factors, told_of(factors), gr.update(visible=bool(factors))]


def layers_of(recipe: MergeRecipe) -> dict[str, list[float]]:
    """The factors by layer of those adapters of a recipe that have some."""
    return {a.name: list(a.layers) for a in recipe.adapters if a.layers}


def told_of(factors: Mapping[str, Sequence[float]]) -> str:
    """A line that says whose weights change from layer to layer; nothing where none do."""
    return f"*Each layer has a factor of its own for {', '.join(factors)}.*" if factors else ""


class Mixer:
    """All of it, laid out where it is made. `follow` is set by the panel that answers: what happens after values were set."""

    def __init__(self, lab: Lab, expectations: Expectations):
        self.lab, self.expectations = lab, expectations
        self.follow: Callable[[Any], Any] = lambda event: event
        start, tasks, ranks = lab.best(), lab.tasks(), lab.ranks()
        self.method, self.layers = MethodRow(lab.merger, start), LayerRow(start)
        weights = {a.name: a.weight for a in start.adapters}
        self.slots = [Slot(n, tasks[n].title, sorted(ranks[n]), round(weights.get(n, 0.0), DECIMALS)) for n in ranks]
        # A method's knobs are shown, and factors that were found for other ranks are gone, before an answer is asked for.
        chosen = self.method.name
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        cleared = gr.on(
            [self.layers.clear.click, *(slot.rank.input for slot in self.slots)],
            lambda: self.layers.shown({}),
            None,
            self.layers.parts,
            **quiet,
        )
        self.switched = [chosen.input(self._switch, chosen, self._of_method, **quiet), cleared]
        # A kept merge lets go of the sliders when one is moved, whoever moves it.
        moved = [value.change for slot in self.slots for value in (slot.weight, slot.rank)]
        gr.on(moved, self._let_go, self.values, self.method.shows, queue=False, **quiet)
        # A page that is opened later shows what was kept since.
        gr.on(None, lambda: gr.update(choices=self.method.choices), None, chosen, **quiet)

    @property
    def names(self) -> list[str]:
        return [slot.name for slot in self.slots]

    @property
    def weights(self) -> list[Any]:
        """The sliders."""
        return [slot.weight for slot in self.slots]

    @property
    def values(self) -> list[Any]:
        """All components whose values make the recipe, in the order in which `recipe` takes them."""
        rows = (value for slot in self.slots for value in (slot.on, slot.weight, slot.rank))
        return [*rows, *self.method.values, self.layers.factors]

    @property
    def moved(self) -> list[Any]:
        """Those of `values` that ask for a new answer by themselves; method and ranks first change others of them."""
        first = {id(value) for value in (self.method.name, self.layers.factors, *(slot.rank for slot in self.slots))}
        return [value for value in self.values if id(value) not in first]

    @property
    def shown(self) -> list[Any]:
        """The components that `rows` updates."""
        rows = (value for slot in self.slots for value in (slot.on, slot.weight, slot.rank))
        return [*rows, *self.method.values, self.method.about, *self.layers.parts]

    def recipe(self, values: Sequence[Any]) -> MergeRecipe | None:
        """The recipe of all values; none when every adapter is off."""
        *rest, layers = values
        rows, method = rest[: 3 * len(self.slots)], rest[3 * len(self.slots) :]
        adapters = [
            RecipeAdapter(name=slot.name, rank=rank, weight=weight, layers=tuple(layers.get(slot.name, ())))
            for slot, on, weight, rank in zip(self.slots, rows[::3], rows[1::3], rows[2::3], strict=True)
            if on
        ]
        return self._following(self.lab.recipe(adapters).model_copy(update=self.method.read(method))) if adapters else None

    def _following(self, recipe: MergeRecipe) -> MergeRecipe:
        """A recipe whose method follows the sliders: a kept merge is for its own weights, and at others RegMean takes over."""
        kept = self.lab.merger.saved.get(recipe.method)
        if kept is None or kept.is_at(recipe):
            return recipe
        known = all(self.lab.adapter(a.name, a.rank).statistics for a in recipe.adapters)
        return recipe.model_copy(update={"method": FOLLOWS if known else EXACT, "knobs": {}})

    def _let_go(self, *values: Any) -> list[Any]:
        recipe = self.recipe(values)
        if recipe is None or recipe.method == values[3 * len(self.slots)]:
            return [gr.skip() for _ in self.method.shows]
        return self.method.shown(recipe)

    def rows(self, recipe: MergeRecipe) -> list[Any]:
        """Updates of `shown` for a recipe: what it leaves out is switched off."""
        given = {a.name: a for a in recipe.adapters}
        rows = []
        for slot in self.slots:
            one = given.get(slot.name)
            rows += [one is not None, one.weight if one else 0.0, one.rank if one else gr.skip()]
        return [*rows, *self.method.shown(recipe), *self.layers.shown(layers_of(recipe))]

    @property
    def _of_method(self) -> list[Any]:
        return [self.method.seed, *self.method.knobs, self.method.about, *self.layers.parts]

    def _switch(self, name: str) -> list[Any]:
        _, *updates = self.method.shown(MergeRecipe(adapters=(RecipeAdapter(name=self.names[0]),), method=name))
        return [*updates, *self.layers.shown({})]


def usable(method: MergeMethod) -> bool:
    """Whether a method follows the sliders: it needs no images, and is no bound."""
    return method.needs in ("nothing", "statistics") and method.family != "bound"

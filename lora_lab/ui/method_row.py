"""The method of the page's merge, its knobs and its seed, and factors by layer that no slider shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from lora_lab.catalog import Catalog
from lora_lab.lab import Lab
from lora_lab.merge_times import merge_times
from lora_lab.merging import MergeMethod, MergeRecipe
from lora_lab.ui.boundary import literal
from lora_lab.ui.words import _

DECIMALS = 4
SAVED = "saved"
SLOW = 300
"""Milliseconds from which a first merge is worth a word."""
LARGEST = 2**53 - 1
"""Of a whole number that a browser holds exactly."""


class MethodRow:
    """The method, its knobs and the seed. Every method has sliders of its own, of which those of the chosen one are seen."""

    def __init__(self, lab: Lab, start: MergeRecipe):
        self._lab = lab
        chosen = self._methods[start.method]
        with gr.Row():
            self.name = gr.Dropdown(self.choices, value=chosen.name, label=_("Method"), elem_id="merge-method")
            self.seed = gr.Number(
                start.seed,
                precision=0,
                minimum=-LARGEST,
                maximum=LARGEST,
                label=_("Seed"),
                scale=0,
                min_width=90,
                visible=False,
                elem_id="seed",
            )
        self.about = gr.Markdown(about(chosen), elem_id="about-method")
        turning = [method for method in self._methods.values() if usable(method) and method.knobs]
        self._rows = {method.name: self._row(method, method is chosen) for method in turning}

    @staticmethod
    def _row(method: MergeMethod, visible: bool) -> tuple[gr.Row, list[gr.Slider]]:
        with gr.Row(visible=visible) as row:
            sliders = [
                gr.Slider(
                    knob.low,
                    knob.high,
                    knob.default,
                    step=knob.step or round((knob.high - knob.low) / 100, DECIMALS),
                    label=knob.title,
                    info=knob.meaning,
                    min_width=150,
                    elem_id=f"knob-{method.name}-{knob.name}",
                )
                for knob in method.knobs
            ]
        return row, sliders

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Titles and names of the methods that follow the sliders, merges that were kept lately among them."""
        return [(method.title, method.name) for method in self._methods.values() if usable(method)]

    @property
    def knobs(self) -> list[gr.Slider]:
        """The sliders of all methods."""
        return [slider for _, sliders in self._rows.values() for slider in sliders]

    @property
    def values(self) -> list[Any]:
        """The components that say the method, in the order of what `read` takes."""
        return [self.name, self.seed, *self.knobs]

    @property
    def shows(self) -> list[Any]:
        """The components that `shown` updates."""
        return [*self.values, self.about, *(row for row, _ in self._rows.values())]

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The fields of a recipe."""
        name, seed, *numbers = values
        given, knobs = iter(numbers), {}
        for method, (_row, sliders) in self._rows.items():
            own = [next(given) for _ in sliders]
            if method == name:
                pairs = zip(self._methods[name].knobs, own, strict=True)
                knobs = {knob.name: float(number) for knob, number in pairs if number not in (None, knob.default)}
        return {"method": name, "seed": int(seed or 0), "knobs": knobs}

    def shown(self, recipe: MergeRecipe) -> list[Any]:
        """Updates of `shows`, for a recipe; the knobs of other methods stay as they are."""
        method = self._methods[recipe.method]
        seed = gr.update(value=recipe.seed, visible="seed" not in method.laws)
        updates: list[Any] = [gr.update(value=method.name, choices=self.choices), seed]
        for name, (_row, sliders) in self._rows.items():
            own = [recipe.knobs.get(knob.name, knob.default) for knob in method.knobs]
            updates += own if name == method.name else [gr.skip() for _ in sliders]
        return [*updates, about(method), *(gr.update(visible=name == method.name) for name in self._rows)]

    def restored(self, values: Sequence[Any]) -> list[Any]:
        """Updates of `shows` for values as `read` takes them."""
        method = self._methods[values[0]]
        seed = gr.update(value=values[1], visible="seed" not in method.laws)
        rows = (gr.update(visible=one == method.name) for one in self._rows)
        return [gr.update(value=method.name, choices=self.choices), seed, *values[2:], about(method), *rows]

    def switched(self, name: str) -> list[Any]:
        """Updates of `shows` for another method, whose knobs stay as they were left."""
        method = self._methods[name]
        seed = gr.update(visible="seed" not in method.laws)
        rows = (gr.update(visible=one == name) for one in self._rows)
        return [gr.skip(), seed, *(gr.skip() for _ in self.knobs), about(method), *rows]

    @property
    def _methods(self) -> Catalog[MergeMethod]:
        return self._lab.merger.methods


def about(method: MergeMethod) -> str:
    """A method in two lines for people."""
    if method.family == SAVED:
        return method.summary + " " + _("*It is for these weights: when a slider is moved, another method takes over.*")
    told = f"{method.summary} ({method.paper})"
    taken = merge_times().get(method.name)
    if taken and taken.first and taken.first > SLOW:
        slow = _("*The first merge of all adapters takes about {seconds:.1f} s on two cores; a moved slider {moved:.0f} ms.*")
        told += " " + slow.format(seconds=taken.first / 1e3, moved=taken.move)
    ignored = _("*It looks only at which adapters are on, not at their weights.*")
    return f"{told} {ignored}" if "weights" in method.refuses else told


class LayerRow:
    """Factors by layer and adapter, which no slider shows: what is told of them, and a button that clears them."""

    def __init__(self, start: MergeRecipe):
        factors = layers_of(start)
        self.factors = gr.State(factors)
        with gr.Row():
            self.told = gr.Markdown(told_of(factors), elem_id="layers-told")
            self.clear = gr.Button(_("Clear layer factors"), size="sm", scale=0, visible=bool(factors), elem_id="clear-layers")

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
    return (
        _("*Each layer has a factor of its own for {adapters}.*").format(adapters=", ".join(map(literal, factors)))
        if factors
        else ""
    )


def usable(method: MergeMethod) -> bool:
    """Whether a method follows the sliders: it needs no images, and is no bound."""
    return method.needs in ("nothing", "statistics") and method.family != "bound"

"""The merge that the page shows: the method with its knobs, and a card for each adapter; the one place where it stands."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.method_row import LayerRow, MethodRow, layers_of
from lora_lab.ui.slots import Slot

FOLLOWS, EXACT = "regmean", "exact"
SPARES = 4
"""How many adapters can join a page that is served already."""


class Mixer:
    """All of it, laid out where it is made.

    The panel that answers sets `follow`, what happens after values were set (with `begins` by no gesture, so that there is
    nothing to undo), `photo`, the component that holds it, and `steps`,
    the events of undo and redo.
    """

    photo: gr.Image
    steps: Sequence[Any]
    changes: bool = True
    """Whether visitors may keep something; what shows it is left out where not, and refuses by itself."""

    def __init__(self, lab: Lab, expectations: Expectations):
        self.lab, self.expectations = lab, expectations
        self.follow: Callable[..., Any] = lambda event, begins=False: event
        start = lab.best()
        self.method, self.layers = MethodRow(lab, start), LayerRow(start)
        weights = {a.name: a.weight for a in start.adapters}
        fixed = [Slot(lab, name, name, weights.get(name)) for name in lab.ranks()]
        self._spares = [Slot(lab, f"own-{place}") for place in range(SPARES)]
        self.slots = fixed + self._spares
        self._joining = threading.Lock()
        for slot, line in zip(self.slots, self.told(start), strict=True):
            slot.here.value = line
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
        soloed = [
            slot.solo.click(self._soloed(i), [s.on for s in self.slots], [s.on for s in self.slots], **quiet)
            for i, slot in enumerate(self.slots)
        ]
        self.switched = [
            chosen.input(self._switch, chosen, [*self.method.shows, *self.layers.parts], **quiet),
            cleared,
            *soloed,
        ]
        for slot in self.slots:
            slot.rank.change(slot.told, slot.rank, slot.about, queue=False, **quiet)
        # A kept merge lets go of the sliders when one is moved, whoever moves it.
        moved = [value.change for slot in self.slots for value in (slot.weight, slot.rank)]
        gr.on(moved, self._let_go, self.values, self.method.shows, queue=False, **quiet)
        # A page that is opened later shows what was kept, and who has joined, since.
        gr.on(None, lambda: gr.update(choices=self.method.choices), None, chosen, **quiet)
        self.joined = self.join(gr.on, [])

    @property
    def spare_ranks(self) -> list[Any]:
        """The menus of ranks on the cards of adapters that have joined."""
        return [slot.rank for slot in self._spares]

    def join(self, trigger: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        """Give adapters that have joined the lab a card each, as far as there are spare ones; gives the event.

        `inputs` are the `spare_ranks`, where these are to stay as they stand. A page that is loaded has none to keep, and
        gradio would take every change of an input for another load.
        """

        def join(*ranks: int | None) -> list[Any]:
            for name in self.lab.ranks():
                self.seat(name)
            standing = ranks or [None] * len(self._spares)
            return [update for slot, rank in zip(self._spares, standing, strict=True) for update in slot.shown(rank)]

        outputs = [part for slot in self._spares for part in slot.parts]
        return trigger(fn=join, inputs=list(inputs) or None, outputs=outputs, show_progress="hidden", api_visibility="private")

    def seat(self, name: str) -> bool:
        """Whether an adapter has a card; a spare one is given to it, for good, so that no open page takes it for another's."""
        with self._joining:
            free = next((slot for slot in self._spares if slot.name is None), None)
            if free and name not in self.names:
                free.name = name
            return name in self.names

    def unseat(self, name: str) -> None:
        """Take the card away from an adapter that whoever asks has removed."""
        for slot in self._spares:
            if slot.name == name:
                slot.name = None

    def _soloed(self, place: int) -> Callable[..., list[bool]]:
        """Switches all others off, and all on where that is how they stand."""

        def solo(*on: bool) -> list[bool]:
            alone = [i == place for i in range(len(on))]
            return [slot.name is not None for slot in self.slots] if list(on) == alone else alone

        return solo

    @property
    def cards(self) -> list[Any]:
        """What each card says of its adapter in this merge, in the order of `told`."""
        return [slot.here for slot in self.slots]

    def told(self, recipe: MergeRecipe | None) -> list[str]:
        """What each adapter changes in a merge, layer by layer, and what is expected of it there."""
        lines = self.expectations.lines(recipe)
        given = {a.name: a for a in recipe.adapters} if recipe else {}
        members = [given.get(slot.name or "") for slot in self.slots]
        return [slot.depth(a) + lines.get(a.name, "") if a else "" for slot, a in zip(self.slots, members, strict=True)]

    @property
    def names(self) -> list[str]:
        """The adapters that have a card."""
        return [slot.name for slot in self.slots if slot.name]

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
    def settling(self) -> list[Any]:
        """What ends a gesture: a slider that is let go, a switch, a menu, a number."""
        sliders = [*(slot.weight for slot in self.slots), *self.method.knobs]
        picked = [value.input for slot in self.slots for value in (slot.on, slot.rank)]
        return [*(slider.release for slider in sliders), *picked, self.method.seed.blur]

    @property
    def shown(self) -> list[Any]:
        """The components that `rows` updates."""
        rows = (value for slot in self.slots for value in (slot.on, slot.weight, slot.rank))
        return [*rows, *self.method.shows, *self.layers.parts]

    def recipe(self, values: Sequence[Any]) -> MergeRecipe | None:
        """The recipe of all values; none when every adapter is off."""
        *rest, layers = values
        rows, method = rest[: 3 * len(self.slots)], rest[3 * len(self.slots) :]
        adapters = [
            RecipeAdapter(name=slot.name, rank=rank, weight=weight, layers=tuple(layers.get(slot.name, ())))
            for slot, on, weight, rank in zip(self.slots, rows[::3], rows[1::3], rows[2::3], strict=True)
            if on and slot.name
        ]
        return self._following(self.lab.recipe(adapters).model_copy(update=self.method.read(method))) if adapters else None

    def _following(self, recipe: MergeRecipe) -> MergeRecipe:
        kept = self.lab.merger.saved.get(recipe.method)
        return recipe if kept is None or kept.is_at(recipe) else self.loosened(recipe)

    def loosened(self, recipe: MergeRecipe) -> MergeRecipe:
        """A recipe whose method follows the sliders: a kept merge is for its own weights, and for others RegMean takes over."""
        if recipe.method not in self.lab.merger.saved:
            return recipe
        known = all(self.lab.adapter(a.name, a.rank).statistics for a in recipe.adapters)
        return recipe.model_copy(update={"method": FOLLOWS if known else EXACT, "knobs": {}})

    def _let_go(self, *values: Any) -> list[Any]:
        recipe = self.recipe(values)
        if recipe is None or recipe.method == values[3 * len(self.slots)]:
            return [gr.skip() for _ in self.method.shows]
        return self.method.shown(recipe)

    def off(self, values: Sequence[Any]) -> tuple[RecipeAdapter, ...]:
        """The adapters that are switched off with their sliders away from 0."""
        rows = zip(self.slots, values[::3], values[1::3], values[2::3], strict=False)
        return tuple(
            RecipeAdapter(name=slot.name, rank=rank, weight=weight)
            for slot, on, weight, rank in rows
            if slot.name and not on and weight and rank
        )

    def restored(self, values: Sequence[Any]) -> list[Any]:
        """Updates of `shown` for `values` that stood here before."""
        *rest, layers = values
        rows, method = rest[: 3 * len(self.slots)], rest[3 * len(self.slots) :]
        # A card that was given to an adapter since had no rank then.
        rows = [gr.skip() if value is None else value for value in rows]
        return [*rows, *self.method.restored(method), *self.layers.shown(layers)]

    def rows(self, recipe: MergeRecipe, off: Sequence[RecipeAdapter] = ()) -> list[Any]:
        """Updates of `shown` for a recipe: what it leaves out is switched off, at 0 where `off` does not name its weight."""
        on = {a.name for a in recipe.adapters}
        given = {a.name: a for a in (*(a for a in off if a.rank in self.lab.ranks().get(a.name, ())), *recipe.adapters)}
        rows = []
        for slot in self.slots:
            one = given.get(slot.name or "")
            rows += [slot.name in on, one.weight if one else 0.0, one.rank if one else gr.skip()]
        return [*rows, *self.method.shown(recipe), *self.layers.shown(layers_of(recipe))]

    def _switch(self, name: str) -> list[Any]:
        return [*self.method.switched(name), *self.layers.shown({})]

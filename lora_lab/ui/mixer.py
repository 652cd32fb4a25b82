"""The rows of all adapters: switch, weight and rank of each; the one place where the page's recipe stands."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.merging.recipe import HIGHEST, LOWEST
from lora_lab.ui.expectations import Expectations


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


class Mixer:
    """All rows, laid out where it is made. `follow` is set by the panel that answers: what happens after rows were set."""

    def __init__(self, lab: Lab, expectations: Expectations):
        self.lab, self.expectations = lab, expectations
        self.follow: Callable[[Any], Any] = lambda event: event
        start, tasks, ranks = lab.uniform(), lab.tasks(), lab.ranks()
        self.slots = [Slot(a.name, tasks[a.name].title, sorted(ranks[a.name]), round(a.weight, 4)) for a in start.adapters]

    @property
    def names(self) -> list[str]:
        return [slot.name for slot in self.slots]

    @property
    def weights(self) -> list[Any]:
        """The sliders."""
        return [slot.weight for slot in self.slots]

    @property
    def values(self) -> list[Any]:
        """All components, in the order in which handlers get and give their values."""
        return [value for slot in self.slots for value in (slot.on, slot.weight, slot.rank)]

    def recipe(self, rows: Sequence[Any]) -> MergeRecipe | None:
        """The recipe of the values of all rows; none when every adapter is off."""
        adapters = [
            RecipeAdapter(name=slot.name, rank=rank, weight=weight)
            for slot, on, weight, rank in zip(self.slots, rows[::3], rows[1::3], rows[2::3], strict=True)
            if on
        ]
        return self.lab.recipe(adapters) if adapters else None

    def rows(self, recipe: MergeRecipe) -> list[Any]:
        """The values of all rows that show a recipe: what it leaves out is switched off."""
        given = {a.name: a for a in recipe.adapters}
        rows = []
        for slot in self.slots:
            one = given.get(slot.name)
            rows += [one is not None, one.weight if one else 0.0, one.rank if one else gr.skip()]
        return rows

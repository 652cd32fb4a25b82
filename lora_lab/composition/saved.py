"""A composition as a value and as a folder: `recipe.json`, `head.safetensors` and `composition.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_lab.backbones import Backbone
from lora_lab.cache import small_text, whole_folder
from lora_lab.cards import ScoreEntry
from lora_lab.errors import DataError, MismatchError, NotFoundError, first_fault
from lora_lab.merging import MergeRecipe
from lora_lab.records import Frozen
from lora_lab.tasks import Head, Task, load_head, save_head

CARD, RECIPE, HEAD = "composition.json", "recipe.json", "head.safetensors"


class WayResult(Frozen):
    """How a way did: scores by metric on the held-out images, seconds, and the numbers it trained beside the head."""

    scores: dict[str, ScoreEntry]
    seconds: float
    parameters: int


class CompositionCard(Frozen):
    """Where a composition comes from: the task, the images it was learned from, and how each way did.

    `shots` is the number of images a class, null for all; `images` is how many that were. `adapters` is the fingerprint of
    the composed adapters.
    """

    task: dict[str, Any]
    backbone: str
    fingerprint: str
    adapters: str
    shots: int | None
    images: int
    steps: int
    batch: int
    seed: int
    ways: dict[str, WayResult]
    commit: str | None

    def load_task(self) -> Task:
        """The task."""
        return Task.from_json(self.task)


@dataclass(frozen=True, eq=False)
class Composition:
    """Adapters with a weight at each layer, which are the recipe's, and the head that was trained with them."""

    card: CompositionCard
    recipe: MergeRecipe
    head: Head

    @property
    def task(self) -> Task:
        return self.head.task

    @property
    def layers(self) -> Mapping[str, tuple[float, ...]]:
        """By adapter its weight at each layer; over the adapters a layer's sum to 1."""
        return {a.name: a.layers for a in self.recipe.adapters}

    @property
    def carrying(self) -> list[tuple[str, float]]:
        """The adapters with their mean weight over the layers, those that carry most first."""
        means = [(name, sum(layers) / len(layers)) for name, layers in self.layers.items()]
        return sorted(means, key=lambda one: -one[1])


def save_composition(composition: Composition, folder: Path) -> None:
    """Write a composition's three files, in place of those there."""
    with whole_folder(folder) as part:
        for name, value in ((RECIPE, composition.recipe), (CARD, composition.card)):
            (part / name).write_text(value.model_dump_json(indent=1) + "\n", encoding="utf-8")
        save_head(composition.head, part / HEAD)


def load_composition(folder: Path, backbone: Backbone) -> Composition:
    """Read a composition for a backbone.

    Raises `NotFoundError` where there is none, `MismatchError` where it is of another backbone, and `DataError`.
    """
    if not (folder / CARD).exists():
        raise NotFoundError(f"no composition in {folder}: it has no {CARD}; make one with `lora-lab compose`")
    try:
        card = CompositionCard.model_validate_json(small_text(folder / CARD))
    except ValidationError as error:
        raise DataError(f"{folder / CARD} is no composition: {first_fault(error)}") from error
    if card.fingerprint != backbone.fingerprint:
        raise MismatchError(
            f"the composition in {folder} was learned on {card.backbone} with the fingerprint {card.fingerprint[:12]}, "
            f"but this is {backbone.name} with {backbone.fingerprint[:12]}: load the backbone it names"
        )
    head = load_head(card.load_task(), backbone.width, folder / HEAD).to(backbone.device)
    return Composition(card, MergeRecipe.read(folder / RECIPE), head)

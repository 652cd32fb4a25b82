"""Two weights of a recipe over a grid, and what every head says about one photo at each point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.merging.base import nobody
from lora_lab.photos import Photo
from lora_lab.records import PhotoPrediction, Prediction

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Axis:
    """An adapter and the weights that it takes, rising."""

    name: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class WeightGrid:
    """Predictions by row (weights of `y`) and column (weights of `x`), and each adapter's own."""

    x: Axis
    y: Axis
    cells: tuple[tuple[PhotoPrediction, ...], ...]
    alone: dict[str, PhotoPrediction]

    def answers(self, task: str, face: int | None) -> list[list[Prediction]]:
        """A task's answers, of a face by its place or of the whole photo where it is none."""
        return [[_of(cell, face)[task] for cell in row] for row in self.cells]

    def own(self, task: str, face: int | None) -> Prediction:
        """What the task's adapter says alone."""
        return _of(self.alone[task], face)[task]


def steps(low: float, high: float, count: int) -> tuple[float, ...]:
    """So many weights from the lowest to the highest. Raises `LoraLabError`."""
    if not low < high:
        raise LoraLabError(f"the weights go from {low:g} to {high:g}: the first has to be the lower one")
    return tuple(round(low + (high - low) * i / (count - 1), 4) for i in range(count))


def weight_grid(lab: Lab, photo: Photo, recipe: MergeRecipe, axes: tuple[Axis, Axis], tell: Tell = nobody) -> WeightGrid:
    """Answers at each point of a grid; the other weights stay as they are. What `tell` raises ends the work.

    Raises `LoraLabError` for an adapter that takes no part, for the same one twice, and for a merge that was kept.
    """
    x, y = axes
    names = [a.name for a in recipe.adapters]
    lacking = [axis.name for axis in axes if axis.name not in names]
    if lacking:
        raise LoraLabError(f"{lacking[0]} is switched off: switch it on, or take another adapter")
    if x.name == y.name:
        raise LoraLabError(f"both directions are {x.name}: take two different adapters")
    if "weights" in lab.merger.methods[recipe.method].refuses:
        raise LoraLabError("this method does not look at the weights, so the whole grid would be one answer: take another one")
    cells, count = [], len(x.weights) * len(y.weights)
    for row, b in enumerate(y.weights):
        found = []
        for column, a in enumerate(x.weights):
            tell((row * len(x.weights) + column) / count, f"{x.name} at {a:g}, {y.name} at {b:g}")
            found.append(lab.predict(photo, _at(recipe, {x.name: a, y.name: b})).prediction)
        cells.append(tuple(found))
    alone = {a.name: lab.alone(photo, a.name, a.rank) for a in recipe.adapters}
    return WeightGrid(x, y, tuple(cells), alone)


def _at(recipe: MergeRecipe, weights: dict[str, float]) -> MergeRecipe:
    adapters = tuple(a.model_copy(update={"weight": weights.get(a.name, a.weight)}) for a in recipe.adapters)
    return recipe.model_copy(update={"adapters": adapters})


def _of(prediction: PhotoPrediction, face: int | None) -> dict[str, Prediction]:
    return dict(prediction.photo.predictions if face is None else prediction.faces[face].predictions)


def tasks_of(prediction: PhotoPrediction) -> Sequence[tuple[str, int | None]]:
    """Every task with the place of the face that it is about, none for the whole photo."""
    faces = [(name, place) for place, face in enumerate(prediction.faces) for name in face.predictions]
    return [*faces, *((name, None) for name in prediction.photo.predictions)]

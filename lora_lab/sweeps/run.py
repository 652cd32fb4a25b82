"""Measure many merges one after another, into a file of records; what is there already is not measured again."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from lora_lab import metrics
from lora_lab.adapters import fingerprint
from lora_lab.cards import HEAD_ONLY
from lora_lab.catalog import Catalog
from lora_lab.evaluation import Images, Origin, Testbed, as_records
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.metrics import Draws, Score
from lora_lab.records import Record, RecordFile
from lora_lab.tasks import Task

PRECISIONS = Catalog("precision", (("float32", torch.float32), ("bfloat16", torch.bfloat16)))
PROBE = 64


@dataclass(frozen=True)
class Cell:
    """One model to measure: a recipe, or none for the heads alone."""

    recipe: MergeRecipe | None

    @property
    def key(self) -> str:
        return self.recipe.key if self.recipe else HEAD_ONLY

    @property
    def title(self) -> str:
        """For people."""
        return self.recipe.title if self.recipe else "heads alone"

    @property
    def alone(self) -> bool:
        """Whether it is one adapter as it was trained."""
        return self.recipe is not None and [a.weight for a in self.recipe.adapters] == [1.0]


@dataclass(frozen=True)
class Step:
    """A cell that was measured, and how far the sweep is, in images."""

    cell: Cell
    done: int
    total: int
    seconds_left: float


class Sweep:
    """Measures merges of a lab's adapters on fixed images, beside each adapter alone and each head alone."""

    def __init__(self, lab: Lab, images: Images, file: RecordFile, precision: str = "bfloat16"):
        self.lab, self.images, self.file, self.precision = lab, images, file, precision
        self.testbed = Testbed(images, PRECISIONS[precision])
        self._references: dict[tuple[str, int], Draws] = {}

    def cells(self, recipes: Sequence[MergeRecipe]) -> list[Cell]:
        """Cells that have images and are not in the file yet, what they are compared to before them."""
        members = dict.fromkeys((a.name, a.rank) for recipe in recipes for a in recipe.adapters)
        alone = [self.lab.recipe([RecipeAdapter(name=name, rank=rank)]) for name, rank in members]
        wanted = {cell.key: cell for cell in (Cell(None), *(Cell(recipe) for recipe in (*alone, *recipes)))}
        there = self._there()
        return [cell for cell in wanted.values() if not self._expected(cell) <= there]

    def image_count(self, cell: Cell) -> int:
        """How many forwards of one image a cell takes."""
        places = {}
        for task in self._tasks(cell).values():
            crops = self.testbed.crops(task, self.lab.backbone.image_size)
            places[task.folder, task.stored] = 0 if crops is None else len(crops)
        return sum(places.values())

    def probe(self) -> float:
        """Seconds that an image takes here, measured on a few."""
        pixels = torch.zeros(PROBE, 3, self.lab.backbone.image_size, self.lab.backbone.image_size)
        backbone = self.lab.backbone.to(PRECISIONS[self.precision])
        taken = []
        with torch.no_grad():
            for _ in range(4):
                start = time.perf_counter()
                backbone.encode(pixels)
                taken.append((time.perf_counter() - start) / PROBE)
        return min(taken)

    def run(self, cells: Sequence[Cell], measured: Iterable[tuple[Cell, list[Record]]] | None = None) -> Iterator[Step]:
        """Measure cells; each is in the file when it is given back.

        `measured` gives cells with their records in any order, where others than this process measure them.
        """
        counts = {cell.key: self.image_count(cell) for cell in cells}
        total, done, start = sum(counts.values()), 0, time.monotonic()
        with self.file.locked():
            for cell, records in measured or ((cell, self.measure(cell)) for cell in cells):
                self.file.add(records)
                done += counts[cell.key]
                pace = (time.monotonic() - start) / max(1, done)
                yield Step(cell, done, total, pace * (total - done))

    def measure(self, cell: Cell) -> list[Record]:
        """The records of one cell."""
        start = time.monotonic()
        drawn = self.testbed.draw(self._model(cell))
        if cell.alone and cell.recipe:
            (one,) = cell.recipe.adapters
            self._references[one.name, one.rank] = drawn[one.name]
        records = []
        for name, task in self._tasks(cell).items():
            crops = self.testbed.crops(task, self.lab.backbone.image_size)
            if crops is None:
                continue
            scores = [metrics.with_interval(*place, values) for place, values in drawn[name].items()]
            scores += self._beside(cell, name, task, drawn[name])
            if cell.recipe is None and crops.detected is not None:
                scores.append(metrics.detection_rate(crops.detected, self.images.seed))
            records += as_records(scores, task, len(crops), self._origin(cell), start)
        return records

    def _beside(self, cell: Cell, name: str, task: Task, drawn: Draws) -> list[Score]:
        if cell.recipe is None:
            return []
        if cell.alone:
            return [metrics.gain(task, drawn, self._reference(name, 0))]
        rank = next(a.rank for a in cell.recipe.adapters if a.name == name)
        return metrics.compare(task, drawn, self._reference(name, rank), self._reference(name, 0))

    def _reference(self, name: str, rank: int) -> Draws:
        if (name, rank) not in self._references:
            adapter = self.lab.adapter(name, rank)
            recipe = self.lab.recipe([RecipeAdapter(name=name, rank=rank)]) if rank else None
            model = self.lab.merge(recipe) if recipe else MergedModel(self.lab.backbone, {}, {name: adapter.head})
            self._references[name, rank] = self.testbed.draw(model)[name]
        return self._references[name, rank]

    def _model(self, cell: Cell) -> MergedModel:
        if cell.recipe:
            return self.lab.merge(cell.recipe)
        heads = {name: self.lab.adapter(name, 0).head for name in self._tasks(cell)}
        return MergedModel(self.lab.backbone, {}, heads)

    def _tasks(self, cell: Cell) -> dict[str, Task]:
        tasks = self.lab.tasks()
        if cell.recipe:
            return {a.name: tasks[a.name] for a in cell.recipe.adapters}
        return {card.name: tasks[card.name] for card in self.lab.cards() if card.tuning == HEAD_ONLY}

    def _fingerprint(self, cell: Cell) -> str:
        if cell.recipe:
            return self.lab.fingerprint(cell.recipe)
        return fingerprint([self.lab.adapter(name, 0) for name in self._tasks(cell)])

    def _origin(self, cell: Cell) -> Origin:
        return Origin(
            subject="adapter" if cell.alone else "merge" if cell.recipe else "head_only",
            recipe=cell.key,
            split=self.images.split,
            seed=self.images.seed,
            method=cell.recipe.method if cell.recipe else None,
            adapters=cell.recipe.spelled if cell.recipe else "",
            fingerprint=self._fingerprint(cell),
            precision=self.precision,
        )

    def _expected(self, cell: Cell) -> set[tuple[str, str, str, int]]:
        """What the file holds of a cell that was measured: recipe, fingerprint, task and number of images, for each task."""
        fingerprint, size = self._fingerprint(cell), self.lab.backbone.image_size
        counts = {name: self.testbed.crops(task, size) for name, task in self._tasks(cell).items()}
        return {(cell.key, fingerprint, name, len(crops)) for name, crops in counts.items() if crops is not None}

    def _there(self) -> set[tuple[str, str, str, int]]:
        frame = self.file.read()
        same = (frame.split == self.images.split) & (frame.seed == self.images.seed) & (frame.precision == self.precision)
        columns = (frame.loc[same, name] for name in ("recipe", "fingerprint", "task", "n"))
        return set(zip(*columns, strict=True))

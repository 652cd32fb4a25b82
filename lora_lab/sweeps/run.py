"""Measure many merges one after another, into a file of records; what is there already is not measured again."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from lora_lab import metrics
from lora_lab.adapters import Adapter, fingerprint, load_adapter
from lora_lab.cards import HEAD_ONLY, JOINT, adapter_folder
from lora_lab.catalog import Catalog
from lora_lab.errors import LoraLabError
from lora_lab.evaluation import Images, Origin, Testbed, as_records
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merger import Merger
from lora_lab.merging import MergeRecipe, RecipeAdapter, Sight
from lora_lab.metrics import ALL, MERGE_SECONDS, Draws, Score
from lora_lab.recent import Recent
from lora_lab.records import Record, RecordFile
from lora_lab.sweeps.spelling import spell_method
from lora_lab.tasks import Task

PRECISIONS = Catalog("precision", (("float32", torch.float32), ("bfloat16", torch.bfloat16)))
PROBE = 64

logger = logging.getLogger(__name__)

See = Callable[[MergeRecipe], Sight | None]
"""Gives the images that a recipe's method or repair must look at."""


@dataclass(frozen=True)
class Cell:
    """One model to measure: a recipe, or what is no merge, by its variant: the heads alone, or one LoRA for all tasks."""

    recipe: MergeRecipe | None
    variant: str = HEAD_ONLY

    @property
    def key(self) -> str:
        return self.recipe.key if self.recipe else self.variant

    @property
    def title(self) -> str:
        """For people."""
        if self.recipe is None:
            return "heads alone" if self.variant == HEAD_ONLY else f"one LoRA for all tasks, {self.variant}"
        method = spell_method(self.recipe)
        return self.recipe.title if method == "exact" else f"{method}: {self.recipe.title}"

    @property
    def alone(self) -> bool:
        """Whether it is one adapter as it was trained."""
        if self.recipe is None or spell_method(self.recipe) != "exact":
            return False
        return [a.weight for a in self.recipe.adapters] == [1.0]


@dataclass(frozen=True)
class Step:
    """A cell that was measured, and how far the sweep is, in images."""

    cell: Cell
    done: int
    total: int
    seconds_left: float


class Sweep:
    """Measures merges of a lab's adapters on fixed images, beside each adapter alone and each head alone.

    `see` gives images to the methods that must look at some. What is no merge is compared with the adapters of the rank
    `beside`, and with nothing where there is none.
    """

    def __init__(
        self,
        lab: Lab,
        images: Images,
        file: RecordFile,
        precision: str = "bfloat16",
        sight: See | None = None,
        beside: int | None = None,
    ):
        self.lab, self.images, self.file, self.precision = lab, images, file, precision
        self.testbed = Testbed(images, PRECISIONS[precision])
        self._see, self._rank = sight or (lambda recipe: None), beside
        self._references: dict[tuple[str, int], Draws] = {}
        self._mergers = Recent[str, tuple[Merger, float]](1)

    def cells(self, recipes: Sequence[MergeRecipe], joint: bool = False) -> list[Cell]:
        """Cells that have images and are not in the file yet, what they are compared to before them.

        `joint` adds every LoRA that was trained on several tasks.
        """
        members = dict.fromkeys((a.name, a.rank) for recipe in recipes for a in recipe.adapters)
        alone = [self.lab.recipe([RecipeAdapter(name=name, rank=rank)]) for name, rank in members]
        bare = [
            Cell(None),
            *(Cell(None, name) for name in dict.fromkeys(c.variant for c in self.lab.cards() if c.joint and joint)),
        ]
        wanted = {cell.key: cell for cell in (*bare, *(Cell(recipe) for recipe in (*alone, *recipes)))}
        there = self._there()
        return [cell for cell in wanted.values() if not self._expected(cell) <= there]

    def image_count(self, cell: Cell) -> int:
        """How many forwards of one image a cell takes."""
        apart = cell.recipe is not None and self.lab.merger.methods[cell.recipe.method].needs == "task id"
        places = {}
        for name, task in self._tasks(cell).items():
            crops = self.testbed.crops(task, self.lab.backbone.image_size)
            places[task.folder, task.stored, name if apart else ""] = 0 if crops is None else len(crops)
        return sum(places.values())

    def probe(self) -> float:
        """Seconds that an image takes here, measured on a few."""
        pixels = torch.zeros(PROBE, 3, self.lab.backbone.image_size, self.lab.backbone.image_size)
        backbone = self.lab.backbone.to(PRECISIONS[self.precision])
        taken = []
        with torch.no_grad():
            for _ in range(4):
                start = time.perf_counter()
                backbone.encode(pixels).pooled.cpu()  # so that what a device has still to do is waited for
                taken.append((time.perf_counter() - start) / PROBE)
        return min(taken)

    def run(self, cells: Sequence[Cell], measured: Iterable[tuple[Cell, list[Record]]] | None = None) -> Iterator[Step]:
        """Measure cells; each is in the file when it is given back.

        `measured` gives cells with their records in any order, where others than this process measure them. A merge that its
        method cannot make of these adapters is left out with a warning.
        """
        counts = {cell.key: self.image_count(cell) for cell in cells}
        total, done, start = sum(counts.values()), 0, time.monotonic()
        with self.file.locked():
            for cell, records in measured or self._each(cells):
                self.file.add(records)
                done += counts[cell.key]
                pace = (time.monotonic() - start) / max(1, done)
                yield Step(cell, done, total, pace * (total - done))

    def _each(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, list[Record]]]:
        for cell in cells:
            try:
                yield cell, self.measure(cell)
            except LoraLabError as error:
                # Only a method's own refusal: what is measured without one has no reason to fail but the user's.
                if cell.recipe is None or spell_method(cell.recipe) == "exact":
                    raise
                logger.warning("%s: left out: %s", cell.title, error)

    def measure(self, cell: Cell) -> list[Record]:
        """The records of one cell."""
        start = time.monotonic()
        model, seconds = self._model(cell)
        drawn = self.testbed.draw(model)
        if cell.alone and cell.recipe:
            (one,) = cell.recipe.adapters
            self._references[one.name, one.rank] = drawn[one.name]
        elif cell.key == HEAD_ONLY:
            self._references |= {(name, 0): values for name, values in drawn.items()}
        origin, counts, records = self._origin(cell), self._counts(cell), []
        for name, task in self._tasks(cell).items():
            crops = self.testbed.crops(task, self.lab.backbone.image_size)
            if crops is None:
                continue
            scores = [metrics.with_interval(*place, values) for place, values in drawn[name].items()]
            scores += self._beside(cell, name, task, drawn[name])
            if cell.key == HEAD_ONLY and crops.detected is not None:
                scores.append(metrics.detection_rate(crops.detected, self.images.seed))
            records += as_records(scores, name, len(crops), origin, start)
        if all(counts.values()):
            # The interval is hardly better than that of the task with the fewest images.
            records += as_records(self._together(cell, drawn, seconds), ALL, min(counts.values()), origin, start)
        return records

    def _counts(self, cell: Cell) -> dict[str, int]:
        size = self.lab.backbone.image_size
        return {name: len(self.testbed.crops(task, size) or ()) for name, task in self._tasks(cell).items()}

    def _beside(self, cell: Cell, name: str, task: Task, drawn: Draws) -> list[Score]:
        if cell.alone:
            return [metrics.gain(task, drawn, self._reference(name, 0))]
        rank = self._compared(cell, name)
        return [] if rank is None else metrics.compare(task, drawn, self._reference(name, rank), self._reference(name, 0))

    def _together(self, cell: Cell, drawn: dict[str, Draws], seconds: float) -> list[Score]:
        tasks = self._tasks(cell)
        ranks = {name: self._compared(cell, name) for name in tasks}
        if cell.alone or None in ranks.values():
            return []
        kept = [
            (f"{task.folder}/{task.stored}", metrics.retention(task, drawn[name], self._reference(name, ranks[name] or 0)))
            for name, task in tasks.items()
        ]
        taken = [Score(MERGE_SECONDS, None, seconds, seconds, seconds)] if cell.recipe else []
        return [*metrics.together(kept), *taken]

    def _compared(self, cell: Cell, name: str) -> int | None:
        """The rank of the adapter alone that a task is compared with, if it is with one."""
        if cell.recipe:
            return next(a.rank for a in cell.recipe.adapters if a.name == name)
        return self._rank if self._rank in self.lab.ranks().get(name, ()) else None

    def _reference(self, name: str, rank: int) -> Draws:
        if (name, rank) not in self._references:
            adapter = self.lab.adapter(name, rank)
            recipe = self.lab.recipe([RecipeAdapter(name=name, rank=rank)]) if rank else None
            model = self.lab.merge(recipe) if recipe else MergedModel(self.lab.backbone, {}, {name: adapter.head})
            self._references[name, rank] = self.testbed.draw(model)[name]
        return self._references[name, rank]

    def _model(self, cell: Cell) -> tuple[MergedModel, float]:
        """The model, and how many seconds its merge took."""
        if cell.recipe is None:
            adapters = self._unmerged(cell)
            heads = {adapter.name: adapter.head for adapter in adapters}
            return MergedModel(self.lab.backbone, deltas_of(adapters[0].factors), heads), 0.0
        sight, before = self._see(cell.recipe), 0.0
        if cell.recipe.repair and sight:
            merger, before = self._looked(cell.recipe, sight)
        else:
            # One of its own, since what was prepared for another setting would make the merge look quicker than a first one.
            merger = Merger(self.lab.merger.serving, self.lab.adapter)
        start = time.perf_counter()
        model = merger.merge(cell.recipe, sight)
        return model, round(before + time.perf_counter() - start, 4)

    def _looked(self, recipe: MergeRecipe, sight: Sight) -> tuple[Merger, float]:
        """A merger that has all that any repair of this merge begins with, and the seconds that it took."""

        def look() -> tuple[Merger, float]:
            merger, start = Merger(self.lab.merger.serving, self.lab.adapter), time.perf_counter()
            merger.look(recipe, sight)
            return merger, time.perf_counter() - start

        return self._mergers.get(recipe.model_copy(update={"repair": None}).key, look)

    def _unmerged(self, cell: Cell) -> list[Adapter]:
        lab = self.lab
        folders = (adapter_folder(lab.backbone.name, name, cell.variant, lab.adapters_root) for name in self._tasks(cell))
        return [load_adapter(folder, lab.backbone) for folder in folders]

    def _tasks(self, cell: Cell) -> dict[str, Task]:
        tasks = self.lab.tasks()
        if cell.recipe:
            return {a.name: tasks[a.name] for a in cell.recipe.adapters}
        return {card.name: tasks[card.name] for card in self.lab.cards() if card.variant == cell.variant}

    def _fingerprint(self, cell: Cell) -> str:
        return self.lab.fingerprint(cell.recipe) if cell.recipe else fingerprint(self._unmerged(cell))

    def _origin(self, cell: Cell) -> Origin:
        return Origin(
            subject="adapter" if cell.alone else "merge" if cell.recipe else HEAD_ONLY if cell.variant == HEAD_ONLY else JOINT,
            recipe=cell.key,
            split=self.images.split,
            seed=self.images.seed,
            method=spell_method(cell.recipe) if cell.recipe else None,
            adapters=cell.recipe.spelled if cell.recipe else "",
            fingerprint=self._fingerprint(cell),
            precision=self.precision,
        )

    def _expected(self, cell: Cell) -> set[tuple[str, str, str, int]]:
        """What the file holds of a cell that was measured: recipe, fingerprint, task and number of images, for each task."""
        fingerprint = self._fingerprint(cell)
        return {(cell.key, fingerprint, name, count) for name, count in self._counts(cell).items() if count}

    def _there(self) -> set[tuple[str, str, str, int]]:
        frame = self.file.read()
        same = (frame.split == self.images.split) & (frame.seed == self.images.seed) & (frame.precision == self.precision)
        columns = (frame.loc[same, name] for name in ("recipe", "fingerprint", "task", "n"))
        return set(zip(*columns, strict=True))

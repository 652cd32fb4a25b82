"""Measure adapters and merges on framed images with labels."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lora_lab import metrics
from lora_lab.backbones import Backbone, Deltas, Features
from lora_lab.data import FOUND_OUT, Crops, Dataset, Reading, find_dataset, load_crops, task_dataset, tell_once, without_faults
from lora_lab.errors import DataError, LoraLabError
from lora_lab.inference import MergedModel
from lora_lab.metrics import Draws, Score
from lora_lab.provenance import commit
from lora_lab.records import Record, Subject
from lora_lab.tasks import Head, Task

BATCH, GPU_BATCH = 64, 512


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Which images are measured: a folder in the layout of the data, a split, and at most how many, by a fixed seed."""

    data: Path
    split: str
    limit: int | None = None
    seed: int = 0
    reading: Reading = FOUND_OUT

    def open(self, task: Task) -> Dataset | None:
        """The data set of a task, None where there is none of it with this split; what is worth knowing of it is told."""
        dataset = find_dataset(task, self.data, self.reading) if self.data.is_dir() else None
        if dataset is None or self.split not in dataset.splits:
            return None
        tell_once(dataset.notes)
        return self._rest(task, dataset)

    def crops(self, task: Task, size: int, dataset: Dataset | None = None) -> Crops:
        """The framed images of a task, from its data set where that is open already."""
        dataset = dataset or self._rest(task, task_dataset(task, self.data, self.reading))
        crops = load_crops(task, dataset, self.split, size)
        if self.limit is None or self.limit >= len(crops):
            return crops
        rows = np.random.default_rng(self.seed).permutation(len(crops))[: self.limit]
        return crops.part(np.sort(rows))

    def _rest(self, task: Task, dataset: Dataset) -> Dataset:
        return without_faults(task, dataset) if self.reading.skip_faulty else dataset


def nothing_to_measure(tasks: Sequence[Task], images: Images) -> LoraLabError:
    """Why there is nothing to measure: what is wrong with the data where one task is asked about."""
    folders = dict.fromkeys(task.folder for task in tasks)
    what = next(iter(folders)) if len(folders) == 1 else "any of these tasks"
    where = f"no {images.split} images of {what} in {images.data}"
    try:
        for task in tasks if len(folders) == 1 else ():
            splits = task_dataset(task, images.data, images.reading).splits
            return DataError(f"{where}: it holds {', '.join(splits)}, or labels that {task.name} does not know")
    except LoraLabError as error:
        return error
    return DataError(f"{where}; it should hold folders such as {next(iter(folders))}/{images.split}.parquet")


@dataclass(frozen=True)
class Origin:
    """What a record is of, beside its task and its figures."""

    subject: Subject
    recipe: str
    split: str
    seed: int = 0
    method: str | None = None
    adapters: str = ""
    fingerprint: str = ""
    precision: str = "float32"


class Testbed:
    """Fixed images, decoded once, on which many models are measured one after another.

    In bfloat16 a forward takes half the time; weights are merged in float32 all the same and rounded once.
    """

    def __init__(self, images: Images, dtype: torch.dtype = torch.float32):
        self.images = images
        self.dtype = dtype
        self._crops: dict[tuple[str, int], Crops | None] = {}
        self._rounded: dict[str, Backbone] = {}
        self._shown: dict[int, list[Tensor]] = {}

    def crops(self, task: Task, size: int) -> Crops | None:
        """The framed images of a task; none where the data has no such split, which is told once."""
        if (task.name, size) not in self._crops:
            dataset = self.images.open(task)
            if dataset is None:
                logger.warning("no %s images of %s in %s: left out", self.images.split, task.folder, self.images.data)
            self._crops[task.name, size] = self.images.crops(task, size, dataset) if dataset else None
        return self._crops[task.name, size]

    def outputs(self, model: MergedModel) -> dict[str, np.ndarray]:
        """Outputs (n, outputs) of every head that has images; one forward serves the heads that share images and deltas."""
        shared: dict[tuple[str, str, int], list[str]] = {}
        for name, head in model.heads.items():
            if self.crops(head.task, model.backbone.image_size) is not None:
                place = (head.task.folder, head.task.stored, id(model.own.get(name, model.deltas)))
                shared.setdefault(place, []).append(name)
        found = {name: outputs for names in shared.values() for name, outputs in self._answers(model, names).items()}
        return {name: found[name] for name in model.heads if name in found}

    def draw(self, model: MergedModel) -> dict[str, Draws]:
        """Metrics of every head that has images, on all images and on draws of them."""
        found = {}
        for name, outputs in self.outputs(model).items():
            task = model.heads[name].task
            crops = self.crops(task, model.backbone.image_size)
            assert crops is not None, "outputs are of tasks with images only"
            found[name] = metrics.draw(task, outputs, crops.targets, crops.normaliser, self.images.seed)
        return found

    @torch.no_grad()
    def _answers(self, model: MergedModel, names: Sequence[str]) -> dict[str, np.ndarray]:
        # Batch by batch, since a mended head may read the patches, which are too many to keep.
        crops = self.crops(model.heads[names[0]].task, model.backbone.image_size)
        assert crops is not None, "asked only about heads with images"
        backbone, deltas = self._in_precision(model.backbone), model.own.get(names[0], model.deltas)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for pixels in self._batches(backbone, crops):
            features = backbone.encode(pixels, deltas)
            for name in names:
                parts[name].append(model.outputs(name, features).float().cpu().numpy())
        return {name: np.concatenate(part) for name, part in parts.items()}

    def _batches(self, backbone: Backbone, crops: Crops) -> Iterable[Float[Tensor, "B 3 H W"]]:
        if backbone.device.type == "cpu":
            return batches(backbone, crops)
        # On a GPU they are kept there, since to send them takes longer than a forward.
        if id(crops) not in self._shown:
            self._shown[id(crops)] = list(batches(backbone, crops))
        return self._shown[id(crops)]

    def _in_precision(self, backbone: Backbone) -> Backbone:
        if self.dtype == backbone.dtype:
            return backbone
        if backbone.fingerprint not in self._rounded:
            self._rounded[backbone.fingerprint] = backbone.to(self.dtype)
        return self._rounded[backbone.fingerprint]


def evaluate(model: MergedModel, images: Images, subject: Subject, recipe_key: str) -> Iterator[Record]:
    """Records of every head of a model, each metric with its 95 % interval.

    Tasks without images are left out with a warning.
    """
    start = time.monotonic()
    origin = Origin(subject, recipe_key, images.split, images.seed)
    testbed = Testbed(images)
    for name, drawn in testbed.draw(model).items():
        task = model.heads[name].task
        crops = testbed.crops(task, model.backbone.image_size)
        scores = [metrics.with_interval(*place, values) for place, values in drawn.items()]
        yield from as_records(scores, task.name, len(crops or ()), origin, start)


def measure(head: Head, pooled: Float[Tensor, "n D"], crops: Crops, origin: Origin, start: float) -> Iterator[Record]:
    """Records of one head from pooled features of its images; `start` is the monotonic second that the work began in."""
    scores = metrics.score(head.task, head_outputs(head, pooled), crops.targets, crops.normaliser, origin.seed)
    yield from as_records(scores, head.task.name, len(crops), origin, start)


def as_records(scores: Iterable[Score], task: str, n: int, origin: Origin, start: float) -> Iterator[Record]:
    """Scores of a task, by its name, on n images as records."""
    seconds = round(time.monotonic() - start, 2)
    for score in scores:
        yield Record(**asdict(origin), **asdict(score), task=task, n=n, seconds=seconds, commit=commit())


def encode_crops(backbone: Backbone, crops: Crops, deltas: Deltas | None) -> Float[Tensor, "n D"]:
    """Pooled features of all crops, as the backbone is shown them."""
    return pooled_features(backbone, crops, lambda pixels: backbone.encode(pixels, deltas))


@torch.no_grad()
def pooled_features(
    backbone: Backbone, crops: Crops, encode: Callable[[Float[Tensor, "B 3 H W"]], Features]
) -> Float[Tensor, "n D"]:
    """Pooled features of all crops by another way to encode them than the backbone's own."""
    return torch.cat([encode(pixels).pooled for pixels in batches(backbone, crops)])


def batches(backbone: Backbone, crops: Crops) -> Iterator[Float[Tensor, "B 3 H W"]]:
    """The crops as the backbone is shown them, some at a time."""
    images = crops.centre(backbone.image_size)
    size = BATCH if backbone.device.type == "cpu" else GPU_BATCH
    for start in range(0, len(images), size):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).to(backbone.device)
        yield backbone.normalise(pixels.permute(0, 3, 1, 2).float() / 255)


@torch.no_grad()
def head_outputs(head: Head, pooled: Float[Tensor, "n D"]) -> np.ndarray:
    """A head's outputs (n, outputs) for pooled features."""
    nothing = pooled.new_zeros(len(pooled), 0, pooled.shape[1])
    return head(Features(pooled, nothing)).float().cpu().numpy()

"""Which data a run is on: by what is in it, not by where it lies, so that a run goes on with its own data or not at all."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lora_lab.adapters import Adapter
from lora_lab.backbones import Backbone
from lora_lab.cache import small_text, whole_file
from lora_lab.data import Crops, Dataset
from lora_lab.data.report import listed
from lora_lab.errors import DataError, MismatchError
from lora_lab.records import Frozen
from lora_lab.tasks import Task
from lora_lab.training.config import TrainConfig


class SplitPrint(Frozen):
    """A split as a run uses it: how many images of each class (or in all), and a digest of images, names and labels."""

    counts: dict[str, int]
    digest: str

    @property
    def images(self) -> int:
        """How many in all."""
        return sum(self.counts.values())


class DataPrint(Frozen):
    """The data of a run: the folders that it lies in, and its splits by "task, split"."""

    folders: tuple[str, ...]
    splits: dict[str, SplitPrint]

    @property
    def key(self) -> str:
        """The same for the same data, wherever it lies."""
        told = json.dumps({name: split.digest for name, split in self.splits.items()}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def split_print(task: Task, names: Sequence[str], crops: Crops) -> SplitPrint:
    """The print of n images: their crops, what they are called, and their targets, in whatever order."""
    rows = []
    for row, name in enumerate(names):
        digest = hashlib.sha256(f"{name}\0".encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(crops.targets[row]).tobytes())
        digest.update(np.ascontiguousarray(crops.pixels[row]).tobytes())
        rows.append(digest.digest())
    whole = hashlib.sha256(json.dumps((task.name, task.labels)).encode())
    for row in sorted(rows):
        whole.update(row)
    counts = {"": len(rows)}
    if task.kind == "classes":
        found = Counter(crops.targets.tolist())
        counts = {label: found[number] for number, label in enumerate(task.labels) if found[number]}
    return SplitPrint(counts=counts, digest=whole.hexdigest()[:32])


def data_print(parts: Iterable[tuple[Task, Dataset, dict[str, Crops]]]) -> DataPrint:
    """The print of all tasks' splits."""
    splits, folders = {}, []
    for task, dataset, crops_of in parts:
        folders.append(str(dataset.folder.resolve()))
        for name, crops in crops_of.items():
            splits[f"{task.name}, {name}"] = split_print(task, dataset.read(name).names, crops)
    return DataPrint(folders=tuple(folders), splits=splits)


def run_name(config: TrainConfig, backbone: Backbone, start: Sequence[Adapter], folders: Sequence[str] = ()) -> str:
    """The name of a run whatever its data; with folders, that which earlier versions gave it."""
    before = " ".join(f"{adapter.card.seed} {adapter.card.images_seen}" for adapter in start)
    key = f"{config.model_dump_json()} {backbone.fingerprint} {' '.join(folders)} {before}"
    return f"{config.task}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def keep_print(data: DataPrint, checkpoint: Path) -> None:
    """Write beside a checkpoint which data it is of."""
    with whole_file(checkpoint.with_suffix(".json")) as part:
        part.write_text(data.model_dump_json(), encoding="utf-8")


def stopped_runs(folder: Path, stem: str) -> dict[Path, DataPrint]:
    """The checkpoints of runs that are alike but for their data, with what they say of it."""
    found = {}
    for path in sorted(folder.glob(f"{stem}-*.pt")):
        try:
            found[path] = DataPrint.model_validate_json(small_text(path.with_suffix(".json"), 50_000_000))
        except (DataError, ValidationError):
            continue
    return found


def refuse_changed(data: DataPrint, stopped: dict[Path, DataPrint]) -> None:
    """Raises `MismatchError` where a run was stopped on the same folders with other data in them."""
    for before in stopped.values():
        if before.folders == data.folders and before.key != data.key:
            raise MismatchError(
                f"the data in {', '.join(data.folders)} has changed since this run was stopped: {_difference(before, data)}; "
                "bring it back, or begin anew with --fresh"
            )


def _difference(before: DataPrint, now: DataPrint) -> str:
    said = [f"{name} is gone" for name in before.splits if name not in now.splits]
    said += [f"{name} is new" for name in now.splits if name not in before.splits]
    for name, old in before.splits.items():
        if name not in now.splits:
            continue
        new = now.splits[name]
        if old.digest == new.digest:
            continue
        lost, won = sorted(old.counts.keys() - new.counts.keys()), sorted(new.counts.keys() - old.counts.keys())
        said += [f"{name} has no {listed(lost)} any more"] if lost else []
        said += [f"{name} has {listed(won)} as well"] if won else []
        if old.images != new.images:
            said.append(f"{name} has {new.images} images and had {old.images}")
        elif not lost and not won:
            moved = old.counts != new.counts
            said.append(f"{name} has other {'labels' if moved else 'images or names'} at the same number of {new.images}")
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more changes" if len(said) > 3 else "")

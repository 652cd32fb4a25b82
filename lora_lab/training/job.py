"""From what a person asks for to a run that can begin: tasks, checked data, adapters to start from; and back onto disk."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_lab.adapters import Adapter, load_adapter, save_adapter
from lora_lab.backbones import Backbone, load_backbone
from lora_lab.cache import cache_folder
from lora_lab.cards import Tuning, adapter_folder, read_card, write_card
from lora_lab.data import FOUND_OUT, Dataset, Reading, find_faults, open_own, own_task, task_dataset
from lora_lab.data.schemes import is_about
from lora_lab.devices import AUTO, find_device
from lora_lab.errors import DataError, LoraLabError, fault_text
from lora_lab.tasks import TASKS, Task
from lora_lab.tasks.base import Framing
from lora_lab.training.config import TrainConfig, default_config, joint_config
from lora_lab.training.finish import finish, finished_card, seed_run
from lora_lab.training.run import Run
from lora_lab.training.workers import workers


@dataclass(frozen=True)
class Wish:
    """What to train, on which data. `task` is a name, several joined by commas, or "all"; `changes` are of the config."""

    task: str
    data: Path
    reading: Reading = FOUND_OUT
    framing: Framing = "square"
    tuning: Tuning = "lora"
    rank: int = 16
    start_from: str | None = None
    backbone: str = "dinov2-small"
    device: str = AUTO
    adapters: Path | None = None
    changes: dict[str, Any] = field(default_factory=dict)


class Job:
    """A wish made ready. Raises `LoraLabError` and its children, with all faults of the data at once."""

    def __init__(self, wish: Wish):
        self._wish = wish
        sources = [_source(name, wish) for name in _names(wish)]
        self.notes: list[str] = [note for _, dataset in sources for note in dataset.notes]
        sources = [(task, self._without_faults(task, dataset)) for task, dataset in sources]
        backbone = load_backbone(wish.backbone).on(find_device(wish.device))
        start = [self._start(task, backbone) for task, _ in sources] if wish.start_from else []
        config = self._without_pretraining(_config(wish, tuple(task for task, _ in sources)), sources)
        self.run = Run(config, sources, backbone, start, workers())

    def folders(self) -> list[Path]:
        """Where the adapters will be written."""
        return [self._folder(part.task.name, finished_card(self.run, part).variant) for part in self.run.parts]

    def log_folder(self) -> Path:
        """Where TensorBoard's files go unless another folder is named."""
        return cache_folder("logs") / self.run.checkpoint_path().stem

    def save(self) -> list[tuple[Adapter, Path]]:
        """Write the adapters of the finished run, and forget its checkpoint."""
        saved = []
        for adapter in finish(self.run):
            folder = self._folder(adapter.card.task, adapter.card.variant)
            save_adapter(adapter, folder)
            saved.append((adapter, folder))
        self.run.forget_checkpoint()
        return saved

    def note_seed(self) -> Path:
        """Put the finished run's score onto the card of the adapter that is there, beside those of other seeds."""
        folder = self.folders()[0]
        card, new = read_card(folder), seed_run(self.run)
        others = [one for one in card.seeds if (one.seed, one.images) != (new.seed, new.images)]
        write_card(card.model_copy(update={"seeds": tuple(sorted([*others, new], key=lambda one: one.seed))}), folder)
        self.run.forget_checkpoint()
        return folder

    def _folder(self, task: str, variant: str) -> Path:
        return adapter_folder(self.run.backbone.name, task, variant, self._wish.adapters)

    def _start(self, task: Task, backbone: Backbone) -> Adapter:
        folder = adapter_folder(backbone.name, task.name, self._wish.start_from or "", self._wish.adapters)
        return load_adapter(folder, backbone)

    def _without_pretraining(self, config: TrainConfig, sources: Sequence[tuple[Task, Dataset]]) -> TrainConfig:
        # The default asks for a split that only our own data has.
        asked = "pretrain_images" in self._wish.changes
        lacking = [t for t, dataset in sources if t.pretrain_split and t.pretrain_split not in dataset.splits]
        if asked or not config.pretrain_images or not lacking:
            return config
        self.notes.append(f"{lacking[0].name} is trained on train alone: there is no split {lacking[0].pretrain_split}")
        return config.model_copy(update={"pretrain_images": 0})

    def _without_faults(self, task: Task, dataset: Dataset) -> Dataset:
        faults = find_faults(task, dataset)
        self.notes += faults.notes
        if not faults:
            return dataset
        if not self._wish.reading.skip_faulty or faults.incurable:
            cure = [] if faults.incurable else ["leave these images out with --skip-faulty, or mend them"]
            raise DataError(f"the data for {task.name} in {dataset.folder} has faults:", *faults.lines, *cure)
        self.notes.append(faults.left_out(task))
        return dataset.without(faults.rows)


def _names(wish: Wish) -> list[str]:
    names = list(TASKS) if wish.task == "all" else [name.strip() for name in wish.task.split(",")]
    if len(names) > 1:
        for name in names:
            TASKS[name]  # raises for a name that is unknown
        if wish.tuning != "lora" or wish.reading.layout:
            raise LoraLabError("several tasks share one LoRA: leave out --head-only, --full and --format")
    return names


def _source(name: str, wish: Wish) -> tuple[Task, Dataset]:
    if name in TASKS:
        task = TASKS[name]
        several = name != wish.task
        reading = wish.reading if not several or is_about(task, wish.reading.labels) else replace(wish.reading, labels=None)
        return task, task_dataset(task, wish.data, reading)
    if near := difflib.get_close_matches(name, TASKS, n=1, cutoff=0.8):
        raise LoraLabError(f"no task {name!r}; did you mean {near[0]!r}? A task of your own needs a name less like it")
    dataset = open_own(wish.data, wish.reading)
    return own_task(name, dataset, wish.framing), dataset


def _config(wish: Wish, tasks: tuple[Task, ...]) -> TrainConfig:
    first, *others = tasks
    if others:
        config = joint_config(tasks, wish.backbone, wish.rank)
    else:
        config = default_config(first, wish.backbone, wish.tuning, wish.rank)
    try:
        return TrainConfig.model_validate(config.model_dump() | {"start_from": wish.start_from} | wish.changes)
    except ValidationError as error:
        faults = "; ".join(map(fault_text, error.errors(include_url=False, include_input=False)))
        raise LoraLabError(f"these settings will not do: {faults}; there are {', '.join(TrainConfig.model_fields)}") from error

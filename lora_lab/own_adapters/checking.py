"""Whether an adapter that someone brings fits the backbone; all that is wrong is told at once, a line each."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError

from lora_lab.adapters import HEAD, load_card_head, load_statistics
from lora_lab.backbones import Backbone
from lora_lab.cards import CARD, AdapterCard, read_card
from lora_lab.data.own import METRICS
from lora_lab.errors import DataError, LoraLabError, MismatchError
from lora_lab.lora import Factors
from lora_lab.own_adapters.sources import Source
from lora_lab.peft_files import CONFIG, FACTORS, read_factors
from lora_lab.statistics import Statistics
from lora_lab.tasks import Head, Task

PICKLE = "adapter_model.bin"
MOST_OUTPUTS = 2000
NO_HEAD = (
    f"has no head ({HEAD} with our {CARD}), so nobody can say what its features mean: give a few labelled images, a folder a "
    "class, from which a head is trained"
)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Candidate:
    """An adapter that fits the backbone: its factors, and what came along with our own card, where there is one."""

    factors: Factors
    card: AdapterCard | None = None
    head: Head | None = None
    statistics: Statistics | None = None

    @property
    def rank(self) -> int:
        """The highest rank of any module."""
        return max(pair.rank for pair in self.factors.values())


def check(source: Source, backbone: Backbone, needs_head: bool) -> Candidate:
    """What a source holds, if it is all in order; with `needs_head` a head has to be there.

    Raises `MismatchError` with a line for each fault.
    """
    faults: list[str] = []
    factors = _factors(source, backbone, faults)
    card = _tried(lambda: _card(source.folder, backbone), faults) if CARD in source.names else None
    head = statistics = None
    if needs_head and not (HEAD in source.names and CARD in source.names):
        faults.append(NO_HEAD)
    elif needs_head and card:
        head = _tried(lambda: _head(source.folder, card, backbone.width), faults)
        statistics = _tried(lambda: _statistics(source.folder, factors, backbone), faults)
    if faults:
        lines = (line.replace(f"{source.folder}{os.sep}", "").replace(str(source.folder), "the source") for line in faults)
        raise MismatchError(f"{source.title} cannot be taken:", *lines)
    return Candidate(factors, card, head, statistics)


def _tried(read: Callable[[], T], faults: list[str]) -> T | None:
    try:
        return read()
    except LoraLabError as error:
        faults.append(str(error))
        return None


def _factors(source: Source, backbone: Backbone, faults: list[str]) -> Factors:
    missing = [name for name in (CONFIG, FACTORS) if name not in source.names]
    if FACTORS in missing and PICKLE in source.names:
        missing.remove(FACTORS)
        faults.append(f"{PICKLE} is a pickle, which can run any code when it is opened: save the adapter as {FACTORS}")
    faults += [f"there is no {name}: give the folder that peft's save_pretrained wrote" for name in missing]
    if missing or FACTORS not in source.names:
        return {}
    factors, told = _tried(lambda: read_factors(source.folder, backbone), faults) or ({}, [])
    faults += [f"it {line}" for line in told]
    return factors


def _card(folder: Path, backbone: Backbone) -> AdapterCard:
    card = read_card(folder)
    if card.fingerprint != backbone.fingerprint:
        raise MismatchError(
            f"it was trained on {card.backbone} with the fingerprint {card.fingerprint[:12]}, "
            f"but this is {backbone.name} with {backbone.fingerprint[:12]}: load the backbone it names"
        )
    return card


def _head(folder: Path, card: AdapterCard, width: int) -> Head:
    task = _task(card)
    head = load_card_head(card.model_copy(update={"own_task": task.to_json()}), width, folder)
    if not all(tensor.isfinite().all() for tensor in head.state_dict().values()):
        raise DataError(f"{HEAD} holds values that are not finite: save it again")
    return head


def _task(card: AdapterCard) -> Task:
    # What a stranger's card says of its task is read by nobody else before it is checked here.
    if card.own_task is None:
        return card.load_task()
    task = card.load_task()
    known = task.metrics and set(task.metrics) <= set(METRICS[task.kind])
    if not known or not 0 < task.outputs <= MOST_OUTPUTS or len(set(task.labels)) < len(task.labels):
        told = f"metrics {', '.join(METRICS[task.kind])}, labels that differ, and 1 to {MOST_OUTPUTS} outputs"
        raise DataError(f"{CARD} has a task that will not do; it takes {told}")
    return replace(task, folder=Path(task.folder).name)


def _statistics(folder: Path, factors: Factors, backbone: Backbone) -> Statistics | None:
    try:
        found = load_statistics(folder)
        grams = list(found.by_target(factors).values()) if found else []
    except (KeyError, IndexError, RuntimeError, OSError, SafetensorError, DataError) as error:
        raise DataError("statistics.safetensors cannot be read: leave it out, and RegMean will do without") from error
    square = torch.Size((backbone.width, backbone.width))
    if not all(gram.shape == square and gram.isfinite().all() for gram in grams):
        raise DataError(f"statistics.safetensors is not of width {backbone.width}, or not finite: leave it out")
    return found

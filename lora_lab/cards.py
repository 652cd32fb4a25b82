"""The card beside an adapter: what it is, how it was trained, what it scores; and where each adapter's folder lies."""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lora_lab.bundled import bundled
from lora_lab.cache import cache_folder, small_text, whole_file
from lora_lab.errors import DataError, LoraLabError, NotFoundError, first_fault
from lora_lab.names import AdapterName, BackboneName, TaskName, folder_of, is_name
from lora_lab.records import Frozen
from lora_lab.tasks import TASKS, Task

PRETRAINED = Path(os.environ.get("LORA_LAB_ADAPTERS", bundled("pretrained_adapters")))
logger = logging.getLogger(__name__)

CARD = "card.json"
HEAD_ONLY, FULL, JOINT = "head_only", "full", "joint"

Tuning = Literal["lora", "head_only", "full"]


class ScoreEntry(Frozen):
    """A score on a card: value and 95 % interval over n images."""

    value: float
    low: float
    high: float
    n: int


class Calibration(Frozen):
    """How sure an answer is, fitted on n val images of one model, an adapter alone or a saved merge: it holds for no other.

    Classes: logits are divided by `temperature`; `ece` is the expected calibration error in percent, before and after.
    Fits give 0.2 to 5; far outside, a ranking is reversed, all classes are equally likely, or values are not finite.
    Numbers: the truth lies between `low` and `high`, added to the answer, in 90 % of the images; `coverage` in percent is
    what the bounds of one half of the images reach on the other.
    """

    n: int
    temperature: Annotated[float, Field(ge=0.01, le=100)] | None = None
    ece: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    coverage: float | None = None


class Gate(Frozen):
    """Images whose pooled feature has a cosine below `threshold` with every class mean are unlike the training images.

    `passed` is the share of the task's own val images that the gate lets through, in percent.
    """

    threshold: Annotated[float, Field(ge=-1, le=1)]
    passed: float


class SeedRun(Frozen):
    """The first metric on val of one of several runs that differ in nothing but the seed."""

    seed: int
    images: int
    value: float


class AdapterCard(Frozen):
    """What an adapter is.

    `tuning` says what was trained beside the head, `joint` with which tasks the factors were trained together, and
    `factors` where these lie, seen from the card's folder. One of a `schedule` that is named was trained otherwise than the
    adapter of its rank, and stays to compare with. `own_task` is the task where it is none of the catalog.
    `scores` are by split and metric, recall as "recall: label".
    """

    name: AdapterName
    task: TaskName
    task_version: str
    backbone: BackboneName
    fingerprint: str
    image_size: int
    tuning: Tuning = "lora"
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    joint: tuple[str, ...] = ()
    schedule: Literal["short"] | None = None
    factors: Annotated[str, Field(pattern=r"^(\.|\.\./\.\./joint/r[0-9]{1,4})$")] = "."
    own_task: dict[str, Any] | None = None
    training: dict[str, Any]
    seed: int
    images_seen: int
    seconds: float
    commit: str | None
    data: str
    licence: str
    detector: str | None = None
    detection_rate: dict[str, float] = Field(default_factory=dict)
    scores: dict[str, dict[str, ScoreEntry]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    gate: Gate | None = None
    seeds: tuple[SeedRun, ...] = ()

    @property
    def variant(self) -> str:
        """The name of the adapter's folder in that of its task: r16, r16_short, joint_r16, head_only, full."""
        if self.tuning != "lora":
            return self.tuning
        return "_".join(filter(None, (JOINT if self.joint else "", f"r{self.rank}", self.schedule)))

    @property
    def mergeable(self) -> bool:
        """Whether it has factors of its own task, to be merged with others."""
        return self.tuning == "lora" and not self.joint and not self.schedule

    def load_task(self) -> Task:
        """The task: the catalog's, or the one that the card brings along. Raises `NotFoundError` and `DataError`."""
        return TASKS[self.task] if self.own_task is None else Task.from_json(self.own_task)


def rank_folder(rank: int) -> str:
    """The variant of an adapter by its rank, 0 for a head alone."""
    return f"r{rank}" if rank else HEAD_ONLY


def adapter_folder(backbone: str, task: str, variant: str, root: Path | None = None) -> Path:
    """Where an adapter is kept: <root>/<backbone>/<task>/<variant>. Raises `NotFoundError` for what is no name."""
    if not is_name(task):
        raise NotFoundError(f"no adapter named {task!r}: a name has 1 to 64 letters, digits, - and _")
    return (root or PRETRAINED) / folder_of(backbone) / task / variant


def roots_of(given: Path | None) -> tuple[Path, ...]:
    """Where adapters are looked for: in the given root alone; else among those of LoRA Lab, and then the user's own."""
    return (given,) if given else (PRETRAINED, own_root())


def own_root() -> Path:
    """Where the adapters lie that the user has brought."""
    return cache_folder("adapters")


def cards_of(backbone: str, roots: Sequence[Path]) -> list[AdapterCard]:
    """The cards of all adapters in several roots; a name in an earlier one hides the same name in a later."""
    found: list[AdapterCard] = []
    for root in roots:
        taken = {card.name for card in found}
        found += [card for card in list_cards(backbone, root) if card.name not in taken]
    return found


def list_cards(backbone: str, root: Path | None = None) -> list[AdapterCard]:
    """The cards of all adapters of a backbone: the catalog's tasks in their order, then others; ranks rising.

    One that cannot be read, or that lies in another folder than it names, is left out with a warning.
    """
    folder = (root or PRETRAINED) / folder_of(backbone)
    cards = [card for path in cards_below(folder, f"*/*/{CARD}") if (card := _readable(path.parent))]
    order = {name: place for place, name in enumerate(TASKS)}
    return sorted(
        cards,
        key=lambda card: (order.get(card.task, len(order)), card.task, _place(card)),
    )


def cards_below(folder: Path, pattern: str) -> list[Path]:
    """The cards below a folder, in order; hidden folders, which a process left that was killed while it wrote, do not count."""
    return [path for path in sorted(folder.glob(pattern)) if not any(part[0] == "." for part in path.relative_to(folder).parts)]


def _place(card: AdapterCard) -> tuple:
    return bool(card.joint), card.tuning == FULL, card.rank, card.schedule or ""


def _readable(folder: Path) -> AdapterCard | None:
    try:
        card = read_card(folder)
    except LoraLabError as error:
        warn(f"{error}; it is left out")
        return None
    if (card.name, card.variant) != (folder.parent.name, folder.name):
        warn(f"the card in {folder} is that of {card.name}/{card.variant}; it is left out: give the folder the card's name")
        return None
    return card


@lru_cache(1024)
def warn(line: str) -> None:
    """Log a warning, the same one once."""
    logger.warning("%s", line)


def read_card(folder: Path) -> AdapterCard:
    """The card in an adapter's folder. Raises `NotFoundError` and `DataError`."""
    path = folder / CARD
    try:
        stamp = path.stat()
    except OSError:
        raise NotFoundError(f"no adapter in {folder}: it has no {CARD}; see `lora-lab adapters` for what there is") from None
    return _read(path, (stamp.st_ino, stamp.st_mtime_ns, stamp.st_size))


@lru_cache(256)
def _read(path: Path, _stamp: tuple[int, int, int]) -> AdapterCard:
    # The page asks for all cards at every move of a slider.
    try:
        return AdapterCard.model_validate_json(small_text(path))
    except ValidationError as error:
        raise DataError(f"{path} is no adapter card: {first_fault(error)}") from error


def write_card(card: AdapterCard, folder: Path) -> None:
    """Put a card into an adapter's folder, in place of the one there."""
    with whole_file(folder / CARD) as part:
        part.write_text(card.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")

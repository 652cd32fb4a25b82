"""Adapters on disk: peft's own two files, the head, the statistics, and the card."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lora_lab.backbones import Backbone, pretrained
from lora_lab.cache import whole_folder
from lora_lab.cards import FULL, AdapterCard, Calibration, read_card, write_card
from lora_lab.errors import DataError, MismatchError
from lora_lab.lora import Factors
from lora_lab.peft_files import load_factors, save_peft
from lora_lab.statistics import Statistics
from lora_lab.tasks import Head, load_head, save_head

HEAD, STATISTICS, _WEIGHTS = (f"{name}.safetensors" for name in ("head", "statistics", "model"))


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in memory: its card, its factors with the scaling folded in (none for a head alone), and its head.

    `statistics` are of the inputs that it saw in training, where they are at hand; `tuned` is the backbone itself, where all
    of its weights were trained.
    """

    card: AdapterCard
    factors: Factors
    head: Head
    statistics: Statistics | None = None
    tuned: Backbone | None = None

    @property
    def name(self) -> str:
        return self.card.name


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter's files; `peft.PeftModel.from_pretrained` on the plain backbone reads them.

    Where all weights were trained, `transformers.AutoModel.from_pretrained` reads them from the same folder.
    """
    with whole_folder(folder) as part:
        if adapter.factors and adapter.card.factors == ".":
            save_peft(adapter.factors, part, adapter.card.backbone)
        elif adapter.factors:
            # Those that several tasks share lie elsewhere, and go first: nobody finds them but by a card.
            with whole_folder(folder / adapter.card.factors) as shared:
                save_peft(adapter.factors, shared, adapter.card.backbone)
        if adapter.tuned:
            adapter.tuned.module.save_pretrained(str(part))  # type: ignore[operator]
        save_head(adapter.head, part / HEAD)
        if adapter.statistics:
            save_file(adapter.statistics.packed(), part / STATISTICS)
        write_card(adapter.card, part)


def load_statistics(folder: Path) -> Statistics | None:
    """The statistics beside an adapter, or none. Raises `DataError` for what cannot be read."""
    path = folder / STATISTICS
    if not path.exists():
        return None
    try:
        return Statistics.unpack(load_file(path))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{path} holds no statistics that can be read: {reason}") from error


def load_adapter(folder: Path, backbone: Backbone) -> Adapter:
    """Read an adapter for a backbone.

    Raises `NotFoundError` where there is none and `MismatchError` where it was trained on other weights.
    """
    card = read_card(folder)
    if card.fingerprint != backbone.fingerprint:
        raise MismatchError(
            f"the adapter in {folder} was trained on {card.backbone} with the fingerprint {card.fingerprint[:12]}, "
            f"but this is {backbone.name} with {backbone.fingerprint[:12]}: load the backbone it names"
        )
    head = load_card_head(card, backbone.width, folder).to(backbone.device)
    factors = load_factors(folder / card.factors, backbone) if card.rank else {}
    weights = card.tuning == FULL and (folder / _WEIGHTS).exists()
    return Adapter(card, factors, head, tuned=pretrained.load(str(folder)).on(backbone.device) if weights else None)


def load_card_head(card: AdapterCard, width: int, folder: Path) -> Head:
    """The head that lies beside a card, as sure of its answers as the card's calibration has it. Raises `DataError`."""
    head = load_head(card.load_task(), width, folder / HEAD)
    return calibrated(head, card.calibration) if card.calibration else head


def calibrated(head: Head, calibration: Calibration) -> Head:
    """A head with the same weights, as sure of its answers as a calibration of the model that it reads has it."""
    twin = copy(head)
    twin.calibrated = True
    if calibration.temperature:
        twin.temperature = calibration.temperature
    if calibration.low is not None and calibration.high is not None:
        twin.interval = (calibration.low, calibration.high)
    return twin


def uncalibrated(head: Head) -> Head:
    """A head with the same weights, for another model than it was calibrated on; as sure as there, for want of better."""
    twin = copy(head)
    twin.calibrated = False
    return twin


def fingerprint(adapters: Sequence[Adapter]) -> str:
    """16 hex digits over the factors and heads of adapters, in whatever order: figures of others are not theirs."""
    digests = []
    for adapter in adapters:
        digest = hashlib.sha256(adapter.name.encode())
        factors = {f"{target}.{part}": getattr(pair, part) for target, pair in adapter.factors.items() for part in "ab"}
        for name, tensor in sorted({**factors, **adapter.head.state_dict()}.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]

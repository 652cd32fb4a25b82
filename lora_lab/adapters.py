"""Adapters on disk: peft's own two files, the head, and a card that says what they are and what they score."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from peft import LoraConfig
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.cache import whole_file
from lora_lab.catalog import unknown
from lora_lab.errors import DataError, MismatchError, NotFoundError
from lora_lab.lora import Factors, LoraFactors
from lora_lab.records import Frozen
from lora_lab.tasks import TASKS, Head, make_head

PRETRAINED = Path(os.environ.get("LORA_LAB_ADAPTERS", Path(__file__).parent.parent / "pretrained_adapters"))
HEAD_ONLY = "head_only"

_CARD, _HEAD, _FACTORS, _CONFIG = "card.json", "head.safetensors", "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in LoRA",
    "modules_to_save": "modules saved beside LoRA",
    "layer_replication": "replicated layers",
    "fan_in_fan_out": "transposed weights",
}


class ScoreEntry(Frozen):
    """A score on a card: value and 95 % interval over n images."""

    value: float
    low: float
    high: float
    n: int


class AdapterCard(Frozen):
    """What an adapter is. `rank` 0 is a head alone; `scores` are by split and metric, recall as "recall: label"."""

    name: str
    task: str
    task_version: str
    backbone: str
    fingerprint: str
    image_size: int
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
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


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter in memory: its card, its factors with the scaling folded in (none for a head alone), and its head."""

    card: AdapterCard
    factors: Factors
    head: Head

    @property
    def name(self) -> str:
        return self.card.name


def rank_folder(rank: int) -> str:
    """The name of an adapter's folder by its rank."""
    return f"r{rank}" if rank else HEAD_ONLY


def adapter_folder(backbone: str, task: str, rank: int, root: Path | None = None) -> Path:
    """Where an adapter is kept: <root>/<backbone>/<task>/<rank>."""
    return (root or PRETRAINED) / backbone.replace("/", "--") / task / rank_folder(rank)


def list_cards(backbone: str, root: Path | None = None) -> list[AdapterCard]:
    """The cards of all adapters of a backbone, tasks in their order, ranks rising."""
    folder = (root or PRETRAINED) / backbone.replace("/", "--")
    cards = [read_card(path.parent) for path in folder.glob(f"*/*/{_CARD}")]
    order = list(TASKS)
    return sorted(cards, key=lambda card: (order.index(card.task), card.rank))


def read_card(folder: Path) -> AdapterCard:
    """The card in an adapter's folder. Raises `NotFoundError` and `DataError`."""
    path = folder / _CARD
    if not path.exists():
        raise NotFoundError(f"no adapter in {folder}: it has no {_CARD}; see `lora-lab adapters` for what there is")
    try:
        return AdapterCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path} is no adapter card: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def write_card(card: AdapterCard, folder: Path) -> None:
    """Put a card in its folder, in place of the one that is there."""
    with whole_file(folder / _CARD) as part:
        part.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter's files; `peft.PeftModel.from_pretrained` on the plain backbone reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    if adapter.factors:
        save_peft(adapter.factors, folder, adapter.card.backbone)
    with whole_file(folder / _HEAD) as part:
        save_file({name: tensor.contiguous() for name, tensor in adapter.head.state_dict().items()}, part)
    write_card(adapter.card, folder)


def save_peft(factors: Factors, folder: Path, backbone: str) -> None:
    """Write factors as peft's two files, with alpha = r since the scaling is folded in."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {target: pair.rank for target, pair in factors.items()}
    rank = max(ranks.values())
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=list(factors),
        rank_pattern={target: r for target, r in ranks.items() if r != rank},
        alpha_pattern={target: r for target, r in ranks.items() if r != rank},
        base_model_name_or_path=backbone,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    tensors: dict[str, Tensor] = {}
    for target, pair in factors.items():
        tensors[f"{_PREFIX}{target}.lora_A.weight"] = pair.a.detach().contiguous()
        tensors[f"{_PREFIX}{target}.lora_B.weight"] = pair.b.detach().contiguous()
    with whole_file(folder / _FACTORS) as part:
        save_file(tensors, part)


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
    head = make_head(TASKS[card.task], backbone.width)
    try:
        head.load_state_dict(load_file(folder / _HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{folder / _HEAD} is no head for {card.task}: {str(error).splitlines()[0]}") from error
    factors = load_factors(folder, backbone) if card.rank else {}
    return Adapter(card, factors, head.eval().requires_grad_(False))


def load_factors(folder: Path, backbone: Backbone) -> dict[str, LoraFactors]:
    """Factors from peft's two files, alpha/r (or alpha/√r) folded into B.

    Raises `MismatchError` for what is not plain LoRA, and for factors that do not fit the backbone.
    """
    try:
        config = cast(LoraConfig, LoraConfig.from_pretrained(str(folder)))
        tensors = load_file(folder / _FACTORS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} holds no peft LoRA that can be read: {str(error).splitlines()[0]}") from error
    refused = [what for field, what in _REFUSED.items() if getattr(config, field, None)]
    if refused:
        raise MismatchError(f"the adapter in {folder} uses {', '.join(refused)}; only plain LoRA can be merged")
    return _scaled_factors(config, tensors, folder, backbone)


def _scaled_factors(
    config: LoraConfig, tensors: Mapping[str, Tensor], folder: Path, backbone: Backbone
) -> dict[str, LoraFactors]:
    known = set(backbone.target_modules)
    factors = {}
    for name, a in tensors.items():
        if not name.endswith("lora_A.weight"):
            continue
        target = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        if target not in known:
            raise MismatchError(f"the adapter in {folder}: {unknown('target module', target, known)}")
        b = tensors[name.replace("lora_A", "lora_B")]
        rank = a.shape[0]
        if (*b.shape, a.shape[1]) != (backbone.weight(target).shape[0], rank, backbone.weight(target).shape[1]):
            raise MismatchError(f"the adapter in {folder} has the wrong shape for {target} of {backbone.name}")
        alpha = (config.alpha_pattern or {}).get(target, config.lora_alpha)
        scaling = alpha / (rank**0.5 if config.use_rslora else rank)
        factors[target] = LoraFactors(a.float(), scaling * b.float())
    if not factors:
        raise MismatchError(f"the adapter in {folder} has no LoRA factors")
    return factors

"""Adapters on disk: peft's own two files, the head, the statistics, and the card."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.backbones import Backbone, pretrained
from lora_lab.cache import whole_file
from lora_lab.cards import FULL, AdapterCard, read_card, write_card
from lora_lab.catalog import unknown
from lora_lab.errors import DataError, MismatchError
from lora_lab.lora import Factors, LoraFactors
from lora_lab.statistics import Statistics
from lora_lab.tasks import Head, load_head

_HEAD, _FACTORS, _STATISTICS, _WEIGHTS = (f"{name}.safetensors" for name in ("head", "adapter_model", "statistics", "model"))
_PREFIX = "base_model.model."
_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in LoRA",
    "modules_to_save": "modules saved beside LoRA",
    "layer_replication": "replicated layers",
    "fan_in_fan_out": "transposed weights",
}


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
    folder.mkdir(parents=True, exist_ok=True)
    if adapter.factors:
        save_peft(adapter.factors, folder / adapter.card.factors, adapter.card.backbone)
    if adapter.tuned:
        adapter.tuned.module.save_pretrained(str(folder))  # type: ignore[operator]
    with whole_file(folder / _HEAD) as part:
        save_file({name: tensor.contiguous() for name, tensor in adapter.head.state_dict().items()}, part)
    if adapter.statistics:
        with whole_file(folder / _STATISTICS) as part:
            save_file(adapter.statistics.packed(), part)
    write_card(adapter.card, folder)


def load_statistics(folder: Path) -> Statistics | None:
    """The statistics beside an adapter, or none."""
    path = folder / _STATISTICS
    return Statistics.unpack(load_file(path)) if path.exists() else None


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
    head = load_head(card.load_task(), backbone.width, folder / _HEAD)
    if card.calibration and card.calibration.temperature:
        head.temperature = card.calibration.temperature
    if card.calibration and card.calibration.low is not None and card.calibration.high is not None:
        head.interval = (card.calibration.low, card.calibration.high)
    factors = load_factors(folder / card.factors, backbone) if card.rank else {}
    weights = card.tuning == FULL and (folder / _WEIGHTS).exists()
    return Adapter(card, factors, head, tuned=pretrained.load(str(folder)) if weights else None)


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

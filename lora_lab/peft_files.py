"""Factors in peft's two files, `adapter_config.json` and `adapter_model.safetensors`, and what of them cannot be merged."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.backbones import Backbone
from lora_lab.cache import LFS_POINTER, small_text, whole_file
from lora_lab.errors import DataError, MismatchError, shortened
from lora_lab.lora import Factors, LoraFactors

CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"
MOST_TENSORS, MOST_PATTERNS = 10_000, 1_000
_PREFIX = "base_model.model."
# What torch's parallel and compiled modules, and peft around peft, put before a module's name; the adapter's own name may stand
# after the factor's.
_FACTOR = re.compile(r"(?:(?:base_model\.model|module|_orig_mod)\.)*(?P<name>.+)\.lora_A(?:\.[A-Za-z0-9_-]+)?\.weight")
_PATTERN = re.compile(r"\^?[\w.]{1,200}")
# What peft's other settings are called for people; each of them changes what the factors mean.
_TITLES = {
    "use_dora": "DoRA",
    "lora_bias": "a bias in LoRA",
    "bias": "trained biases",
    "modules_to_save": "modules saved beside LoRA",
    "layer_replication": "replicated layers",
    "fan_in_fan_out": "transposed weights",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "factors of bare parameters",
}
# Settings that are read here, or that say nothing about what the factors do once they are trained.
_PLAIN = frozenset(
    (
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "runtime_config"),
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "init_lora_weights"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying"),
    )
)
# Other beginnings take something away from the backbone's weights, which the factors then stand for.
_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, eq=False)
class _Found:
    """A target module's tensors under the name that they have in the file."""

    name: str
    a: Tensor
    b: Tensor


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
    with whole_file(folder / FACTORS) as part:
        save_file(tensors, part)


def load_factors(folder: Path, backbone: Backbone) -> dict[str, LoraFactors]:
    """Factors from peft's two files, alpha/r (or alpha/√r) folded into B.

    Raises `MismatchError` for what is not plain LoRA, and for factors that do not fit the backbone.
    """
    factors, faults = read_factors(folder, backbone)
    if faults:
        raise MismatchError(f"the adapter in {folder} {'; it '.join(faults)}")
    return factors


def read_factors(folder: Path, backbone: Backbone) -> tuple[dict[str, LoraFactors], list[str]]:
    """The factors, and what keeps them from being merged: a line each, as what "it" does; the factors count without any.

    Raises `DataError` where the files cannot be read.
    """
    try:
        settings = json.loads(small_text(folder / CONFIG))
        kind, strange = _looked_through(settings)
        if kind != "LORA":
            return {}, [f"is of peft's type {kind}; only LORA can be merged"]
        config = {**_defaults(), **settings}
        tensors = _tensors(folder / FACTORS)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{folder} holds no peft LoRA that can be read: {reason}") from error
    refused = [*_refused(config), *(f"the setting {name}, which is not known here" for name in strange if settings[name])]
    faults = [f"uses {', '.join(refused)}; only plain LoRA can be merged"] if refused else []
    found, others = _found(tensors, backbone)
    if others and not refused:
        faults.append(f"holds {_named(others)}, which are no pairs of LoRA factors")
    if not tensors:
        faults.append("has no LoRA factors")
    faults += [*_number_faults(config), *_misfits(found, backbone)]
    if faults:
        return {}, faults
    return _scaled(config, found)


def _scaled(config: Mapping[str, Any], found: Mapping[str, _Found]) -> tuple[dict[str, LoraFactors], list[str]]:
    ranks = _by_pattern(config["rank_pattern"], config["r"], found)
    alphas = _by_pattern(config["alpha_pattern"], config["lora_alpha"], found)
    other_ranks = [target for target, one in found.items() if ranks[target] != one.a.shape[0]]
    if other_ranks:
        return {}, [f"has another rank than {CONFIG} says for {_named(other_ranks)}"]
    factors = {}
    for target, one in found.items():
        scaling = alphas[target] / (ranks[target] ** 0.5 if config["use_rslora"] else ranks[target])
        factors[target] = LoraFactors(one.a.float(), scaling * one.b.float())
    endless = [target for target, pair in factors.items() if not pair.delta().isfinite().all()]
    if endless:
        return {}, [f"has factors so large that their product is not finite, for {_named(endless)}"]
    return factors, []


def _tensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DataError(f"{path} is a pointer of git-lfs and not the file itself: fetch it with `git lfs pull`")
    tensors = load_file(path)
    if len(tensors) > MOST_TENSORS:
        raise DataError(f"{path} holds {len(tensors)} tensors, over {MOST_TENSORS}: is it an adapter?")
    return tensors


def _looked_through(settings: Any) -> tuple[str, list[str]]:
    # The type, and the settings that this peft does not know: it would leave them out with a warning.
    if not isinstance(settings, dict):
        raise ValueError(f"{CONFIG} is no JSON object")
    return str(settings.get("peft_type")), sorted(settings.keys() - _defaults().keys())


@cache
def _defaults() -> dict[str, Any]:
    # No LoraConfig is made of a stranger's settings: it would warn of some and run what belongs to others.
    default = LoraConfig()
    return {field.name: getattr(default, field.name) for field in fields(LoraConfig)}


def _refused(config: Mapping[str, Any]) -> list[str]:
    names = [name for name in _defaults() if name not in _PLAIN]
    changed = [name for name in names if config[name] and config[name] != _defaults()[name]]
    refused = [_TITLES.get(name, name) for name in changed]
    if config["init_lora_weights"] not in _BEGINNINGS:
        refused.append(f"a beginning that changes the backbone ({config['init_lora_weights']})")
    return refused


def _number_faults(config: Mapping[str, Any]) -> list[str]:
    faults = []
    for field in ("rank_pattern", "alpha_pattern"):
        pattern = config[field] or {}
        if isinstance(pattern, dict) and len(pattern) > MOST_PATTERNS:
            faults.append(f"has a {field} of {len(pattern)} names, over {MOST_PATTERNS}")
        elif not isinstance(pattern, dict) or not all(_PATTERN.fullmatch(str(key)) for key in pattern):
            faults.append(f"has a {field} that is none of module names and numbers")
        elif not all(_is_number(value) for value in pattern.values()):
            faults.append(f"has a {field} with a value that is no number above 0")
    for field in ("r", "lora_alpha"):
        if not _is_number(config[field]):
            faults.append(f"says {field} = {shortened(repr(config[field]), 40)}, which is no number above 0")
    if not isinstance(config["use_rslora"], bool):
        faults.append(f"says use_rslora = {shortened(repr(config['use_rslora']), 40)}, which is neither true nor false")
    return faults


def _is_number(value: Any) -> bool:
    # Above what float32 holds, a scaling is infinite.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < torch.finfo(torch.float32).max


def _found(tensors: Mapping[str, Tensor], backbone: Backbone) -> tuple[dict[str, _Found], list[str]]:
    # A backbone within a model with a head of its own has the model's name for it before the module's.
    within = f"{getattr(backbone.module, 'base_model_prefix', '')}."
    found: dict[str, _Found] = {}
    others = set(tensors)
    for key, a in tensors.items():
        match, other = _FACTOR.fullmatch(key), key.replace(".lora_A.", ".lora_B.")
        if match is None or other not in tensors:
            continue
        target = match["name"].removeprefix(within)
        if target not in found:
            found[target] = _Found(match["name"], a, tensors[other])
            others -= {key, other}
    return found, sorted(others)


def _misfits(found: Mapping[str, _Found], backbone: Backbone) -> list[str]:
    strange = [target for target in found if target not in backbone.target_modules]
    wrong, whole, endless = [], [], []
    for target in found.keys() - strange:
        a, b = found[target].a, found[target].b
        rank, fits = a.shape[0] if a.ndim == 2 else 0, backbone.weight(target).shape
        if not rank or (*b.shape, *a.shape) != (fits[0], rank, rank, fits[1]):
            wrong.append(target)
        elif not (a.is_floating_point() and b.is_floating_point()):
            whole.append(target)
        elif not (a.float().isfinite().all() and b.float().isfinite().all()):
            endless.append(target)
    faults = []
    if strange:
        told = f"{backbone.name} has {_named(backbone.target_modules)}"
        faults.append(f"has factors for what is no target module named so in the backbone: {_named(strange)}; {told}")
    if wrong:
        faults.append(f"has the wrong shape for {_named(wrong)} of {backbone.name}")
    if whole:
        faults.append(
            f"holds no floating-point numbers for {_named(whole)} (quantised, or complex?); save it in floating point"
        )
    if endless:
        faults.append(f"has values that are not finite in {_named(endless)}")
    return faults


def _by_pattern(pattern: Any, otherwise: Any, found: Mapping[str, _Found]) -> dict[str, Any]:
    """By target its number: that of the first key that the module's name ends in, as in peft, or else `otherwise`."""
    numbers: dict[str, Any] = {}
    # Each key is compiled once, which peft does for every module anew.
    for key, value in (pattern or {}).items():
        ending = re.compile(rf"(.*\.)?({key})$")
        for target, one in found.items():
            if target not in numbers and ending.match(one.name):
                numbers[target] = value
    return {target: numbers.get(target, otherwise) for target in found}


def _named(names: Iterable[str]) -> str:
    """Names in one line, those of all layers as one, such as "layer.*.k_proj"."""
    return ", ".join(sorted({re.sub(r"\d+", "*", name) for name in names}))

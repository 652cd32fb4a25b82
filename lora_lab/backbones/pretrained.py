"""Any ViT or DINOv2 of transformers, by hub id or from a local folder.

The paper's backbone is here: ViT-B/16 pre-trained on ImageNet-21k (Dosovitskiy et al. 2020, arXiv 2010.11929), as used by
Kesim and Helli (arXiv 2411.14064).
"""

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from lora_lab.backbones.base import Backbone, fingerprint
from lora_lab.backbones.dinov2_small import IMAGENET_MEAN, IMAGENET_STD
from lora_lab.errors import BackboneUnavailableError, MismatchError

logger = logging.getLogger(__name__)

VIT_BASE = "google/vit-base-patch16-224-in21k"
HALF = (0.5, 0.5, 0.5)
SUPPORTED = ("vit", "dinov2")
POOLER = "pooler."
# What transformers raises for a configuration or weights that are not what they should be.
_BROKEN = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RuntimeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)
Triple = tuple[float, float, float]


def load(source: str) -> Backbone:
    """The backbone at a hub id or in a folder that `save_pretrained` wrote.

    Where the weights have no pooler, the pooled feature is the class token after the last norm. Images are normalised as the
    preprocessor's file says, and by the family's own figures, with a warning, where there is none. Raises
    `BackboneUnavailableError` when it cannot be had or is incomplete and `MismatchError` when it is of another kind.
    """
    config = _tried(source, lambda: AutoConfig.from_pretrained(source))
    if config.model_type not in SUPPORTED:
        raise MismatchError(f"{source} is of the kind {config.model_type!r}; LoRA Lab takes {' or '.join(SUPPORTED)}")
    is_vit = config.model_type == "vit"
    size = config.image_size if is_vit else 8 * config.patch_size
    if not isinstance(size, int):
        raise MismatchError(f"{source} takes images of {size} pixels; LoRA Lab takes backbones for square images")
    module = _tried(source, lambda: _module(source, config))
    mean, std = _tried(source, lambda: _normalisation(source, is_vit))
    return Backbone(source, module, size, mean, std, fingerprint(module), "as its model card says")


def _tried(source: str, read: Any) -> Any:
    try:
        return read()
    except _BROKEN as error:
        where = "look into the folder" if Path(source).exists() else "check the network and the id"
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise BackboneUnavailableError(f"the backbone {source!r} could not be loaded: {where} ({reason})") from error


def _module(source: str, config: Any) -> nn.Module:
    module, found = AutoModel.from_pretrained(
        source,
        config=config,
        attn_implementation="eager",
        dtype=torch.float32,
        use_safetensors=True,  # a pickle can run any code
        output_loading_info=True,
    )
    missing = {name for name in found["missing_keys"] if not name.startswith(POOLER)}
    if missing:
        raise BackboneUnavailableError(
            f"the backbone {source!r} has no weights for {_some(missing)}: save it again, or take one that is complete"
        )
    if len(found["missing_keys"]) and getattr(module, "pooler", None) is not None:
        # transformers would fill it with random numbers, others at each load.
        module.pooler = None
    return module.eval().requires_grad_(False)


def _normalisation(source: str, is_vit: bool) -> tuple[Triple, Triple]:
    # In terms of pixels in 0–1, whatever the file's own factor is.
    try:
        settings: Mapping[str, Any] = ImageProcessingMixin.get_image_processor_dict(source)[0]
    except OSError:
        usual = (HALF, HALF) if is_vit else (IMAGENET_MEAN, IMAGENET_STD)
        logger.warning(
            "%s has no preprocessor_config.json; its images are normalised by the mean %s and deviation %s", source, *usual
        )
        return usual
    scale = 255 * float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 255.0
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean", HALF), settings.get("image_std", HALF)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _triple(source, "image_mean", (m / scale for m in _three(mean))), _triple(
        source, "image_std", (s / scale for s in _three(std))
    )


def _three(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, (int, float)) else [float(one) for one in value]


def _triple(source: str, name: str, values: Iterable[float]) -> Triple:
    found = tuple(values)
    if len(found) != 3 or not all(map(math.isfinite, found)) or (name == "image_std" and min(found) <= 0):
        raise BackboneUnavailableError(
            f"the preprocessor of {source!r} has the {name} {found}: give three numbers, deviations above 0"
        )
    return found


def _some(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"{first} and {len(more)} more" if more else first

"""Any ViT or DINOv2 of transformers, by hub id or from a local folder.

The paper's backbone is here: ViT-B/16 pre-trained on ImageNet-21k (Dosovitskiy et al. 2020, arXiv 2010.11929), as used by
Kesim and Helli (arXiv 2411.14064).
"""

from pathlib import Path

from transformers import AutoConfig, AutoModel

from lora_lab.backbones.base import Backbone, fingerprint
from lora_lab.backbones.dinov2_small import IMAGENET_MEAN, IMAGENET_STD
from lora_lab.errors import BackboneUnavailableError, MismatchError

VIT_BASE = "google/vit-base-patch16-224-in21k"
HALF = (0.5, 0.5, 0.5)
SUPPORTED = ("vit", "dinov2")


def load(source: str) -> Backbone:
    """The backbone at a hub id or in a folder that `save_pretrained` wrote.

    Raises `BackboneUnavailableError` when it cannot be had and `MismatchError` when it is of another kind.
    """
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in SUPPORTED:
            raise MismatchError(f"{source} is of the kind {config.model_type!r}; LoRA Lab takes {' or '.join(SUPPORTED)}")
        module = AutoModel.from_pretrained(source, config=config, attn_implementation="eager")
    except (OSError, ValueError) as error:
        where = "look into the folder" if Path(source).exists() else "check the network and the id"
        reason = str(error).strip().splitlines()[0]
        raise BackboneUnavailableError(f"the backbone {source!r} could not be loaded: {where} ({reason})") from error
    module = module.eval().requires_grad_(False)
    is_vit = config.model_type == "vit"
    mean, std = (HALF, HALF) if is_vit else (IMAGENET_MEAN, IMAGENET_STD)
    size = config.image_size if is_vit else 8 * config.patch_size
    return Backbone(source, module, size, mean, std, fingerprint(module), "as its model card says")

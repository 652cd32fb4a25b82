"""A random two-layer encoder of width 32, for tests and dry runs: it knows nothing and starts at once."""

import torch
from transformers import Dinov2Config, Dinov2Model

from lora_lab.backbones.base import Backbone, fingerprint
from lora_lab.backbones.dinov2_small import IMAGENET_MEAN, IMAGENET_STD

NAME = "tiny"


def load() -> Backbone:
    """The same weights each time, from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            mlp_ratio=2,
            patch_size=14,
            image_size=56,
            use_mask_token=False,
            initializer_range=0.2,
        )
        config._attn_implementation = "eager"
        module = Dinov2Model(config).eval().requires_grad_(False)
    return Backbone(NAME, module, 56, IMAGENET_MEAN, IMAGENET_STD, fingerprint(module), "MIT")

"""Backbones by name, and how to get one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lora_lab.backbones import dinov2_small, pretrained, tiny
from lora_lab.backbones.base import Backbone, Deltas, Embedded, Features, joined
from lora_lab.backbones.walk import Walk, by_layer, layer_name
from lora_lab.catalog import Catalog
from lora_lab.devices import fast_precision

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "Backbone",
    "Deltas",
    "Embedded",
    "Features",
    "Walk",
    "by_layer",
    "fast_precision",
    "joined",
    "layer_name",
    "load_backbone",
]

BACKBONES: Catalog[Callable[[], Backbone]] = Catalog(
    "backbone",
    (
        (dinov2_small.NAME, dinov2_small.load),
        (pretrained.VIT_BASE, partial(pretrained.load, pretrained.VIT_BASE)),
        (tiny.NAME, tiny.load),
    ),
)
DEFAULT = dinov2_small.NAME


def load_backbone(name: str = DEFAULT) -> Backbone:
    """A backbone of the catalog, or any ViT or DINOv2 by hub id ("owner/name") or local folder."""
    if name not in BACKBONES and ("/" in name or Path(name).is_dir()):
        return pretrained.load(name)
    return BACKBONES[name]()

"""Repairs of merged features, in the order in which they are shown."""

from lora_lab.catalog import Catalog
from lora_lab.repairs.affine import AFFINE
from lora_lab.repairs.base import Damage, Mend, Repair, apply
from lora_lab.repairs.linear import LINEAR, PATCHES
from lora_lab.repairs.surgery import SURGERY

__all__ = ["REPAIRS", "Damage", "Mend", "Repair", "apply"]

REPAIRS: Catalog[Repair] = Catalog("repair", ((repair.name, repair) for repair in (SURGERY, LINEAR, PATCHES, AFFINE)))

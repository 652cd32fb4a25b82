"""Fetch the default backbone into the cache: `python -m lora_lab.backbones`."""

import sys

from lora_lab.backbones import DEFAULT, load_backbone
from lora_lab.errors import LoraLabError

try:
    backbone = load_backbone()
except LoraLabError as error:
    sys.exit(f"lora-lab: {error}")
sys.stdout.write(f"backbone {DEFAULT} is ready, fingerprint {backbone.fingerprint[:12]}\n")

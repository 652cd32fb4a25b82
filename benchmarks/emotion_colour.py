"""Whether the emotion adapter hangs on colour: 1,000 val images plain, grey and tinted; writes the record.

`python benchmarks/emotion_colour.py DATA`, DATA being the folder that holds `emotion`. The training images are grey, so the
grey copies are nearly the images themselves; the tints are those of lamps and shade, each channel times a fixed factor.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_lab.data import Crops
from lora_lab.evaluation import Images, encode_crops, head_outputs
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.metrics import values
from lora_lab.provenance import commit
from lora_lab.tasks import TASKS

RECORD = Path(__file__).parent.parent / "assets" / "benchmarks" / "emotion_colour.json"
TINTS = {"plain": None, "grey": "grey", "warm": (1.15, 1.0, 0.8), "cold": (0.85, 1.0, 1.2)}
IMAGES = 1000


def tinted(crops: Crops, tint: str | tuple[float, float, float] | None) -> Crops:
    """A copy of the crops in other colours."""
    if tint is None:
        return crops
    if tint == "grey":
        mean = np.asarray(crops.pixels, np.float32).mean(3, keepdims=True).round().astype(np.uint8)
        return replace(crops, pixels=np.repeat(mean, 3, axis=3))
    return replace(crops, pixels=(np.asarray(crops.pixels, np.float32) * np.float32(tint)).clip(0, 255).astype(np.uint8))


def main(data: Path) -> None:
    """Measure each copy in float32."""
    lab, task = Lab(), TASKS["emotion"]
    adapter = lab.adapter("emotion", 16)
    crops = Images(data, "val", IMAGES).crops(task, lab.backbone.image_size)
    found = {}
    for name, tint in TINTS.items():
        outputs = head_outputs(adapter.head, encode_crops(lab.backbone, tinted(crops, tint), deltas_of(adapter.factors)))
        scores = values(task, outputs, crops.targets, None)
        found[name] = {metric: round(value, 2) for metric, value in scores.items()}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"copies": found, "n": len(crops), "commit": commit()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What each merge method costs on two CPU cores, as `benchmarks/merge_speed.py` measured it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_lab.bundled import bundled

MERGE_SPEED = bundled("assets", "benchmarks", "merge_speed.json")


@dataclass(frozen=True)
class MergeTime:
    """Milliseconds, medians: the first merge of some adapters, which prepares them, and each move of a slider after it."""

    first: float | None = None
    move: float | None = None


def merge_times(path: Path = MERGE_SPEED) -> Mapping[str, MergeTime]:
    """The times by method of all adapters at rank 16 on the default backbone; none where nothing was measured."""
    if not path.exists():
        return {}
    ways = json.loads(path.read_text(encoding="utf-8"))["subjects"][0]["ways"]
    return {way["way"]: MergeTime(way["first_ms"]["median"], way["move_ms"]["median"]) for way in ways if "first_ms" in way}

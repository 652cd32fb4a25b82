"""What an adapter says of itself: its scores on val, how sure it may be, and the statistics of its training images."""

import time
from dataclasses import replace

from lora_lab.adapters import Adapter
from lora_lab.backbones import Backbone
from lora_lab.calibration import calibrate, gate
from lora_lab.cards import AdapterCard, ScoreEntry
from lora_lab.data import Crops
from lora_lab.evaluation import Origin, encode_crops, head_outputs, measure
from lora_lab.lora import deltas_of
from lora_lab.records import Record
from lora_lab.statistics import balanced_rows, collect, nearness

FEWEST = 20
"""From fewer images on val neither a temperature, nor bounds, nor a gate is fitted."""


def describe(adapter: Adapter, backbone: Backbone, train: Crops, val: Crops) -> Adapter:
    """The adapter with what val says of it, in float32; and where it can be merged, statistics of its training images."""
    task, card = adapter.head.task, adapter.card
    seen_by = adapter.tuned or backbone
    deltas = deltas_of(adapter.factors)
    start = time.monotonic()
    pooled = encode_crops(seen_by, val, deltas)
    origin = Origin("head_only" if card.tuning == "head_only" else "adapter", "", "val")
    card = with_scores(card, list(measure(adapter.head, pooled, val, origin, start)))
    enough = len(val) >= FEWEST
    calibration = calibrate(task, head_outputs(adapter.head, pooled), val.targets) if enough else None
    rates = card.detection_rate | ({"val": val.detection_rate} if val.detection_rate is not None else {})
    card = card.model_copy(update={"calibration": calibration, "detection_rate": rates})
    if not card.mergeable:
        return replace(adapter, card=card)
    statistics = collect(backbone, deltas, task, train.part(balanced_rows(task, train.targets)))
    near = gate(nearness(pooled, statistics.class_means).cpu().numpy()) if enough else None
    return replace(adapter, card=card.model_copy(update={"gate": near}), statistics=statistics)


def with_scores(card: AdapterCard, records: list[Record]) -> AdapterCard:
    """The card with the scores of these records, in place of those on the same splits."""
    scores = dict(card.scores)
    for split in {record.split for record in records}:
        scores[split] = {
            record.metric if record.label is None else f"{record.metric}: {record.label}": ScoreEntry(
                value=round(record.value, 3), low=round(record.low, 3), high=round(record.high, 3), n=record.n
            )
            for record in records
            if record.split == split
        }
    return card.model_copy(update={"scores": scores})

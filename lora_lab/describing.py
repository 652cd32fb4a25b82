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


def describe(adapter: Adapter, backbone: Backbone, train: Crops, val: Crops) -> Adapter:
    """The adapter with all that val and its training images say of it, measured in float32 on a plain backbone."""
    task, card = adapter.head.task, adapter.card
    seen_by = adapter.tuned or backbone
    deltas = deltas_of(adapter.factors)
    start = time.monotonic()
    pooled = encode_crops(seen_by, val, deltas)
    origin = Origin("head_only" if card.tuning == "head_only" else "adapter", "", "val")
    card = with_scores(card, list(measure(adapter.head, pooled, val, origin, start)))
    statistics = collect(seen_by, deltas, task, train.part(balanced_rows(task, train.targets)))
    card = card.model_copy(
        update={
            "calibration": calibrate(task, head_outputs(adapter.head, pooled), val.targets),
            "gate": gate(nearness(pooled, statistics.class_means).cpu().numpy()),
            "detection_rate": {"val": val.detection_rate} if val.detection_rate is not None else {},
        }
    )
    kept = statistics if card.mergeable else replace(statistics, grams={})
    return replace(adapter, card=card, statistics=kept)


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

"""What a head answers about one picture, and what was measured over many."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the photo after its EXIF rotation."""


Subject = Literal["adapter", "merge", "head_only", "full", "joint"]
"""What was measured: an adapter alone, a merge, a head alone, all weights trained, or one LoRA for several tasks."""


class Frozen(BaseModel):
    """A value that never changes and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prediction(Frozen):
    """One head's answer.

    `confidence` is in 0–1, or null where the head gives none. Classes fill `probabilities`, a number `value` with `unit`
    and the bounds `low` and `high` that hold the truth in 90 % of the images where the adapter is alone, points `points`
    as (x, y) pixels of the photo after its EXIF rotation.
    """

    answer: str
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    value: float | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    points: tuple[tuple[float, float], ...] | None = None


class FacePrediction(Frozen):
    """All face heads' answers for one detected face."""

    box: Box
    confidence: float
    predictions: dict[str, Prediction]


class WholePrediction(Frozen):
    """Answers about the whole photo, read from its centre square."""

    predictions: dict[str, Prediction]


class PhotoPrediction(Frozen):
    """Every head's answer about one photo; `note` says why part of it is missing."""

    faces: tuple[FacePrediction, ...]
    photo: WholePrediction
    note: str | None = None


class Record(Frozen):
    """One measured number with its 95 % interval and its origin; `seconds` is what the whole evaluation took."""

    subject: Subject
    recipe: str
    task: str
    split: str
    metric: str
    label: str | None = None
    value: float
    low: float
    high: float
    n: int
    seed: int
    seconds: float
    commit: str | None = None


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records to a file of one JSON object a line, in one write so that none is torn."""
    lines = "".join(record.model_dump_json() + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def read_records(path: Path) -> list[Record]:
    """All records of a file that `append_records` wrote."""
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]

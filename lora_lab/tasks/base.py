"""What a task asks of a picture, where its data comes from, and on which terms."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lora_lab.errors import DataError, first_fault

Kind = Literal["classes", "number", "points"]
Framing = Literal["face", "square"]
Stored = Literal["framed", "face", "padded_face", "square"]


@dataclass(frozen=True)
class Task:
    """One question about a picture.

    `framing` says what the backbone is shown of a photo: each detected face, or the centre square. `stored` says how the
    images of the data set lie: already framed, as photos to detect a face in, the same but so tight that they are padded
    and enlarged before, or as squares. `metrics` begins with the one that retention is measured by. `bins` turns a
    number column into classes: the first value of each. `offset` and `scale` bring a number near 0 ± 1 for the head.
    `image_steps` is how long an adapter is trained by default, the first `pretrain_steps` on `pretrain_split`.
    """

    name: str
    title: str
    kind: Kind
    metrics: tuple[str, ...]
    framing: Framing
    stored: Stored
    folder: str
    column: str
    source: str
    licence: str
    version: str
    labels: tuple[str, ...] = ()
    unit: str | None = None
    bins: tuple[int, ...] = ()
    offset: float = 0.0
    scale: float = 1.0
    points: int = 0
    pretrain_split: str | None = None
    image_steps: int = 40_000
    pretrain_steps: int = 0

    @property
    def metric(self) -> str:
        """The first metric."""
        return self.metrics[0]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger first metric is better."""
        return self.kind == "classes"

    @property
    def outputs(self) -> int:
        """How many numbers the head gives."""
        return {"classes": len(self.labels), "number": 1, "points": 2 * self.points}[self.kind]

    def to_json(self) -> dict[str, Any]:
        """All fields, as an adapter's card keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Task":
        """From what `to_json` gave. Raises `DataError` for what is no task."""
        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as error:
            raise DataError(f"the card has a task that is none: {first_fault(error)}") from error

    def targets(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Targets of n images from their label columns: classes (n,), numbers (n,), or points (n, points, 2) in pixels.

        Raises `DataError` when the column is missing or holds a label that the task does not know.
        """
        if self.column not in columns:
            raise DataError(f"the data for {self.name} has no column {self.column!r}; it has {', '.join(columns)}")
        values = np.asarray(columns[self.column])
        if self.kind == "points":
            return values.reshape(len(values), self.points, 2).astype(np.float32)
        if self.kind == "number":
            return values.astype(np.float32)
        classes = np.searchsorted(self.bins, values, side="right") - 1 if self.bins else values
        wrong = (classes < 0) | (classes >= len(self.labels))
        if wrong.any():
            raise DataError(f"{self.name}: {wrong.sum()} labels out of range, the first is {values[wrong][0]}")
        return classes.astype(np.int64)

"""What a head answers about one picture, and what was measured over many."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from lora_lab.bundled import bundled
from lora_lab.cache import cache_folder, whole_file
from lora_lab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the photo after its EXIF rotation."""


RECORDS = bundled("assets", "records", "merges.parquet")
LONG, SHORT = "long", "short"
TRAININGS = {LONG: RECORDS.parent, SHORT: RECORDS.parent / SHORT}
"""The folders of records by how long the adapters were trained: those that LoRA Lab serves, and their forerunners."""

CELL = ["recipe", "split", "seed", "precision"]
"""What is measured together, and stands in a file once."""

Subject = Literal["adapter", "merge", "head_only", "full", "joint"]
"""What was measured: an adapter alone, a merge, a head alone, all weights trained, or one LoRA for several tasks."""


class Frozen(BaseModel):
    """A value that never changes and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prediction(Frozen):
    """One head's answer.

    `confidence` is in 0–1, or null where the head gives none. Classes fill `probabilities`, a number `value` with `unit`
    and the bounds `low` and `high` that hold the truth in 90 % of the images where they are calibrated, points `points`
    as (x, y) pixels of the photo after its EXIF rotation. `calibrated` says whether confidence or bounds were fitted on this
    very model; null for points, which have neither.
    """

    answer: str
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    value: float | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    points: tuple[tuple[float, float], ...] | None = None
    calibrated: bool | None = None


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
    """One measured number with its 95 % interval and its origin.

    `recipe` is the recipe's key, or the variant of what is no merge; `method` and `adapters` say the recipe in words, the
    latter as the command takes it. `fingerprint` is of the adapters' files, `precision` the number format of the forward,
    and `seconds` what the whole evaluation took.
    """

    subject: Subject
    recipe: str
    method: str | None = None
    adapters: str = ""
    task: str
    split: str
    metric: str
    label: str | None = None
    value: float
    low: float
    high: float
    n: int
    seed: int
    precision: str = "float32"
    fingerprint: str = ""
    seconds: float
    commit: str | None = None


class RecordFile:
    """A tidy parquet file of records, a row each, that `pandas.read_parquet` opens.

    What is added is there as a whole or not at all: the file is written anew beside the old one and takes its place. Who
    writes holds the lock, so that two programs cannot undo each other's work.
    """

    def __init__(self, path: Path = RECORDS):
        self.path = path

    def read(self) -> "pd.DataFrame":
        """All records; none of them where there is no file yet. Raises `DataError`."""
        import pandas as pd  # takes half a second, and who only predicts needs none

        if not self.path.exists():
            return pd.DataFrame(columns=list(Record.model_fields))
        try:
            return pd.read_parquet(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} holds no records that can be read: {str(error).splitlines()[0]}") from error

    def add(self, records: Sequence[Record]) -> None:
        """Add records, in the place of those of the same recipe, split, seed and precision."""
        import pandas as pd

        new = pd.DataFrame([record.model_dump() for record in records])
        old = self.read()
        same = old.set_index(CELL).index.isin(new.set_index(CELL).index)
        joined = pd.concat([old[~same], new], ignore_index=True) if len(old) else new
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as part:
            joined.to_parquet(part, index=False, compression="zstd")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuses a second writer. Raises `DataError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_folder("locks") / f"{hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]}.lock")
        try:
            with lock.acquire(timeout=0):
                yield
        except Timeout as error:
            raise DataError(f"{self.path} is being written by another sweep: wait for it, or name another file") from error

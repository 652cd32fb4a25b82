"""Answers about many photos, as a table: one row for each photo, face (or whole photo) and task."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.cache import whole_file
from lora_lab.data import find_pictures
from lora_lab.errors import DataError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.merging.base import nobody
from lora_lab.photos import Photo
from lora_lab.records import PhotoPrediction, Prediction
from lora_lab.sights import Tell

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("photo", "part", "box", "task", "answer", "confidence", "value", "unit", "low", "high", "points", "note")
DIGITS = 4
FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")
"""What a spreadsheet takes for a formula, the wide signs of East Asian keyboards among it."""


@dataclass(frozen=True)
class Answered:
    """A photo by its name, with its answers, or with the one line that says why there are none."""

    photo: str
    prediction: PhotoPrediction | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For other programs; `photo` is what is said of the whole photo, as in an answer about one."""
        if self.prediction is None:
            return {"file": self.photo, "error": self.error}
        return {"file": self.photo, **self.prediction.model_dump(exclude_none=True)}


def find_photos(places: Sequence[Path]) -> list[Path]:
    """Files as they are named, and for a folder all photos in it and below. Raises `DataError` where there is nothing."""
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise DataError(f"{place} is not there; check the path")
        if place.is_dir():
            found += find_pictures(place)
        else:
            found.append(place)
    return list(dict.fromkeys(found))


def answers(
    lab: Lab, recipe: MergeRecipe, paths: Sequence[Path], tell: Tell = nobody, names: Sequence[str] | None = None
) -> Iterator[Answered]:
    """What a merge says about each photo, the merge being made once; one that cannot be read does not end the others."""
    model = lab.merge(recipe)
    for place, (path, name) in enumerate(zip(paths, names or _names(paths), strict=True)):
        tell(place / len(paths), f"photo {place + 1} of {len(paths)}")
        try:
            photo = Photo.read(path)
        except DataError as error:
            yield Answered(name, error=str(error))
        else:
            yield Answered(name, model.predict(photo.image))


def sent_names(paths: Sequence[Path]) -> list[str]:
    """What files that were sent are called, without the folders that they were put into; of the same name, numbered.

    `["a.jpg", "a (2).jpg"]` for two that were both called `a.jpg`.
    """
    names: list[str] = []
    taken = {path.name for path in paths}
    for path in paths:
        name = path.name
        if name in names:
            numbered = (f"{path.stem} ({number}){path.suffix}" for number in count(2))
            name = next(one for one in numbered if one not in taken)
            taken.add(name)
        names.append(name)
    return names


def answers_table(
    lab: Lab, recipe: MergeRecipe, paths: Sequence[Path], tell: Tell = nobody, names: Sequence[str] | None = None
) -> "pd.DataFrame":
    """The columns of `COLUMNS`, a row an answer.

    `photo` is what `names` calls each, else the file name, with folders where the photos lie in several; `part` is "face 1" or
    "photo"; `confidence` is in 0–1; `box` and `points` are JSON in pixels of the photo. `note` says why a photo or a part
    of it has no answer, in a row of its own. What a kind of task does not give is empty.
    """
    import pandas as pd  # takes half a second, and who only predicts needs none

    rows = [row for one in answers(lab, recipe, paths, tell, names) for row in _rows(one)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a table that spreadsheets open as it is, its numbers with `DIGITS` significant digits. Raises `LoraLabError`.

    A text that would be a formula has a ' before it, in whatever column it is.
    """
    safe = table.rename(columns=_no_formula).map(_no_formula)
    with whole_file(path) as part:
        # The mark by which Excel knows UTF-8; file names may hold bytes that are none.
        digits = f"%.{DIGITS}g"
        safe.to_csv(part, index=False, encoding="utf-8-sig", errors="backslashreplace", float_format=digits)


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _names(paths: Sequence[Path]) -> list[str]:
    whole = [path.absolute() for path in paths]
    try:
        common = Path(os.path.commonpath([path.parent for path in whole]))
    except ValueError:  # on several drives, or no photos
        return [path.as_posix() for path in whole]
    return [path.relative_to(common).as_posix() for path in whole]


def _rows(one: Answered) -> list[dict[str, Any]]:
    if one.prediction is None:
        return [{"photo": one.photo, "note": one.error}]
    rows = []
    for number, face in enumerate(one.prediction.faces, 1):
        place = {"photo": one.photo, "part": f"face {number}", "box": _json(face.box)}
        rows += [place | _cells(task, answer) for task, answer in face.predictions.items()]
    place = {"photo": one.photo, "part": "photo"}
    rows += [place | _cells(task, answer) for task, answer in one.prediction.photo.predictions.items()]
    return rows + ([{"photo": one.photo, "note": one.prediction.note}] if one.prediction.note else [])


def _cells(task: str, one: Prediction) -> dict[str, Any]:
    cells: dict[str, Any] = {"task": task, **one.model_dump(include={"answer", "confidence", "value", "unit", "low", "high"})}
    return cells | ({"points": _json(one.points)} if one.points else {})


def _json(numbers: Any) -> str:
    """Pixels to a hundredth."""
    return json.dumps([[round(x, 2) for x in one] if isinstance(one, tuple) else round(one, 2) for one in numbers])

"""ExpW: expressions of 91,793 faces found on the web; label/label.lst has a line a face, the photos lie in image/origin.

A line: photo, number of the face in it, the box's top, left, right and bottom, the box's confidence, expression 0–6. The
photo is cut to the box with a margin; all faces of a photo stay on one side when `val` and `test` are made.
"""

from pathlib import Path

from lora_lab.data.boxes import FaceCrops, box_around
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import first_folder, report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError, NotFoundError

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
WORDS = 8


def _read(folder: Path, reading: Reading) -> Dataset:
    path, photos = folder / "label" / "label.lst", first_folder(folder / "image" / "origin", folder / "image")
    if not path.exists() or photos is None:
        raise NotFoundError(f"{folder} lacks label/label.lst or image/origin: unpack ExpW's labels and photos there")
    report = Report()
    named, boxes, labels = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            top, left, right, bottom = map(float, words[2:6])
            label = int(words[7])
        except (ValueError, IndexError) as error:
            raise DataError(f"{path.name}, line {number} is not of ExpW's {WORDS} words: {line[:60]!r}") from error
        named.append(words[0])
        boxes.append(box_around((left, top, right, bottom)))
        labels.append(EXPRESSIONS[label] if 0 <= label < len(EXPRESSIONS) else str(label))
    paths = [photos / name for name in named]
    names = [f"{name} (line {number})" for number, name in enumerate(named, 1)]
    report_rest(photos, paths, report, "no face of it in label.lst")
    stamp = stamp_of("expw 2", folder, [path, *sorted(set(paths))])
    train = Split(FaceCrops(paths, boxes), names, {"label": labels}, stamp)
    found = Found(with_made_splits({"train": train}, groups=named, classes=labels), stored="face", report=report)
    return dataset_of("expw", folder, found, reading.column or "label", sorted(EXPRESSIONS))


FORMAT = Format(
    name="expw",
    title="ExpW (Zhang et al. 2018), expressions in the wild",
    documented="the readme of the labels; Zhang et al., arXiv 1609.06426",
    home="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
    terms="images gathered from the web, research use; see its page",
    matches=lambda folder: (folder / "label" / "label.lst").exists(),
    read=_read,
)

"""Galaxy10 DECaLS: 17,736 galaxies of 256 × 256 pixels in ten shapes, one HDF5 file with `images` and `ans`.

No split comes with it, so `val` and `test` are made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.files import report_rest, stamp_of
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError

FILE = "Galaxy10_DECals.h5"
SHAPES = (
    "disturbed",
    "merging",
    "round smooth",
    "in-between round smooth",
    "cigar shaped smooth",
    "barred spiral",
    "unbarred tight spiral",
    "unbarred loose spiral",
    "edge-on without bulge",
    "edge-on with bulge",
)


class TableImages(Sequence[Any]):
    """The pictures (n, H, W, 3) of an HDF5 file, RGB images, read when they are asked for. Raises `DataError`."""

    def __init__(self, path: Path, count: int):
        self._path, self._count = path, count
        self._file: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        import h5py

        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._count))]
        # Opened at the first picture and kept open: opening costs more than a picture.
        if self._file is None:
            self._file = h5py.File(self._path, "r")
        try:
            return Image.fromarray(self._file["images"][index])
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"picture {index} of {self._path.name} cannot be read; fetch the file again") from error

    def __del__(self):
        if self._file is not None:
            self._file.close()


def _read(folder: Path, reading: Reading) -> Dataset:
    import h5py

    path = folder / FILE
    try:
        with h5py.File(path, "r") as opened:
            file: Any = opened
            answers, count = file["ans"][:].tolist(), len(file["images"])
    except (OSError, KeyError) as error:
        raise DataError(f"{path} is not Galaxy10's file with images and ans ({error})") from error
    if len(answers) != count:
        raise DataError(f"{path} has {count} images and {len(answers)} answers: fetch it again")
    labels = [SHAPES[answer] if 0 <= answer < len(SHAPES) else str(answer) for answer in answers]
    names = [f"row {row}" for row in range(count)]
    train = Split(TableImages(path, count), names, {"label": labels}, stamp_of("galaxy10 1", folder, [path]))
    splits = with_made_splits({"train": train}, classes=labels)
    report = Report()
    report_rest(folder, [path], report)
    return dataset_of("galaxy10", folder, Found(splits, "square", report), reading.column or "label", SHAPES)


FORMAT = Format(
    name="galaxy10",
    title="Galaxy10 DECaLS (Leung and Bovy), ten shapes of galaxies",
    documented="https://astronn.readthedocs.io/en/latest/galaxy10.html and https://github.com/henrysky/Galaxy10",
    home="https://github.com/henrysky/Galaxy10",
    terms="credit the DESI Legacy Imaging Surveys and Galaxy Zoo; see its page",
    matches=lambda folder: (folder / FILE).exists(),
    read=_read,
)

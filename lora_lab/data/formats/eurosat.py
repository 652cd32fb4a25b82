"""EuroSAT RGB: 27,000 Sentinel-2 tiles of 64 × 64 pixels, a folder a class, no splits: `val` and `test` are made.

The classes get the names that the land cover task has.
"""

from pathlib import Path

from lora_lab.data.dataset import Dataset
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.formats.class_folders import has_classes, read_classes
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.data.splitting import with_made_splits
from lora_lab.errors import DataError

NAMES = {
    "AnnualCrop": "annual crop",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "highway",
    "Industrial": "industrial",
    "Pasture": "pasture",
    "PermanentCrop": "permanent crop",
    "Residential": "residential",
    "River": "river",
    "SeaLake": "sea or lake",
}
LEAST = 5


def _root(folder: Path) -> Path | None:
    roots = (folder, folder / "2750", folder / "EuroSAT_RGB", folder / "EuroSAT" / "2750")
    return next((root for root in roots if has_classes(root, NAMES, LEAST)), None)


def _read(folder: Path, reading: Reading) -> Dataset:
    root = _root(folder)
    if root is None:
        raise DataError(f"{folder} lacks EuroSAT's class folders: {', '.join(NAMES)}")
    report = Report()
    train = read_classes("eurosat 2", root, NAMES, report)
    splits = with_made_splits({"train": train}, classes=train.columns["label"])
    return dataset_of("eurosat", folder, Found(splits, "square", report), reading.column or "label", tuple(NAMES.values()))


FORMAT = Format(
    name="eurosat",
    title="EuroSAT RGB (Helber et al. 2019), land cover",
    documented="Helber et al., arXiv 1709.00029; https://github.com/phelber/EuroSAT",
    home="https://github.com/phelber/EuroSAT",
    terms="MIT; credit Copernicus Sentinel data",
    matches=lambda folder: _root(folder) is not None,
    read=_read,
)

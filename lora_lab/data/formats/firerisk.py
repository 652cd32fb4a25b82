"""FireRisk: aerial pictures with seven levels of wildfire hazard; folders train and val with a folder a class.

70,331 train and 21,541 val images; the classes in the order of their codes in the paper. There is no test split.
"""

from pathlib import Path

from lora_lab.data.dataset import Dataset
from lora_lab.data.formats.base import Format, Found, dataset_of
from lora_lab.data.formats.class_folders import has_classes, read_classes
from lora_lab.data.reading import Reading
from lora_lab.data.report import Report
from lora_lab.errors import DataError

NAMES = {
    "Very_Low": "very low",
    "Low": "low",
    "Moderate": "moderate",
    "High": "high",
    "Very_High": "very high",
    "Non-burnable": "non-burnable",
    "Water": "water",
}
LEAST = 4


def _root(folder: Path) -> Path | None:
    roots = (folder, folder / "FireRisk")
    return next((root for root in roots if all(has_classes(root / side, NAMES, LEAST) for side in ("train", "val"))), None)


def _read(folder: Path, reading: Reading) -> Dataset:
    root = _root(folder)
    if root is None:
        raise DataError(f"{folder} lacks train and val with FireRisk's class folders: {', '.join(NAMES)}")
    report = Report()
    splits = {side: read_classes("firerisk 2", root / side, NAMES, report) for side in ("train", "val")}
    return dataset_of("firerisk", folder, Found(splits, "square", report), reading.column or "label", tuple(NAMES.values()))


FORMAT = Format(
    name="firerisk",
    title="FireRisk (Shen et al. 2023), wildfire hazard from the air",
    documented="Shen et al., arXiv 2303.07035, and the README of https://github.com/CharmonyShen/FireRisk",
    home="https://github.com/CharmonyShen/FireRisk",
    terms="CC BY-NC 4.0; images of the USDA's NAIP",
    matches=lambda folder: _root(folder) is not None,
    read=_read,
)

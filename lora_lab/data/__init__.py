"""Training and evaluation images: layouts on disk, framed crops of them, and what may be wrong with them."""

from lora_lab.data.crops import Crops, load_crops
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.faults import Faults, find_faults, without_faults
from lora_lab.data.files import find_pictures
from lora_lab.data.formats import FORMATS, Format, open_dataset
from lora_lab.data.formats.parquet import read_split
from lora_lab.data.opening import find_dataset, has_split, is_named_for, open_own, task_dataset, task_folder
from lora_lab.data.own import own_task
from lora_lab.data.reading import FOUND_OUT, Reading
from lora_lab.data.report import Report, listening, tell_once

__all__ = [
    "FORMATS",
    "FOUND_OUT",
    "Crops",
    "Dataset",
    "Faults",
    "Format",
    "Reading",
    "Report",
    "Split",
    "find_dataset",
    "find_faults",
    "find_pictures",
    "has_split",
    "is_named_for",
    "listening",
    "load_crops",
    "open_dataset",
    "open_own",
    "own_task",
    "read_split",
    "task_dataset",
    "task_folder",
    "tell_once",
    "without_faults",
]

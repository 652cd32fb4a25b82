"""Training and evaluation images: layouts on disk, framed crops of them, and what may be wrong with them."""

from lora_lab.data.crops import Crops, has_split, load_crops, task_dataset, task_folder
from lora_lab.data.dataset import Dataset, Split
from lora_lab.data.faults import Faults, find_faults
from lora_lab.data.formats import FORMATS, Format, open_dataset
from lora_lab.data.formats.parquet import read_split
from lora_lab.data.own import own_task

__all__ = [
    "FORMATS",
    "Crops",
    "Dataset",
    "Faults",
    "Format",
    "Split",
    "find_faults",
    "has_split",
    "load_crops",
    "open_dataset",
    "own_task",
    "read_split",
    "task_dataset",
    "task_folder",
]

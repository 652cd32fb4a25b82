"""Training and evaluation images: readers of what lies on disk, and framed crops of it."""

from lora_lab.data.crops import Crops, has_split, load_crops
from lora_lab.data.parquet import Split, read_split

__all__ = ["Crops", "Split", "has_split", "load_crops", "read_split"]

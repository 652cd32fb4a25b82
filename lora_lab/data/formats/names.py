"""What people call their splits."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def split_name(name: str) -> str:
    """The split that a folder or file is named after: train, val or test, or the name itself."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), name)

"""Splits that a layout lacks, made from its training images: the same ones each time, by the hash of their names."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lora_lab.data.dataset import Split

SHARE = 0.1


def with_made_splits(
    splits: dict[str, Split], groups: Sequence[str] | None = None, classes: Sequence[Any] | None = None
) -> dict[str, Split]:
    """The splits with `val` made from `train` where it is not there, and then `test` as well where that is missing too.

    A tenth of the images each. `groups` (n,) names what must stay on one side, such as the photo that a face is in; an
    image's own name where it is None. With `classes` (n,) a tenth of each class is taken, and at least one image of it.
    """
    if "train" not in splits or "val" in splits:
        return splits
    made = ["val"] if "test" in splits else ["val", "test"]
    train = splits["train"]
    sides = _sides(groups or train.names, classes, made)
    parts = {side: train.part([row for row, is_in in enumerate(sides) if is_in == side]) for side in ("train", *made)}
    return parts | {name: split for name, split in splits.items() if name != "train"}


def made_names(there: Sequence[str]) -> tuple[str, ...]:
    """The names of the splits that there will be, in order, before anything is read."""
    names = list(there)
    if "train" in names and "val" not in names:
        names.insert(names.index("train") + 1, "val")
        if "test" not in names:
            names.insert(names.index("val") + 1, "test")
    return tuple(names)


def _sides(groups: Sequence[str], classes: Sequence[Any] | None, made: Sequence[str]) -> list[str]:
    # A group counts as of the class of its first image.
    strata: dict[str, set[str]] = defaultdict(set)
    seen: set[str] = set()
    for row, group in enumerate(groups):
        if group not in seen:
            seen.add(group)
            strata["" if classes is None else str(classes[row])].add(group)
    side_of: dict[str, str] = {}
    for members in strata.values():
        ranked = sorted(members, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        count = max(1, round(SHARE * len(ranked)))
        for number, side in enumerate(made):
            # The last image of a class stays in train.
            taken = ranked[number * count : min((number + 1) * count, len(ranked) - 1)]
            side_of.update(dict.fromkeys(taken, side))
    return [side_of.get(group, "train") for group in groups]

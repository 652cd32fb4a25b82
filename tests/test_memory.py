"""What is freed goes back to the system at once where a program has asked for it."""

import ctypes
import gc
import subprocess
import sys
import weakref
from functools import lru_cache, partial

import pytest
import torch
from torch import Tensor

from lora_lab.lab import Lab
from lora_lab.merging import MERGE_METHODS, MergeRecipe, Setting
from lora_lab.recent import Recent, held_bytes
from lora_lab.recent import _parts as parts_of

HOLES = """
import sys
from pathlib import Path
import numpy as np
from lora_lab.memory import give_back, keep_low
if sys.argv[1] == "low":
    keep_low()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
np.ones(3 << 20, np.uint8)  # which teaches glibc to take blocks of this size from its own heap
before = resident()
blocks = [np.ones(2 << 20, np.uint8) for _ in range(200)]
kept = blocks[::2]
del blocks
print(resident() - before)
give_back()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_holes_between_what_is_kept_go_back():
    taken = {
        how: float(subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True).stdout)
        for how in ("low", "as it is")
    }
    # 100 blocks of 2 MiB are kept.
    assert taken["low"] == pytest.approx(210, abs=20)
    assert taken["as it is"] > 300


def test_what_a_value_holds_is_counted_once_wherever_it_lies():
    weights, other = torch.zeros(1000), torch.zeros(10, dtype=torch.float64)

    @lru_cache(maxsize=1)
    def made(scale: float) -> Tensor:
        return other * scale

    def merge() -> Tensor:
        return weights + made(2.0).sum()

    assert held_bytes({"a": weights, "b": [weights[:5], (weights,)]}) == 4000
    assert held_bytes(merge) == 4000 + 80
    merge()
    assert held_bytes(merge) == 4000 + 80 + 80
    assert held_bytes(partial(max, merge, weights)) == 4000 + 80 + 80
    assert held_bytes([None, 3, "text"]) == 0


def test_of_what_weighs_too_much_the_newest_stays():
    kept = Recent[str, int](4, 100, lambda value: value)
    for name, weight in (("a", 60), ("b", 30), ("c", 300)):
        kept.get(name, lambda weight=weight: weight)
    assert kept.get("c", lambda: 0) == 300
    assert kept.get("a", lambda: 1) == 1


def tensors(value: object, seen: set[int]) -> list[Tensor]:
    """All tensors that a value holds."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    return [value] if isinstance(value, Tensor) else [one for part in parts_of(value) for one in tensors(part, seen)]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.mark.parametrize("name", [name for name, one in MERGE_METHODS.items() if one.needs in ("nothing", "statistics")])
def test_a_prepared_merge_is_gone_as_soon_as_it_is_dropped(lab: Lab, name: str):
    """Not when Python next searches for objects that hold each other in a circle."""
    method, recipe = MERGE_METHODS[name], MergeRecipe.parse("emotion=1,galaxy=0.5", lab.backbone.name)
    selection = lab.merger._selection(recipe.adapters, method)
    given = {id(tensor) for tensor in tensors([selection.factors, selection.grams], set())}
    merge = method.prepare(selection)
    merge(Setting((1.0, 0.5), method.turned({}), 0))
    held = [weakref.ref(tensor) for tensor in tensors(merge, set()) if id(tensor) not in given]
    gc.disable()
    try:
        del merge, selection
        assert not [ref for ref in held if ref() is not None]
    finally:
        gc.enable()

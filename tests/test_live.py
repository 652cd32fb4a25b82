"""A moved slider: the same sum as a new merge, and its weights rounded once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.backbones import Backbone
from lora_lab.lab import Lab
from lora_lab.live import MovedSum, one_moved
from lora_lab.merging import MergeRecipe
from lora_lab.tasks import TASKS

FULL = "emotion=1,landmarks=0.5,galaxy=0.3"


def recipe(text: str) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 2), min_size=6, max_size=6), st.integers(0, 5), st.floats(-1, 2))
def test_one_moved_slider_is_the_new_merge(tiny_lab: Lab, weights: list[float], place: int, to: float):
    names = list(TASKS)
    before = dict(zip(names, weights, strict=True))
    after = before | {names[place]: to}
    texts = [",".join(f"{name}={weight}" for name, weight in one.items()) for one in (before, after)]
    tiny_lab.merge_live(recipe(texts[0]), "moved")
    live, fresh = tiny_lab.merge_live(recipe(texts[1]), "moved").deltas, tiny_lab.merge(recipe(texts[1])).deltas
    if before != after:
        assert isinstance(live, MovedSum)
    for target in set(live) | set(fresh):
        delta = fresh.get(target, torch.zeros(()))
        torch.testing.assert_close(live[target], delta.expand_as(live[target]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_rounded_once(tiny_lab: Lab, tiny: Backbone, dtype: torch.dtype):
    tiny_lab.merge_live(recipe(FULL), "rounded")
    live = tiny_lab.merge_live(recipe(FULL.replace("0.5", "0.75")), "rounded").deltas
    assert isinstance(live, MovedSum)
    fresh = tiny_lab.merge(recipe(FULL.replace("0.5", "0.75"))).deltas
    for target, weight in live.weights(dtype).items():
        exact = tiny.weight(target).double() + fresh[target].double()
        assert weight.dtype == dtype
        # Half the distance between neighbours, and what float32 may add to it.
        assert ((weight.double() - exact).abs() <= (torch.finfo(dtype).eps / 2 + 1e-6) * exact.abs() + 1e-7).all()


def test_what_a_sum_stands_on_is_not_written_to(tiny_lab: Lab, tiny: Backbone):
    before = {target: tiny.weight(target).clone() for target in tiny.target_modules}
    tiny_lab.merge_live(recipe(FULL), "untouched")
    for weight in (0.1, 0.9):
        live = tiny_lab.merge_live(recipe(FULL.replace("0.5", str(weight))), "untouched").deltas
        assert isinstance(live, MovedSum)
        kept = {target: stays.clone() for target, stays in live.stays.items()}
        live.weights(torch.float32)
        assert all(torch.equal(live.stays[target], stays) for target, stays in kept.items())
    assert all(torch.equal(tiny.weight(target), weight) for target, weight in before.items())


@pytest.mark.parametrize(
    ("last", "now", "moved"),
    [
        ("emotion=1,galaxy=1", "emotion=1,galaxy=0.5", "galaxy"),
        ("emotion=1,galaxy=1", "emotion=0.2,galaxy=0.5", None),
        ("emotion=1", "emotion=1,galaxy=0.5", "galaxy"),
        ("emotion=1,galaxy=1", "emotion=0.5", None),
        ("emotion=1,galaxy=0", "emotion=0.5", "emotion"),
        ("emotion=1", "emotion:r4=1", "emotion"),
        ("emotion=1", "emotion=1", None),
        (None, "emotion=1", None),
    ],
)
def test_what_has_moved(last: str | None, now: str, moved: str | None):
    found = one_moved(recipe(last) if last else None, recipe(now))
    assert (found.name if found else None) == moved

"""Repairs bring features back where they can, and say what they need."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference

from lora_lab.backbones import Features
from lora_lab.errors import LoraLabError
from lora_lab.repairs import REPAIRS, Damage, apply
from lora_lab.repairs.linear import Ridge, reading, reduced
from lora_lab.tasks import TASKS, Head, make_head

WIDTH, COUNT, CELLS = 32, 300, 16


def head_of(task: str) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_head(TASKS[task], WIDTH).eval().requires_grad_(False)


def damage(task: str = "age_class", labels: torch.Tensor | None = None) -> Damage:
    """Own features that a linear map of the merged ones gives, but for a part that only the patches tell."""
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(COUNT, WIDTH, generator=generator)
    patches = torch.randn(COUNT, CELLS, WIDTH, generator=generator)
    turn = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
    hidden = patches.mean(1) @ torch.randn(WIDTH, WIDTH, generator=generator)
    return Damage(Features(pooled, patches), pooled @ turn + hidden + 3.0, head_of(task), labels)


def left_over(broken: Damage, mend: torch.nn.Module | None) -> float:
    """The share of the own features' variance that is not explained."""
    pooled = broken.merged.pooled if mend is None else mend(broken.merged).pooled
    return float((pooled - broken.alone).square().sum() / (broken.alone - broken.alone.mean(0)).square().sum())


@pytest.mark.parametrize(("name", "most"), [("surgery", 0.3), ("linear", 0.15), ("patches", 0.03)])
def test_features_come_back(name: str, most: float):
    broken = damage()
    assert left_over(broken, REPAIRS[name].fit(broken)) < most * left_over(broken, None)


def test_the_regression_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(1)
    for count in (20, 200):  # fewer images than inputs, and more
        x, y = (torch.randn(count, k, generator=generator).double() for k in (50, 3))
        ours = Ridge(x, y)
        strength = 0.1 * float((x - x.mean(0)).square().sum() / count)
        reference = Reference(alpha=strength).fit(x.numpy(), y.numpy())
        found = (x - ours.centre) @ ours.weights(0.1) + ours.target
        np.testing.assert_allclose(found.numpy(), reference.predict(x.numpy()), atol=1e-8)


def test_a_regression_of_few_directions_is_kept_whole():
    x, weights = torch.randn(40, 10).double(), torch.randn(10, 2).double() @ torch.randn(2, 30).double()
    reduce, expand = reduced(x, weights)
    torch.testing.assert_close(reduce @ expand, weights)


def test_patches_are_read_by_cells():
    grid = torch.arange(16.0).view(1, 16, 1).expand(1, 16, WIDTH)
    read = reading(Features(torch.zeros(1, WIDTH), grid), 2)
    assert read.shape == (1, WIDTH * (1 + 1 + 4))
    assert read[0, WIDTH].item() == 7.5
    # The first cell of 2 × 2 holds the patches 0, 1, 4 and 5; its mean 2.5 is divided by 2.
    assert read[0, 2 * WIDTH].item() == pytest.approx(1.25)


def test_affine_undoes_a_shrunk_answer():
    broken = damage("age_regression")
    outputs = broken.head(broken.merged)[:, 0]
    task = TASKS["age_regression"]
    labels = (2.0 * outputs - 1.0) * task.scale + task.offset
    mend = REPAIRS["affine"].fit(Damage(broken.merged, broken.alone, broken.head, labels))
    torch.testing.assert_close(apply(broken.head, mend, broken.merged)[:, 0], 2.0 * outputs - 1.0, atol=1e-4, rtol=1e-4)


def test_affine_leaves_classes_and_asks_for_labels():
    broken = damage("age_class")
    mend = REPAIRS["affine"].fit(broken)
    assert torch.equal(apply(broken.head, mend, broken.merged), broken.head(broken.merged))
    with pytest.raises(LoraLabError, match="needs labels of landmarks"):
        REPAIRS["affine"].fit(damage("landmarks"))


@pytest.mark.parametrize("name", list(REPAIRS))
def test_a_mend_is_its_buffers(name: str):
    """The same again from the same images, and from what is stored of it."""
    broken = damage("age_regression", torch.full((COUNT,), 30.0) + torch.arange(COUNT))
    one, other = REPAIRS[name].fit(broken), REPAIRS[name].fit(broken)
    stored = REPAIRS[name].mend()
    stored.keep(**one.state_dict())
    expected = apply(broken.head, one, broken.merged)
    assert torch.equal(apply(broken.head, other, broken.merged), expected)
    assert torch.equal(apply(broken.head, stored, broken.merged), expected)

"""The methods that learn weights by looking: what they bring down falls, and what they give is what they say."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_adapter

from lora_lab.backbones import Deltas, by_layer, load_backbone
from lora_lab.errors import LoraLabError
from lora_lab.lora import Factors, LoraFactors, scaled_by_layer
from lora_lab.merging import Merged, MergeMethod, Selection, Setting, Sight, adamerging, exact, lorahub, nsc
from lora_lab.merging.layerwise import deltas_from, groups_of

BACKBONE = load_backbone("tiny")
TASKS = ("galaxy", "land_cover", "landmarks")
ADAPTERS = [random_adapter(BACKBONE, task, rank, seed) for seed, (task, rank) in enumerate(zip(TASKS, (4, 2, 8), strict=True))]
# Ten times as strong as other tests want them, so that what the first of two layers writes is felt in the second.
FACTORS = [{t: LoraFactors(pair.a, 10 * pair.b) for t, pair in adapter.factors.items()} for adapter in ADAPTERS]
WEIGHTS = (1.0, -0.5, 1.2)
GRADIENT = (nsc.METHOD, adamerging.METHOD)
ALL = (*GRADIENT, lorahub.METHOD)
KNOBS = {
    "nsc": {"steps": 12, "rate": 0.03, "images": 8},
    "adamerging": {"steps": 12, "rate": 0.03, "images": 8},
    "lorahub": {"trials": 15, "images": 6},
}


def random_pixels(seed: int, count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed))


SQUARE = random_pixels(0)
PIXELS = {"galaxy": SQUARE, "land_cover": SQUARE, "landmarks": random_pixels(1)}
LABELS = {"galaxy": torch.arange(8) % 4, "land_cover": torch.arange(8) % 5, "landmarks": torch.rand(8, 68, 2) - 0.5}
SIGHT = Sight(BACKBONE, PIXELS, {adapter.name: adapter.head for adapter in ADAPTERS}, LABELS)


def selected(sight: Sight | None = SIGHT, factors: Sequence[Factors] = FACTORS, names: Sequence[str] = TASKS) -> Selection:
    return Selection(names, factors, sight=sight)


def setting(method: MergeMethod, seed: int = 0, **knobs: float) -> Setting:
    return Setting(WEIGHTS, method.turned({**KNOBS[method.name], **knobs}), seed)


def mean_entropy(deltas: Deltas) -> float:
    heads = [(PIXELS[a.name], a.head) for a in ADAPTERS if a.head.task.kind == "classes"]
    return sum(adamerging.entropy(head(BACKBONE.encode(pixels, deltas))).item() for pixels, head in heads) / len(heads)


def mean_ratio(deltas: Deltas) -> float:
    """Written out with the inverse, as the paper has it."""
    per_task = []
    for adapter in ADAPTERS:
        ratios: list[float] = []

        def see(name: str, z: torch.Tensor, factors: Factors = adapter.factors, ratios: list[float] = ratios) -> None:
            a = factors[name].a
            seen = torch.einsum("bti,ij,btj->bt", z @ a.T, torch.linalg.inv(a @ a.T), z @ a.T)
            ratios.append((1 - seen / z.square().sum(-1)).sqrt().mean().item())

        BACKBONE.watch(PIXELS[adapter.name], deltas, BACKBONE.target_modules, see)
        per_task.append(np.mean(ratios))
    return float(np.mean(per_task))


OBJECTIVES: dict[str, Callable[[Deltas], float]] = {"nsc": mean_ratio, "adamerging": mean_entropy}


def started(method: MergeMethod, start: float) -> Deltas:
    factor = len(TASKS) ** -start
    return exact.merge(selected(None), Setting([w * factor for w in WEIGHTS]))


def test_the_ratio_by_hand():
    # A z = 3, A Aᵀ = 25, |z|² = 1: √(1 − 9/25). What lies along A is seen in full, what is across not at all.
    basis = nsc.row_space(torch.tensor([[3.0, 4.0]]))
    ratios = nsc.null_space_ratio(torch.tensor([[1.0, 0.0], [6.0, 8.0], [-4.0, 3.0]]), basis)
    torch.testing.assert_close(ratios, torch.tensor([0.8, 0.0, 1.0]), atol=1e-3, rtol=0)


def test_rows_that_repeat_each_other_count_once():
    assert nsc.row_space(torch.tensor([[1.0, 0, 0], [2.0, 0, 0]])).shape == (3, 1)
    assert nsc.row_space(torch.zeros(2, 3)).shape == (3, 0)


def test_entropy_by_hand():
    # Even among four: ln 4. Sure: 0. The mean of both.
    output = torch.tensor([[0.0, 0, 0, 0], [100.0, 0, 0, 0]])
    torch.testing.assert_close(adamerging.entropy(output), torch.tensor(np.log(4) / 2, dtype=torch.float32))


def test_deltas_from_coefficients_by_hand():
    one = {"layer.0.attention.key": LoraFactors(torch.tensor([[3.0]]), torch.tensor([[2.0]]))}
    two = {f"layer.{i}.attention.key": LoraFactors(torch.tensor([[1.0]]), torch.tensor([[1.0]])) for i in (0, 1)}
    coefficients = torch.tensor([[0.5, 9.0], [4.0, 7.0]], requires_grad=True)
    deltas = deltas_from([one, two], coefficients)
    assert [delta.item() for delta in deltas.values()] == [7.0, 7.0]
    torch.stack([delta.sum() for delta in deltas.values()]).sum().backward()
    assert coefficients.grad is not None
    assert coefficients.grad.tolist() == [[6.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("method", GRADIENT, ids=lambda method: method.name)
@pytest.mark.parametrize("start", [0, 1])
def test_what_is_brought_down_falls(method: MergeMethod, start: float):
    before, after = started(method, start), method.merge(selected(), setting(method, start=start)).deltas
    assert OBJECTIVES[method.name](after) < OBJECTIVES[method.name](before) - 2e-4


def test_the_loss_that_nsc_tells_is_the_ratio_written_out():
    told: list[str] = []
    sight = replace(SIGHT, tell=lambda share, word: told.append(word))
    nsc.METHOD.merge(selected(sight), setting(nsc.METHOD, steps=1, images=8, start=0))
    assert told == [f"null-space ratio {mean_ratio(started(nsc.METHOD, 0)):.4f}"]


def test_nothing_reads_what_the_last_layer_writes():
    layers = nsc.METHOD.merge(selected(), setting(nsc.METHOD, start=0)).layers
    assert layers is not None
    assert (layers[:, -1] == 1).all()
    assert (layers[:, 0] != 1).all()


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_the_layers_make_the_same_deltas_by_the_exact_sum(method: MergeMethod):
    result = method.merge(selected(), setting(method))
    assert result.layers is not None
    assert result.layers.shape == (len(TASKS), len(by_layer(BACKBONE)))
    scaled = [scaled_by_layer(own, layers.tolist()) for own, layers in zip(FACTORS, result.layers, strict=True)]
    expected = exact.merge(selected(None, scaled), Setting(WEIGHTS))
    for target in BACKBONE.target_modules:
        torch.testing.assert_close(result.deltas[target], expected[target], atol=1e-6, rtol=1e-5)
        assert not result.deltas[target].requires_grad


def layers_of(result: Merged) -> torch.Tensor:
    assert result.layers is not None
    return result.layers


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_the_seed_says_which_images(method: MergeMethod):
    few = {"images": 3}
    one, same, other = (layers_of(method.merge(selected(), setting(method, seed, **few))) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_progress_is_told_and_what_it_raises_ends_the_work(method: MergeMethod):
    told: list[float] = []

    def tell(share: float, word: str) -> None:
        told.append(share)
        if len(told) == 3:
            raise LoraLabError("enough")

    with pytest.raises(LoraLabError, match="enough"):
        method.merge(selected(replace(SIGHT, tell=tell)), setting(method))
    total = KNOBS[method.name].get("steps", KNOBS[method.name].get("trials", 0))
    assert told == [1 / total, 2 / total, 3 / total]


@pytest.mark.parametrize("method", GRADIENT, ids=lambda method: method.name)
def test_the_order_and_the_split_of_the_factors_change_nothing(method: MergeMethod):
    first = layers_of(method.merge(selected(), setting(method)))
    turned = Setting(WEIGHTS[::-1], setting(method).knobs)
    last = layers_of(method.merge(selected(factors=FACTORS[::-1], names=TASKS[::-1]), turned))
    torch.testing.assert_close(last.flip(0), first, atol=1e-3, rtol=0)
    mixes = [
        torch.linalg.qr(torch.randn(a.card.rank, a.card.rank, generator=torch.Generator().manual_seed(7)))[0] for a in ADAPTERS
    ]
    split = [
        {target: LoraFactors(3 * mix @ pair.a, pair.b @ mix.T / 3) for target, pair in own.items()}
        for own, mix in zip(FACTORS, mixes, strict=True)
    ]
    torch.testing.assert_close(layers_of(method.merge(selected(factors=split), setting(method))), first, atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", GRADIENT, ids=lambda method: method.name)
def test_a_rounded_backbone_learns_nearly_the_same(method: MergeMethod):
    rounded = replace(SIGHT, backbone=BACKBONE.to(torch.bfloat16))
    result = method.merge(selected(rounded), setting(method))
    assert OBJECTIVES[method.name](result.deltas) < OBJECTIVES[method.name](started(method, 1)) - 2e-4
    assert all(delta.dtype == torch.float32 for delta in result.deltas.values())


def test_adapters_that_share_images_share_a_forward():
    assert [group.adapters for group in groups_of(selected(), range(3))] == [(0, 1), (2,)]


def test_points_have_no_say_in_adamerging():
    sight = replace(SIGHT, pixels={**PIXELS, "landmarks": random_pixels(9)})
    one, other = (layers_of(adamerging.METHOD.merge(selected(s), setting(adamerging.METHOD))) for s in (SIGHT, sight))
    assert torch.equal(one, other)
    only_points = selected(factors=FACTORS[2:], names=TASKS[2:])
    with pytest.raises(LoraLabError, match="only heads that choose among classes"):
        adamerging.METHOD.prepare(only_points)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (-1.0, 2.0, 0.3)])
def test_lorahub_ends_no_worse_than_it_begins(weights: tuple[float, ...]):
    knobs = lorahub.METHOD.turned({"trials": 25, "images": 8})
    result = lorahub.METHOD.merge(selected(), Setting(weights, knobs))
    value = lorahub.objective(selected(), lorahub.examples_of(selected(), 8, 0))
    found = layers_of(result)[:, 0].numpy().astype(float) * np.array(weights)
    assert (np.abs(found) <= lorahub.WIDEST + 1e-6).all()
    assert value(found) < value(np.clip(np.array(weights), -1.5, 1.5))


def test_lorahub_counts_each_task_by_its_loss_alone():
    adapter = ADAPTERS[0]
    alone = selected(factors=FACTORS[:1], names=[adapter.name])
    value = lorahub.objective(alone, lorahub.examples_of(alone, 8, 0))
    # Alone at weight 1: 1 + 0.05 · 1. Without it: the head's loss on the bare backbone over that with the adapter.
    assert value(np.array([1.0])) == pytest.approx(1.05, abs=1e-5)
    bare, own = (
        adapter.head.loss(adapter.head(BACKBONE.encode(SQUARE, deltas)), LABELS["galaxy"]).item()
        for deltas in ({}, deltas_from(FACTORS[:1], torch.ones(1, 2)))
    )
    assert value(np.array([0.0])) == pytest.approx(bare / own, abs=1e-5)


def test_a_search_keeps_the_best_of_all_it_tried():
    tried: list[float] = []

    def value(x: np.ndarray) -> float:
        tried.append(float(np.square(x - np.array([0.4, -0.9])).sum()))
        return tried[-1]

    found = lorahub.search(value, np.array([1.0, 1.0]), 30, lambda share, word: None)
    assert np.square(found - np.array([0.4, -0.9])).sum() == min(tried) < 1e-3
    assert len(tried) <= 30


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_what_is_lacking_is_named(method: MergeMethod):
    with pytest.raises(LoraLabError, match="must look at images"):
        method.merge(selected(None), setting(method))
    blind = replace(SIGHT, pixels={"landmarks": PIXELS["landmarks"]}, labels={})
    with pytest.raises(LoraLabError, match="of galaxy, land_cover"):
        method.merge(selected(blind), setting(method))
    combinations = np.prod([len(knob.tried) or 1 for knob in method.knobs])
    assert combinations <= 6

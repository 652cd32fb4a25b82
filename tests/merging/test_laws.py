"""What every method of the catalog promises, held to over random adapters of mixed ranks, weights and seeds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import random_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.backbones import Deltas, load_backbone
from lora_lab.errors import LoraLabError
from lora_lab.lora import LoraFactors, deltas_of
from lora_lab.merging import LAWS, MERGE_METHODS, Merged, MergeMethod, Selection, Setting, Sight

BACKBONE = load_backbone("tiny")
RANKS = {"age_class": 3, "emotion": 8, "landmarks": 1, "galaxy": 5}
ADAPTERS = {task: random_adapter(BACKBONE, task, rank, seed) for seed, (task, rank) in enumerate(RANKS.items())}
QUICK = {"steps": 2, "trials": 12, "images": 2}
LOOK = ("images", "labels")


def gram(seed: int, width: int) -> torch.Tensor:
    x = torch.randn(4 * width, width, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / len(x)


def sight(names: list[str]) -> Sight:
    pixels = {name: torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(len(name))) for name in names}
    targets = {
        "classes": torch.zeros(4, dtype=torch.long),
        "points": torch.zeros(4, 68, 2),
        "number": torch.full((4,), 30.0),
    }
    heads = {name: ADAPTERS[name].head for name in names}
    return Sight(BACKBONE, pixels, heads, {name: targets[head.task.kind] for name, head in heads.items()})


def selection(names: list[str]) -> Selection:
    factors = [ADAPTERS[name].factors for name in names]
    grams = [{t: gram(len(name) + i // 2, 32) for i, t in enumerate(BACKBONE.target_modules)} for name in names]
    return Selection(tuple(names), factors, grams, sight(names))


def setting(method: MergeMethod, weights: list[float], seed: int = 0) -> Setting:
    few = {knob.name: max(knob.low, QUICK[knob.name]) for knob in method.knobs if knob.name in QUICK}
    return Setting(tuple(weights), method.turned(few), seed)


def run(method: MergeMethod, weights: list[float], names: list[str] | None = None, seed: int = 0) -> Merged:
    names = names or list(ADAPTERS)
    return method.merge(selection(names), setting(method, weights, seed))


def close(one: Deltas, other: Deltas, tolerance: float = 2e-4) -> None:
    assert one.keys() == other.keys()
    for target in one:
        torch.testing.assert_close(one[target], other[target], atol=tolerance, rtol=tolerance)


def with_law(law: str) -> list[MergeMethod]:
    return [method for method in MERGE_METHODS.values() if law in method.laws]


def each(methods: list[MergeMethod]) -> Callable:
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)


def low(method: MergeMethod) -> float:
    return 0.05 if "negative weights" in method.refuses else -1.0


def weights_for(method: MergeMethod, data: st.DataObject, count: int = 4) -> list[float]:
    number = st.floats(low(method), 2, width=32).filter(lambda w: abs(w) > 0.04)
    return data.draw(st.lists(number, min_size=count, max_size=count))


METHODS = list(MERGE_METHODS.values())
LAWFUL = settings(max_examples=5, deadline=None)


@each(METHODS)
def test_it_says_what_it_is(method: MergeMethod):
    assert method.name == method.name.lower()
    assert method.summary.endswith(".")
    assert method.laws <= set(LAWS)
    for knob in method.knobs:
        assert all(knob.low <= value <= knob.high for value in (knob.default, *knob.tried)), knob.name


@each(METHODS)
def test_it_keeps_its_hands_off_what_it_is_given(method: MergeMethod):
    chosen = selection(list(ADAPTERS))
    before = {(i, t): (p.a.clone(), p.b.clone()) for i, f in enumerate(chosen.factors) for t, p in f.items()}
    weights = {t: BACKBONE.weight(t).clone() for t in BACKBONE.target_modules}
    method.merge(chosen, setting(method, [1.0, 0.5, 0.7, 1.2]))
    assert all(torch.equal(before[i, t][0], p.a) for i, f in enumerate(chosen.factors) for t, p in f.items())
    assert all(torch.equal(before[i, t][1], p.b) for i, f in enumerate(chosen.factors) for t, p in f.items())
    assert all(torch.equal(weights[t], BACKBONE.weight(t)) for t in weights)


@each(METHODS)
def test_the_same_recipe_gives_the_same(method: MergeMethod):
    """Made anew, and from one preparation after other weights were asked of it."""
    weights = [1.0, 0.5, 0.7, 1.2]
    once = run(method, weights)
    prepared = method.prepare(selection(list(ADAPTERS)))
    prepared(setting(method, [0.3, 0.4, 0.5, 0.6]))
    again = prepared(setting(method, weights))
    assert all(torch.equal(once.deltas[t], again.deltas[t]) for t in once.deltas)
    assert list(once.deltas) == list(BACKBONE.target_modules)
    assert all(delta.isfinite().all() and not delta.requires_grad for delta in once.deltas.values())


@each([method for method in METHODS if method.needs in ("nothing", "statistics")])
def test_a_product_in_half_precision_is_nearly_the_same(method: MergeMethod):
    weights, prepared = [1.0, 0.5, 0.7, 1.2], method.prepare(selection(list(ADAPTERS)))
    exact = prepared(setting(method, weights)).deltas
    half = prepared(replace(setting(method, weights), dtype=torch.bfloat16)).deltas
    for target, delta in exact.items():
        assert (half[target] - delta).norm() < 0.01 * delta.norm()
    again = prepared(setting(method, weights)).deltas
    assert all(torch.equal(again[target], delta) for target, delta in exact.items())


@each(METHODS)
def test_negative_weights_and_one_adapter_will_do(method: MergeMethod):
    if "negative weights" not in method.refuses:
        assert all(delta.isfinite().all() for delta in run(method, [-0.5, 1.0, 0.7, -1.0]).deltas.values())
    assert all(delta.isfinite().all() for delta in run(method, [0.8], ["emotion"]).deltas.values())


@each(METHODS)
def test_adapters_may_touch_different_modules(method: MergeMethod):
    whole = selection(["age_class", "emotion"])
    first = {t: whole.factors[0][t] for t in BACKBONE.target_modules[:2]}
    merged = method.merge(replace(whole, factors=[first, whole.factors[1]]), setting(method, [1.0, 1.0]))
    assert set(merged.deltas) == set(BACKBONE.target_modules)


@each(METHODS)
def test_a_knob_out_of_range_is_told(method: MergeMethod):
    with pytest.raises(LoraLabError, match="no knob 'twist'"):
        method.turned({"twist": 1})
    for knob in method.knobs:
        with pytest.raises(LoraLabError, match=f"{knob.name} = .* is not in"):
            method.turned({knob.name: knob.high + 1})


@each(METHODS)
def test_what_a_recipe_asks_of_weights_is_taken_or_refused(method: MergeMethod):
    if "weights" not in method.refuses:
        one, other = run(method, [1.0, 1.0, 1.0, 1.0]), run(method, [1.0, 0.2, 1.0, 1.0])
        assert any(not torch.allclose(one.deltas[t], other.deltas[t]) for t in one.deltas)
    else:
        one, other = run(method, [1.0, 1.0, 1.0, 1.0]), run(method, [1.0, 0.2, 1.0, 1.0])
        assert all(torch.equal(one.deltas[t], other.deltas[t]) for t in one.deltas)


@each([method for method in METHODS if "seed" not in method.laws])
def test_without_the_law_another_seed_is_another_merge(method: MergeMethod):
    one, other = run(method, [1.0] * 4, seed=0), run(method, [1.0] * 4, seed=1)
    assert any(not torch.equal(one.deltas[t], other.deltas[t]) for t in one.deltas)


@each(with_law("seed"))
def test_law_of_the_seed(method: MergeMethod):
    one, other = run(method, [1.0] * 4, seed=0), run(method, [1.0] * 4, seed=7)
    assert all(torch.equal(one.deltas[t], other.deltas[t]) for t in one.deltas)


@each(with_law("alone"))
def test_law_of_one_alone(method: MergeMethod):
    for name in ADAPTERS:
        close(dict(run(method, [1.0], [name]).deltas), deltas_of(ADAPTERS[name].factors))


@each(with_law("linear"))
@LAWFUL
@given(data=st.data())
def test_law_of_linearity(method: MergeMethod, data: st.DataObject):
    one, other = weights_for(method, data), weights_for(method, data)
    prepared = method.prepare(selection(list(ADAPTERS)))
    total = [a + b for a, b in zip(one, other, strict=True)]
    first, second = (prepared(setting(method, weights)).deltas for weights in (one, other))
    close(dict(prepared(setting(method, total)).deltas), {t: first[t] + second[t] for t in first})


@each(with_law("scale"))
@LAWFUL
@given(data=st.data(), share=st.floats(0.25, 1))
def test_law_of_scale(method: MergeMethod, data: st.DataObject, share: float):
    weights = weights_for(method, data)
    prepared = method.prepare(selection(list(ADAPTERS)))
    scaled = prepared(setting(method, [share * w for w in weights])).deltas
    close(dict(scaled), {t: share * d for t, d in prepared(setting(method, weights)).deltas.items()})


@each(with_law("order"))
@LAWFUL
@given(data=st.data())
def test_law_of_order(method: MergeMethod, data: st.DataObject):
    weights = dict(zip(ADAPTERS, weights_for(method, data), strict=True))
    turned = data.draw(st.permutations(list(ADAPTERS)))
    close(
        dict(run(method, [weights[n] for n in turned], list(turned)).deltas), dict(run(method, list(weights.values())).deltas)
    )


@each(with_law("factors"))
@LAWFUL
@given(scale=st.floats(0.25, 4), seed=st.integers(0, 99))
def test_law_of_factors(method: MergeMethod, scale: float, seed: int):
    """Another split of the same ΔW: A turned and scaled, B back again."""
    whole = selection(list(ADAPTERS))
    generator = torch.Generator().manual_seed(seed)

    def resplit(pair: LoraFactors) -> LoraFactors:
        turn, _ = torch.linalg.qr(torch.randn(pair.rank, pair.rank, generator=generator))
        return LoraFactors(scale * turn @ pair.a, pair.b @ turn.T / scale)

    other = replace(whole, factors=[{t: resplit(p) for t, p in f.items()} for f in whole.factors])
    now = setting(method, [1.0, 0.5, 0.7, 1.2])
    close(dict(method.merge(other, now).deltas), dict(method.merge(whole, now).deltas), 1e-3)


@each([method for method in with_law("rotation") if method.needs == "nothing"])
def test_law_of_rotation(method: MergeMethod):
    """Axes of inputs and outputs turned in every module: the merge turns with them."""
    whole = selection(list(ADAPTERS))
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(32, 32, generator=generator))[0] for _ in range(2))
    turned = [{t: LoraFactors(p.a @ right, left @ p.b) for t, p in f.items()} for f in whole.factors]
    now = setting(method, [1.0, 0.5, 0.7, 1.2])
    expected = {t: left @ d @ right for t, d in method.merge(whole, now).deltas.items()}
    close(dict(method.merge(replace(whole, factors=turned), now).deltas), expected, 1e-3)

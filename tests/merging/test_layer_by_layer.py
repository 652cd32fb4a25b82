"""IterIS, RegMean++ and distillation: optimal where they promise it, and one pass is what many rounds come to."""

import pytest
import torch
from conftest import random_adapter

from lora_lab import gram
from lora_lab.backbones import Backbone, Deltas, load_backbone
from lora_lab.errors import LoraLabError
from lora_lab.lora import deltas_of
from lora_lab.merging import Selection, Setting, Sight, distillation, iteris, regmean_pp
from lora_lab.merging.layer_by_layer import CHUNK, Seen

BACKBONE = load_backbone("tiny")
ADAPTERS = [random_adapter(BACKBONE, task, rank, rank) for task, rank in (("age_class", 4), ("emotion", 8), ("galaxy", 2))]
NAMES = [adapter.name for adapter in ADAPTERS]
WEIGHTS = (1.0, 0.7, -0.4)
RIDGE = 1e-3


def images(seed: int, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed))


def sight(tell: object = None, count: int = 6) -> Sight:
    pixels = {name: images(seed, count) for seed, name in enumerate(NAMES)}
    heads = {adapter.name: adapter.head for adapter in ADAPTERS}
    return Sight(BACKBONE, pixels, heads) if tell is None else Sight(BACKBONE, pixels, heads, tell=tell)  # type: ignore[arg-type]


def selection(seen: Sight | None = None) -> Selection:
    return Selection(NAMES, [adapter.factors for adapter in ADAPTERS], [], seen or sight())


def knobs(method: object, **changes: float) -> dict[str, float]:
    return method.turned(changes)  # type: ignore[attr-defined]


def inputs(backbone: Backbone, deltas: Deltas, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each target module reads, (tokens, D), in float64."""
    found: dict[str, torch.Tensor] = {}
    backbone.watch(pixels, deltas, backbone.target_modules, lambda name, x: found.__setitem__(name, x.flatten(0, 1).double()))
    return found


def objective(weight: torch.Tensor, target: str, owns: list, alone: list, merged: list) -> float:
    """Σ λₖ‖Xₖ Wₖᵀ − X̃ₖ Wᵀ‖² / n, written out."""
    total = 0.0
    for own, x, y in zip(owns, alone, merged, strict=True):
        w = BACKBONE.weight(target).double() + own[target].double()
        answers = x[target] @ w.T
        scale = w.square().sum() / (answers.square().sum() / len(answers))
        total += float(scale * (answers - y[target] @ weight.T).square().sum() / len(answers))
    return total


@pytest.fixture(scope="module")
def frozen() -> tuple[Deltas, list, list, list]:
    """The merge with a small ridge, the adapters' own deltas, and the inputs alone and merged.

    None at all would not do: the norm before a layer takes the mean out of its inputs, so one direction is never seen.
    """
    deltas = iteris.METHOD.merge(selection(), Setting(WEIGHTS, knobs(iteris.METHOD, ridge=RIDGE))).deltas
    owns = [{t: w * d for t, d in deltas_of(a.factors).items()} for a, w in zip(ADAPTERS, WEIGHTS, strict=True)]
    seen = sight()
    # A weight scales what is aimed at and not what an adapter sees.
    alone = [inputs(BACKBONE, deltas_of(a.factors), seen.pixels[a.name]) for a in ADAPTERS]
    merged = [inputs(BACKBONE, deltas, seen.pixels[name]) for name in NAMES]
    return deltas, owns, alone, merged


def test_no_other_weight_is_better_for_the_same_inputs(frozen: tuple):
    deltas, owns, alone, merged = frozen
    generator = torch.Generator().manual_seed(0)
    for target in BACKBONE.target_modules:
        best = BACKBONE.weight(target).double() + deltas[target].double()
        least = objective(best, target, owns, alone, merged)
        for size in (1e-3, 1e-2, 0.1):
            other = best + size * torch.randn(best.shape, generator=generator).double()
            assert objective(other, target, owns, alone, merged) > least
        assert objective(BACKBONE.weight(target).double(), target, owns, alone, merged) > least


def test_one_pass_is_what_many_rounds_come_to(frozen: tuple):
    """Rounds as the paper has them: run the merged model, solve every layer at once, and again."""
    expected, _, alone, _ = frozen
    seen, setting = sight(), Setting(WEIGHTS, knobs(iteris.METHOD, ridge=RIDGE))
    deltas: Deltas = {target: torch.zeros(BACKBONE.weight(target).shape) for target in BACKBONE.target_modules}
    for _ in range(len(BACKBONE.target_modules)):
        merged = [inputs(BACKBONE, deltas, seen.pixels[name]) for name in NAMES]
        deltas = {
            target: iteris.solved(
                BACKBONE.weight(target).double(),
                target,
                [adapter.factors for adapter in ADAPTERS],
                [
                    Seen(y[target].T @ y[target], x[target].T @ x[target], x[target].T @ y[target])
                    for x, y in zip(alone, merged, strict=True)
                ],
                (setting, [1.0] * 3, True),
            ).float()
            for target in BACKBONE.target_modules
        }
    for target, delta in expected.items():
        torch.testing.assert_close(deltas[target], delta, atol=1e-5, rtol=1e-5)


def test_by_hand():
    """One input, one output. X = 1, X̃ = 2, W₀ = 1, ΔW = 1: 2 W must be 2, so W = 1 and ΔW = 0."""
    from lora_lab.lora import LoraFactors

    factors = {"m": LoraFactors(torch.ones(1, 1), torch.ones(1, 1))}
    seen = Seen(torch.tensor([[4.0]]).double(), torch.tensor([[1.0]]).double(), torch.tensor([[2.0]]).double())
    setting = Setting([1.0], {"ridge": 1e-8})
    one = torch.ones(1, 1).double()
    assert iteris.solved(one, "m", [factors], [seen], (setting, [1.0], True)).item() == pytest.approx(0.0, abs=1e-6)
    # The delta alone: 2 ΔW must be 1.
    assert iteris.solved(one, "m", [factors], [seen], (setting, [1.0], False)).item() == pytest.approx(0.5, abs=1e-6)


def test_an_adapter_alone_stays_what_it_is():
    one = Selection(NAMES[:1], [ADAPTERS[0].factors], [], sight())
    for method in (iteris.METHOD, regmean_pp.METHOD):
        deltas = method.merge(one, Setting([1.0], method.turned({}))).deltas
        pixels = images(9)
        own = BACKBONE.encode(pixels, deltas_of(ADAPTERS[0].factors)).pooled
        torch.testing.assert_close(BACKBONE.encode(pixels, deltas).pooled, own, atol=0.02, rtol=0.02)


def test_regmean_pp_in_the_first_layer_is_regmean_on_what_the_backbone_reads():
    deltas = regmean_pp.METHOD.merge(selection(), Setting(WEIGHTS, knobs(regmean_pp.METHOD, shrink=1.0))).deltas
    read = [inputs(BACKBONE, {}, sight().pixels[name]) for name in NAMES]
    for target in BACKBONE.target_modules[:2]:
        grams = [x[target].T @ x[target] / len(x[target]) for x in read]
        own = zip(ADAPTERS, WEIGHTS, grams, strict=True)
        right = sum(weight * adapter.factors[target].delta().double() @ gram for adapter, weight, gram in own)
        expected = gram.solve_spd(torch.stack(grams).sum(0), right, regmean_pp.RIDGE)  # type: ignore[arg-type]
        # As far as inputs reach: one direction is never seen, since the norm before takes the mean out.
        for x in read:
            torch.testing.assert_close(x[target] @ deltas[target].double().T, x[target] @ expected.T, atol=1e-4, rtol=1e-4)


def test_chunks_change_nothing():
    many = CHUNK + 3
    big = selection(sight(count=many))
    whole = iteris.METHOD.merge(big, Setting(WEIGHTS, knobs(iteris.METHOD, images=many)))
    fewer = iteris.METHOD.merge(big, Setting(WEIGHTS, knobs(iteris.METHOD, images=8)))
    same = iteris.METHOD.merge(selection(sight(count=many)), Setting(WEIGHTS, knobs(iteris.METHOD, images=many)))
    assert all(torch.equal(whole.deltas[t], same.deltas[t]) for t in whole.deltas)
    assert any(not torch.allclose(whole.deltas[t], fewer.deltas[t]) for t in whole.deltas)


def test_a_second_pass_helps_what_drifted_most():
    setting = Setting(WEIGHTS, knobs(iteris.METHOD, passes=2, emphasis=2))
    first = iteris.METHOD.merge(selection(), Setting(WEIGHTS, knobs(iteris.METHOD))).deltas
    second = iteris.METHOD.merge(selection(), setting).deltas
    before, after = (iteris.drifted(selection(), sight(), setting, deltas) for deltas in (first, second))
    worst = before.index(max(before))
    assert after[worst] < before[worst]


def test_distillation_brings_the_answers_nearer():
    setting = Setting((1.0, 1.0, 1.0), knobs(distillation.METHOD, steps=40, rate=3e-3))
    chosen = selection()
    lessons = distillation.lessons_of(chosen, sight(), setting)
    start = iteris.METHOD.merge(chosen, Setting((1.0, 1.0, 1.0), knobs(iteris.METHOD))).deltas
    rows = [torch.arange(len(lesson.pixels)) for lesson in lessons]
    merged = distillation.METHOD.merge(chosen, setting).deltas
    with torch.no_grad():
        before, after = (float(distillation.batch_loss(BACKBONE, deltas, lessons, rows)) for deltas in (start, merged))
    assert after < 0.7 * before


def test_faces_are_lessons_for_every_face_head():
    lessons = distillation.lessons_of(selection(), sight(), Setting(WEIGHTS, knobs(distillation.METHOD)))
    assert [[head.task.name for head in lesson.heads] for lesson in lessons] == [
        ["age_class", "emotion"],
        ["age_class", "emotion"],
        ["galaxy"],
    ]
    own, others = lessons[0].shares[0], lessons[1].shares[0]
    assert others == pytest.approx(0.5 * own)


@pytest.mark.parametrize("method", [iteris.METHOD, regmean_pp.METHOD, distillation.METHOD], ids=lambda method: method.name)
def test_progress_is_told_and_can_end_the_work(method: object):
    told: list[float] = []
    few = {"steps": 2} if method is distillation.METHOD else {}
    method.merge(selection(sight(lambda share, word: told.append(share))), Setting(WEIGHTS, knobs(method, **few)))  # type: ignore[attr-defined]
    assert told[-1] == 1.0

    def stop(share: float, word: str) -> None:
        raise LoraLabError("cancelled")

    with pytest.raises(LoraLabError, match="cancelled"):
        method.merge(selection(sight(stop)), Setting(WEIGHTS, knobs(method)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [iteris.METHOD, regmean_pp.METHOD, distillation.METHOD], ids=lambda method: method.name)
def test_without_images_it_says_so(method: object):
    blind = Selection(NAMES, [adapter.factors for adapter in ADAPTERS])
    with pytest.raises(LoraLabError, match="needs images for age_class, emotion, galaxy"):
        method.merge(blind, Setting(WEIGHTS, knobs(method)))  # type: ignore[attr-defined]

"""Learned composition on coloured squares: the draw, the weights, the folder, and the five ways."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import write_squares

from lora_lab.backbones import Backbone
from lora_lab.composition import (
    WAYS,
    Composition,
    Lesson,
    NewTask,
    Plan,
    compose,
    composed,
    drawn_rows,
    load_composition,
    members_for,
    open_new_task,
    save_composition,
)
from lora_lab.errors import LoraLabError, MismatchError, NotFoundError
from lora_lab.evaluation import encode_crops, head_outputs
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.tasks import TASKS

PLAN = Plan(steps=30)
OTHERS = ["age_class", "age_regression", "emotion", "landmarks", "land_cover"]


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> NewTask:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("squares")
        write_squares(folder / "galaxy", train=80, val=48)
        return open_new_task("galaxy", folder, 56, 5, 0)


@pytest.fixture(scope="module")
def made(tiny_lab: Lab, new: NewTask) -> Composition:
    return compose(tiny_lab, members_for(tiny_lab, new.task), new, PLAN)


def lesson(lab: Lab, new: NewTask, seed: int = 0, steps: int = 30) -> Lesson:
    factors = {a.name: lab.adapter(a.name, a.rank).factors for a in members_for(lab, new.task)}
    return Lesson(lab.backbone, factors, new.task, new.crops, seed, steps)


def logits(model: MergedModel, new: NewTask) -> np.ndarray:
    return head_outputs(model.heads["galaxy"], encode_crops(model.backbone, new.held_out, model.deltas))


def loss(model: MergedModel, new: NewTask) -> float:
    targets = torch.from_numpy(new.crops.targets)
    outputs = head_outputs(model.heads["galaxy"], encode_crops(model.backbone, new.crops, model.deltas))
    return torch.nn.functional.cross_entropy(torch.from_numpy(outputs), targets).item()


def test_a_draw_is_balanced_and_fewer_images_are_part_of_more():
    targets = np.random.default_rng(0).integers(0, 4, 200)
    one, five = (drawn_rows(TASKS["galaxy"], targets, shots, 3) for shots in (1, 5))
    assert np.bincount(targets[one]).tolist() == [1] * 4
    assert np.bincount(targets[five]).tolist() == [5] * 4
    assert set(one) < set(five)
    assert not np.array_equal(five, drawn_rows(TASKS["galaxy"], targets, 5, 4))


def test_a_class_with_few_images_gives_all_of_them():
    targets = np.array([0] * 50 + [1] * 2)
    assert np.bincount(targets[drawn_rows(TASKS["galaxy"], targets, 5, 0)]).tolist() == [5, 2]


def test_a_numbers_range_is_drawn_from_evenly():
    ages = np.concatenate([np.full(500, 20.0), np.arange(0, 120)]).astype(np.float32)
    drawn = ages[drawn_rows(TASKS["age_regression"], ages, 4, 0)]
    assert np.histogram(drawn, 6, (0, 119))[0].tolist() == [4] * 6


def test_few_val_images_are_joined_by_those_that_were_not_drawn(new: NewTask):
    assert len(new.crops) == 20
    assert len(new.held_out) == 48 + 60


def test_those_who_know_the_images_take_no_part(tiny_lab: Lab):
    assert [a.name for a in members_for(tiny_lab, TASKS["galaxy"])] == OTHERS
    assert [a.name for a in members_for(tiny_lab, TASKS["age_class"])] == ["emotion", "landmarks", "galaxy", "land_cover"]
    only = MergeRecipe.parse("emotion,landmarks:r16", "tiny")
    chosen = members_for(tiny_lab, TASKS["galaxy"], ["emotion"], only)
    assert [(a.name, a.rank) for a in chosen] == [("landmarks", 16)]
    with pytest.raises(NotFoundError, match="emotions"):
        members_for(tiny_lab, TASKS["galaxy"], ["emotions"])
    with pytest.raises(LoraLabError, match="no adapter is left"):
        members_for(tiny_lab, TASKS["galaxy"], ["emotion"], MergeRecipe.parse("emotion,galaxy", "tiny"))


def test_the_weights_of_a_layer_sum_to_one_and_have_moved(made: Composition, tiny_lab: Lab):
    weights = np.array(list(made.layers.values()))
    assert weights.shape == (5, tiny_lab.backbone.module.config.num_hidden_layers)  # type: ignore[union-attr]
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    assert (weights > 0).all()
    assert np.abs(weights - 1 / 5).max() > 0.01
    means = [share for _, share in made.carrying]
    assert means == sorted(means, reverse=True)


def test_weights_begin_equal(tiny_lab: Lab, new: NewTask):
    first = WAYS["learned"].train(lesson(tiny_lab, new, steps=1))
    torch.testing.assert_close(first.layers, torch.full((5, 2), 0.2))


@pytest.mark.parametrize("name", list(WAYS))
def test_every_way_learns_what_it_sees_and_the_same_each_time(name: str, tiny_lab: Lab, new: NewTask):
    before = loss(WAYS[name].train(lesson(tiny_lab, new, steps=1)).model, new)
    one, two = (WAYS[name].train(lesson(tiny_lab, new)).model for _ in range(2))
    assert loss(one, new) < 0.9 * before
    np.testing.assert_array_equal(logits(one, new), logits(two, new))
    assert not np.allclose(logits(one, new), logits(WAYS[name].train(lesson(tiny_lab, new, seed=1)).model, new))


def test_adapters_and_backbone_stay_as_they_are(tiny_lab: Lab, tiny: Backbone, new: NewTask):
    given = lesson(tiny_lab, new)
    before = {(n, t): (p.a.clone(), p.b.clone()) for n, f in given.members.items() for t, p in f.items()}
    weights = {name: tensor.clone() for name, tensor in tiny_lab.backbone.module.state_dict().items()}
    for way in WAYS.values():
        way.train(given)
    for (name, target), (a, b) in before.items():
        pair = given.members[name][target]
        assert torch.equal(pair.a, a)
        assert torch.equal(pair.b, b)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny_lab.backbone.module.state_dict().items())


def test_only_the_weights_are_trained(tiny_lab: Lab, new: NewTask):
    counts = {name: WAYS[name].train(lesson(tiny_lab, new, steps=1)).parameters for name in WAYS}
    assert counts["head_only"] == counts["uniform"] == 0
    assert counts["learned"] == 5 * 2
    assert counts["learned"] < counts["lora"] < counts["full"]


def test_uniform_is_the_mean_of_the_deltas(tiny_lab: Lab, new: NewTask):
    given = lesson(tiny_lab, new, steps=1)
    deltas = WAYS["uniform"].train(given).model.deltas
    for target in tiny_lab.backbone.target_modules:
        mean = torch.stack([factors[target].delta() for factors in given.members.values()]).mean(0)
        torch.testing.assert_close(deltas[target], mean, atol=1e-6, rtol=1e-5)


def test_a_saved_composition_answers_as_before(made: Composition, tiny_lab: Lab, new: NewTask, tmp_path: Path):
    save_composition(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.json", "head.safetensors", "composition.json"}
    again = load_composition(tmp_path, tiny_lab.backbone)
    assert again.card.model_dump_json() == made.card.model_dump_json()
    assert again.task == made.task
    assert again.recipe == made.recipe
    np.testing.assert_array_equal(logits(composed(tiny_lab, again), new), logits(composed(tiny_lab, made), new))
    trained = WAYS["learned"].train(lesson(tiny_lab, new)).model
    np.testing.assert_allclose(logits(composed(tiny_lab, again), new), logits(trained, new), atol=1e-4)


def test_scores_are_of_the_held_out_images(made: Composition, new: NewTask):
    assert list(made.card.ways) == ["head_only", "uniform", "learned"]
    for result in made.card.ways.values():
        score = result.scores["macro_f1"]
        assert score.n == len(new.held_out)
        assert 0 <= score.low <= score.value <= score.high <= 100


def test_what_will_not_do_is_told(made: Composition, tiny_lab: Lab, new: NewTask, tmp_path: Path):
    with pytest.raises(LoraLabError, match="500 steps"):
        compose(tiny_lab, members_for(tiny_lab, new.task), new, Plan(steps=500))
    with pytest.raises(NotFoundError, match="did you mean 'uniform'"):
        compose(tiny_lab, members_for(tiny_lab, new.task), new, Plan(ways=("uniforms",)))
    with pytest.raises(NotFoundError, match="no composition"):
        load_composition(tmp_path, tiny_lab.backbone)
    stale = replace(made, card=made.card.model_copy(update={"adapters": "other"}))
    with pytest.raises(MismatchError, match="learn it again"):
        composed(tiny_lab, stale)
    save_composition(replace(made, card=made.card.model_copy(update={"fingerprint": "f" * 64})), tmp_path)
    with pytest.raises(MismatchError, match="load the backbone it names"):
        load_composition(tmp_path, tiny_lab.backbone)


def test_a_listener_may_end_the_work(tiny_lab: Lab, new: NewTask):
    heard: list[float] = []

    def tell(share: float, what: str) -> None:
        heard.append(share)
        if "Uniform" in what:
            raise LoraLabError("enough")

    with pytest.raises(LoraLabError, match="enough"):
        compose(tiny_lab, members_for(tiny_lab, new.task), new, PLAN, tell)
    assert heard == sorted(heard)
    assert 0.33 < heard[-1] < 0.36

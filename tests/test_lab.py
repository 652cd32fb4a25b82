"""One photo, six heads, one merged model, and nothing that one person does reaches another."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, PORTRAIT

from lora_lab.errors import DataError, LoraLabError, MismatchError, NotFoundError
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merger import Merger
from lora_lab.merging import MergeRecipe
from lora_lab.recent import Recent
from lora_lab.records import PhotoPrediction
from lora_lab.tasks import TASKS

FACE_TASKS = [name for name, task in TASKS.items() if task.framing == "face"]


def recipe(text: str) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny")


def numbers(prediction: PhotoPrediction) -> dict[str, np.ndarray]:
    """Every number that the heads of the first face and of the photo give."""
    found = {}
    for name, one in {**prediction.faces[0].predictions, **prediction.photo.predictions}.items():
        given = one.points or (one.probabilities or {"value": one.value}).values()
        found[name] = np.array(list(given), dtype=float)
    return found


def assert_alike(one: PhotoPrediction, other: PhotoPrediction) -> None:
    first, second = numbers(one), numbers(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-3, rtol=1e-4)


def test_every_head_answers_from_one_merge(tiny_lab: Lab):
    answer = tiny_lab.predict(tiny_lab.photo(PORTRAIT), tiny_lab.uniform())
    prediction = answer.prediction
    assert len(prediction.faces) == 1
    assert list(prediction.faces[0].predictions) == FACE_TASKS
    assert list(prediction.photo.predictions) == ["galaxy", "land_cover"]
    points = prediction.faces[0].predictions["landmarks"].points
    assert points is not None
    assert len(points) == 68
    assert prediction.note is None
    assert all(a.weight == pytest.approx(1 / 6) for a in answer.recipe.adapters)


def test_no_face_is_said_and_the_others_answer(tiny_lab: Lab):
    prediction = tiny_lab.predict(tiny_lab.photo(EXAMPLES / "hubble_spiral.jpg"), tiny_lab.uniform()).prediction
    assert prediction.faces == ()
    assert prediction.note is not None
    assert "no face" in prediction.note
    assert set(prediction.photo.predictions) == {"galaxy", "land_cover"}


def test_a_photo_without_a_face_asked_only_about_faces(tiny_lab: Lab):
    photo = tiny_lab.photo(EXAMPLES / "hubble_spiral.jpg")
    prediction = tiny_lab.predict(photo, recipe("emotion=1,landmarks=0.5")).prediction
    assert prediction.faces == ()
    assert prediction.photo.predictions == {}
    assert prediction.note is not None
    assert tiny_lab.alone(photo, "emotion", 16).faces == ()


def test_one_adapter_at_weight_one_gives_its_own_logits(tiny_lab: Lab):
    adapter = tiny_lab.adapter("emotion", 16)
    located = tiny_lab.locate(tiny_lab.photo(PORTRAIT))
    features = tiny_lab.merge(recipe("emotion=1,galaxy=0")).features(located)
    alone = tiny_lab.backbone.encode(located.face_pixels, deltas_of(adapter.factors))
    torch.testing.assert_close(adapter.head(features)[:1], adapter.head(alone), atol=1e-5, rtol=0)


def test_all_zero_is_the_base_bit_for_bit(tiny_lab: Lab):
    located = tiny_lab.locate(tiny_lab.photo(PORTRAIT))
    zero = ",".join(f"{name}=0" for name in TASKS)
    model = tiny_lab.merge(recipe(zero))
    plain = MergedModel(tiny_lab.backbone, {}, model.heads)
    assert model.deltas == {}
    assert torch.equal(model.features(located).pooled, plain.features(located).pooled)
    tiny_lab.merge(recipe(zero.replace("landmarks=0", "landmarks=1")))
    again = tiny_lab.merge(recipe(zero))
    assert torch.equal(again.features(located).pooled, plain.features(located).pooled)


def test_a_recipe_that_sliders_led_to_is_bit_for_bit_that_of_a_fresh_merge(adapters_root: Path):
    """200 recipes, one slider or rank after the other, in bfloat16 as the page serves; the fresh one in another order."""
    rng, moved = np.random.default_rng(0), Lab("tiny", adapters_root, torch.bfloat16)
    photo = moved.photo(PORTRAIT)
    other = Lab("tiny", adapters_root, torch.bfloat16)
    located = replace(moved.locate(photo), _embedded=Recent(2))
    standing = {name: ["16", 1 / 6] for name in TASKS}
    for _ in range(200):
        name = rng.choice(list(TASKS))
        standing[name][1] = rng.choice([0.0, 1.0, round(float(rng.uniform(-1, 2)), 2)])
        standing["landmarks"][0] = rng.choice(["16", "4"])
        texts = [f"{task}:{rank}={weight}" for task, (rank, weight) in standing.items()]
        here = moved.predict(photo, recipe(",".join(texts)))
        fresh = Merger(other.serving, other.adapter).merge(recipe(",".join(rng.permutation(texts))))
        features = fresh.features(located)
        assert torch.equal(here.features.pooled, features.pooled)
        assert torch.equal(here.features.patches, features.patches)
        assert here.prediction == fresh.answer(located, features)


def test_the_shipped_adapters_give_the_same_bits_in_any_order():
    lab, rng = Lab(precision=torch.bfloat16), np.random.default_rng(0)
    for _ in range(8):
        texts = [f"{task}={rng.uniform(-1, 2):.2f}" for task in rng.permutation(list(TASKS))[:4]]
        one, other = (MergeRecipe.parse(",".join(some), lab.backbone.name) for some in (texts, texts[::-1]))
        assert one.key == other.key
        here, there = (dict(lab.merge(each).deltas) for each in (one, other))
        assert all(torch.equal(here[target], there[target]) for target in here)


def test_many_people_at_once_get_their_own_answers(tiny_lab: Lab):
    photo = tiny_lab.photo(PORTRAIT)
    texts = [f"emotion=1,landmarks={w},galaxy=0.5" for w in (-1, 0, 0.5, 2)]
    expected = [numbers(tiny_lab.predict(photo, recipe(text)).prediction) for text in texts]

    def ask(i: int) -> dict[str, np.ndarray]:
        return numbers(tiny_lab.predict(photo, recipe(texts[i % 4])).prediction)

    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(ask, range(40))):
            for name, value in expected[i % 4].items():
                np.testing.assert_array_equal(found[name], value)


def test_an_answer_that_is_not_finite_is_told(tiny_lab: Lab):
    model = tiny_lab.merge(recipe("galaxy=1"))
    huge = replace(model, deltas={target: 1e30 * delta for target, delta in model.deltas.items()})
    with pytest.raises(LoraLabError, match="galaxy has no finite answer: take smaller weights"):
        huge.predict(tiny_lab.photo(EXAMPLES / "hubble_spiral.jpg").image)


def test_landmarks_are_in_the_photos_pixels(tiny_lab: Lab, tmp_path: Path):
    large = tmp_path / "large.png"
    photo = tiny_lab.photo(PORTRAIT)
    photo.image.resize((1024, 1024)).save(large)
    small = tiny_lab.alone(photo, "landmarks", 16).faces[0].predictions["landmarks"].points
    grown = tiny_lab.alone(tiny_lab.photo(large), "landmarks", 16).faces[0].predictions["landmarks"].points
    assert small is not None
    assert grown is not None
    side = photo.image.width / 8
    assert np.abs(np.array(grown) / 2 - np.array(small)).mean() < side / 4


def test_what_is_not_there_is_told(tiny_lab: Lab, tmp_path: Path):
    with pytest.raises(NotFoundError, match="did you mean 'emotion'"):
        tiny_lab.merge(recipe("emotions=1"))
    with pytest.raises(NotFoundError, match=r"no r64 of the adapter landmarks; there is head_only, r4, r16"):
        tiny_lab.merge(recipe("landmarks:r64=1"))
    with pytest.raises(MismatchError, match="for the backbone dinov2-small"):
        tiny_lab.merge(MergeRecipe.parse("emotion=1", "dinov2-small"))
    with pytest.raises(DataError, match="is not there"):
        tiny_lab.photo(tmp_path / "none.jpg")
    with pytest.raises(NotFoundError, match="train one with"):
        Lab("tiny", tmp_path).uniform()

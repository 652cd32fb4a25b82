"""One photo, six heads, one merged model, and nothing that one person does reaches another."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, PORTRAIT

from lora_lab.errors import DataError, MismatchError, NotFoundError
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging import MergeRecipe
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
    tiny_lab.merge_live(recipe(zero.replace("landmarks=0", "landmarks=1")), "zero")
    again = tiny_lab.merge_live(recipe(zero), "zero")
    assert torch.equal(again.features(located).pooled, plain.features(located).pooled)


def test_sliders_lead_to_the_same_answers_as_a_fresh_merge(tiny_lab: Lab):
    photo = tiny_lab.photo(PORTRAIT)
    rng = np.random.default_rng(0)
    weights = dict.fromkeys(TASKS, 1 / 6)
    for _ in range(30):
        weights[rng.choice(list(TASKS))] = rng.choice([0.0, 1.0, float(rng.uniform(-1, 2))])
        now = recipe(",".join(f"{name}={weight}" for name, weight in weights.items()))
        assert_alike(tiny_lab.predict(photo, now, "slider").prediction, tiny_lab.predict(photo, now).prediction)


def test_a_moved_slider_is_one_update(tiny_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    merges = []
    full = tiny_lab.merger.merged
    monkeypatch.setattr(tiny_lab.merger, "merged", lambda r, *more: merges.append(r.title) or full(r, *more))
    for weight in (0.1, 0.2, 0.3, 0.4):
        tiny_lab.merge_live(recipe(f"emotion=1,galaxy=0.5,landmarks={weight}"), "counted")
    assert merges == ["emotion:r16=1 + galaxy:r16=0.5 + landmarks:r16=0.1", "emotion:r16=1 + galaxy:r16=0.5"]


def test_switching_rank_and_members_is_not_mistaken_for_a_slider(tiny_lab: Lab):
    photo = tiny_lab.photo(PORTRAIT)
    for text in (
        "emotion=1,landmarks=1",
        "emotion=1,landmarks:r4=1",
        "emotion=1",
        "emotion=1,landmarks=0",
        "emotion=0.5,landmarks=1",
        "landmarks=1,galaxy=1",
    ):
        now = recipe(text)
        fresh, live = tiny_lab.merge(now), tiny_lab.merge_live(now, "switch")
        assert fresh.heads.keys() == live.heads.keys()
        located = tiny_lab.locate(photo)
        torch.testing.assert_close(live.features(located).pooled, fresh.features(located).pooled, atol=1e-5, rtol=1e-5)


def test_many_people_at_once_get_their_own_answers(tiny_lab: Lab):
    photo = tiny_lab.photo(PORTRAIT)
    texts = [f"emotion=1,landmarks={w},galaxy=0.5" for w in (-1, 0, 0.5, 2)]
    expected = [numbers(tiny_lab.predict(photo, recipe(text)).prediction) for text in texts]

    def ask(i: int) -> dict[str, np.ndarray]:
        return numbers(tiny_lab.predict(photo, recipe(texts[i % 4]), f"person {i % 4}").prediction)

    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(ask, range(40))):
            for name, value in expected[i % 4].items():
                np.testing.assert_allclose(found[name], value, atol=1e-3, rtol=1e-4)


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

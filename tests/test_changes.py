"""How far a merge moves each patch: nothing for the plain backbone, and only for the crops that its heads look at."""

import torch
from conftest import EXAMPLES, PORTRAIT

from lora_lab.changes import changes
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.photos import Photo


def recipe(text: str) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny")


def test_a_merge_at_weight_0_changes_nothing_and_one_at_1_does(tiny_lab: Lab):
    photo = Photo.read(PORTRAIT)
    base = tiny_lab.base(photo)[1]
    for weight, moved in ((0, False), (1, True)):
        answer = tiny_lab.predict(photo, recipe(f"emotion={weight},galaxy={weight}"))
        faces, square = changes(tiny_lab.locate(photo), answer.prediction, answer.features, base)
        assert len(faces) == 1
        assert square is not None
        for one in (*faces, square):
            assert one.patches.shape == (4, 4)
            assert bool((one.patches.abs() > 1e-4).any()) == moved
        expected = 1 - torch.cosine_similarity(answer.features.patches[-1], base.patches[-1], dim=-1)
        torch.testing.assert_close(square.patches.flatten(), expected)


def test_crops_that_no_head_looks_at_are_left_out(tiny_lab: Lab):
    photo = Photo.read(PORTRAIT)
    base = tiny_lab.base(photo)[1]
    only_faces = tiny_lab.predict(photo, recipe("emotion=1"))
    faces, square = changes(tiny_lab.locate(photo), only_faces.prediction, only_faces.features, base)
    assert (len(faces), square) == (1, None)
    only_square = tiny_lab.predict(photo, recipe("galaxy=1"))
    faces, square = changes(tiny_lab.locate(photo), only_square.prediction, only_square.features, base)
    assert faces == []
    assert square is not None
    sky = Photo.read(EXAMPLES / "hubble_spiral.jpg")
    answer = tiny_lab.predict(sky, recipe("emotion=1,galaxy=1"))
    faces, square = changes(tiny_lab.locate(sky), answer.prediction, answer.features, tiny_lab.base(sky)[1])
    assert faces == []
    assert square is not None

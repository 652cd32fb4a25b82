"""What the tab *Take away* makes of links, notes and photos."""

import pytest
from conftest import PORTRAIT
from PIL import Image

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.links import link, to_code
from lora_lab.merging import MergeRecipe
from lora_lab.ui.takeaway_panel import MOST_KEPT, annotated, checked, found, noted, read

RECIPE = MergeRecipe.parse("emotion=0.3,galaxy=-0.5", "tiny").model_copy(update={"method": "ties", "seed": 2})


def test_a_link_its_code_and_json_are_the_same_recipe():
    for text in (link("http://here:1/?__theme=dark", RECIPE), f" {to_code(RECIPE)} ", RECIPE.model_dump_json()):
        assert read(text) == (RECIPE, ())
    assert read(link("http://here:1/", RECIPE) + "&more=1") == (RECIPE, ())
    for text, told in (("{", "this is no recipe"), ("http://here/?recipe=x", "link"), ("", "link")):
        with pytest.raises(LoraLabError, match=told):
            read(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"backbone": "vit"}, "is for the backbone vit"),
        ({"method": "iteris"}, "needs images"),
        ({"method": "saved:lost"}, "no merge method named"),
    ],
)
def test_a_recipe_that_the_page_cannot_show_is_refused(tiny_lab: Lab, change: dict, told: str):
    assert checked(tiny_lab, RECIPE) == RECIPE
    with pytest.raises(LoraLabError, match=told):
        checked(tiny_lab, RECIPE.model_copy(update=change))


def test_notes_are_kept_latest_first_and_the_same_note_once():
    other = MergeRecipe.parse("emotion=1", "tiny")
    kept = noted(noted(noted([], "good", RECIPE), "", other), " good ", other)
    assert [one["note"] for one in kept] == ["good", "exact: emotion:r16=1"]
    assert MergeRecipe.from_json(found(kept, "good")["recipe"]) == other
    with pytest.raises(LoraLabError, match="choose one"):
        found(kept, "gone")
    for number in range(2 * MOST_KEPT):
        kept = noted(kept, str(number), RECIPE)
    assert len(kept) == MOST_KEPT


def test_the_drawn_photo_is_a_png_with_its_points(tiny_lab: Lab):
    path = annotated(tiny_lab, PORTRAIT, MergeRecipe.parse("landmarks=1", "tiny"))
    with Image.open(path) as drawn, Image.open(PORTRAIT) as photo:
        assert drawn.format == "PNG"
        plain = photo.convert("RGB").resize(drawn.size)
        assert drawn.tobytes() != plain.tobytes()
        assert (255, 176, 0) in {color for _, color in drawn.getcolors(1 << 24) or ()}

"""Mutated recipes and links give a recipe or a short line, soon, and read nothing outside the adapters' folder."""

import base64
import json
import zlib
from pathlib import Path

from fuzzing import fuzz
from hypothesis import strategies as st
from mutations import bounded, changed, names, numbers, reading_only, spoilt

from lora_lab.lab import Lab
from lora_lab.links import from_code, to_code
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.ui.api import recipe_of

RECIPE = MergeRecipe(
    backbone="tiny",
    adapters=(RecipeAdapter(name="emotion", weight=0.5), RecipeAdapter(name="landmarks", rank=4, layers=(1.0, 0.5, 1.0, 1.0))),
    method="ties",
    knobs={"density": 0.3},
    seed=7,
    repair="affine",
).model_dump()
in_json = changed(RECIPE).map(lambda value: json.dumps(value))
short = st.lists(
    st.tuples(names, st.sampled_from(("", ":r16", ":16", ":r4", ":", ":r0", ":r-1", ":rx", ":r1e9")), numbers).map(
        lambda one: f"{one[0]}{one[1]}={one[2]}"
    ),
    max_size=5,
).map(",".join)
recipes = st.one_of(
    short,
    in_json,
    in_json.flatmap(lambda text: spoilt(text.encode())).map(lambda data: data.decode("utf-8", "replace")),
    st.text(max_size=60),
    st.tuples(st.sampled_from(("[", '{"adapters": [', '{"a":', "emotion=1,", "=,:")), st.integers(1, 80_000)).map(
        lambda one: one[0] * min(one[1], 200_000 // len(one[0]))
    ),
)


def test_recipes(tiny_lab: Lab, adapters_root: Path):
    tiny_lab.members(tiny_lab.uniform())

    def check(text: str) -> None:
        with bounded(), reading_only(adapters_root):
            recipe = recipe_of(tiny_lab, text)
            assert recipe.key
            assert from_code(to_code(recipe)) == recipe
            tiny_lab.members(recipe)

    assert fuzz("recipes", recipes, check) > 20


def _code(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8", "replace"))).rstrip(b"=").decode()


codes = st.one_of(
    in_json.map(_code),
    in_json.map(_code).flatmap(lambda code: spoilt(code.encode())).map(lambda data: data.decode("latin-1")),
    in_json.map(lambda text: zlib.compress(text.encode()))
    .flatmap(spoilt)
    .map(lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()),
    st.integers(1, 40_000_000).map(lambda many: _code("[" * many)),
    st.text(max_size=60),
)


def test_links(tiny_lab: Lab, adapters_root: Path):
    def check(code: str) -> None:
        with bounded(), reading_only(adapters_root):
            recipe = from_code(code)
            assert from_code(to_code(recipe)) == recipe
            tiny_lab.members(recipe)

    assert fuzz("links", codes, check) > 20

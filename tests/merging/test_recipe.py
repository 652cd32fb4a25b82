"""A recipe is read, checked and recognised."""

from pathlib import Path

import pytest

from lora_lab.errors import LONGEST, DataError
from lora_lab.merging import MergeRecipe


def test_a_recipe_in_words():
    recipe = MergeRecipe.parse("age_class=1, landmarks:r64=0.5,galaxy", "tiny")
    assert [(a.name, a.rank, a.weight) for a in recipe.adapters] == [
        ("age_class", 16, 1.0),
        ("landmarks", 64, 0.5),
        ("galaxy", 16, 1.0),
    ]
    assert recipe.title == "age_class:r16=1 + landmarks:r64=0.5 + galaxy:r16=1"


def test_json_and_back(tmp_path: Path):
    recipe = MergeRecipe.parse("age_class=0.3,emotion=-0.25", "tiny")
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    assert MergeRecipe.read(path) == recipe


def test_the_key_depends_on_what_is_merged_and_not_on_the_order():
    key = MergeRecipe.parse("age_class=1,emotion=0.5", "tiny").key
    assert MergeRecipe.parse("emotion=0.5,age_class=1", "tiny").key == key
    assert MergeRecipe.parse("emotion=0.6,age_class=1", "tiny").key != key
    assert MergeRecipe.parse("emotion:r4=0.5,age_class=1", "tiny").key != key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("age_class=5", "less than or equal to 2"),
        ("age_class=nan", "finite"),
        ("age_class=much", "valid number"),
        ("age_class:r0=1", "greater than 0"),
        ("age_class=1,age_class:r64=1", "age_class named twice"),
        ("", "at least 1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, told: str):
    with pytest.raises(DataError, match=told) as raised:
        MergeRecipe.parse(text, "tiny")
    assert "\n" not in str(raised.value)


def test_a_broken_file_is_told(tmp_path: Path):
    path = tmp_path / "recipe.json"
    with pytest.raises(DataError, match="cannot be read"):
        MergeRecipe.read(path)
    path.write_text('{"adapters": [], "methods": "exact"}')
    with pytest.raises(DataError, match=r"adapters: .*; methods: "):
        MergeRecipe.read(path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "../ties"}, "no merge method named '../ties'"),
        ({"method": "saved:../x"}, "no merge method named 'saved:../x'"),
        ({"method": "\ud800"}, "no merge method named"),
        ({"repair": "a\nb"}, "no repair named"),
        ({"backbone": "\0"}, "no backbone named"),
        ({"backbone": "b" * 300}, "no backbone named"),
        ({"knobs": {"\ud800": 1}}, "no knob named"),
        ({"seed": -1}, "seed"),
        ({"knobs": {"density": float("nan")}}, "density"),
        ({"adapters": [{"name": "emotion", "layers": [1e30]}]}, "layers"),
    ],
)
def test_every_name_and_number_of_a_recipe_is_checked(changes: dict, line: str):
    with pytest.raises(DataError, match=line) as told:
        MergeRecipe.parse("emotion=1", "tiny").changed(**changes)
    assert str(told.value).isprintable()
    assert len(str(told.value)) <= LONGEST

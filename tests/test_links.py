"""A recipe survives a link, a snippet rebuilds it, and what is no link is told as such."""

import base64
import json
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import PORTRAIT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_lab.errors import DataError
from lora_lab.links import LARGEST, from_code, link, snippet, to_code, with_off
from lora_lab.merging import MERGE_METHODS, MergeRecipe, RecipeAdapter
from lora_lab.names import is_name
from lora_lab.tasks import TASKS

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{3,20}", fullmatch=True).filter(is_name)
ADAPTERS = st.builds(
    RecipeAdapter,
    name=st.sampled_from(list(TASKS)) | NAMES,
    rank=st.integers(1, 4096),
    weight=st.floats(-1, 2),
    layers=st.lists(st.floats(-100, 100), max_size=12).map(tuple),
)
RECIPES = st.builds(
    MergeRecipe,
    backbone=st.sampled_from(["dinov2-small", "tiny"]) | st.text(min_size=1, max_size=20).filter(str.isprintable),
    adapters=st.lists(ADAPTERS, min_size=1, max_size=6, unique_by=lambda a: a.name).map(tuple),
    method=st.sampled_from(list(MERGE_METHODS)) | NAMES | NAMES.map(lambda name: f"saved:{name}"),
    knobs=st.dictionaries(NAMES, NUMBERS, max_size=3),
    seed=st.integers(0, 2**63 - 1),
    repair=st.none() | NAMES,
)
SIX = MergeRecipe.parse(",".join(f"{name}={1 / 6}" for name in TASKS), "dinov2-small")


@given(RECIPES)
def test_a_recipe_survives_a_link(recipe: MergeRecipe):
    found = from_code(to_code(recipe))
    assert found == recipe
    assert found.model_dump_json() == recipe.model_dump_json()


@settings(max_examples=30)
@given(RECIPES)
def test_a_snippet_rebuilds_the_recipe(recipe: MergeRecipe):
    rebuilding, _, _ = snippet(recipe).partition("lab = Lab(")
    names: dict = {}
    exec(rebuilding, names)
    assert names["recipe"] == recipe


def test_a_code_is_short_and_needs_no_escapes():
    code = to_code(SIX)
    assert len(code) < 200
    assert code.replace("-", "").replace("_", "").isalnum()


def test_a_link_keeps_the_rest_of_its_address():
    address = link("https://example.org/lab?theme=dark&recipe=old&empty=#merge", SIX)
    parts = urlsplit(address)
    query = parse_qs(parts.query, keep_blank_values=True)
    assert (parts.path, parts.fragment) == ("/lab", "merge")
    assert {name: value for name, value in query.items() if name != "recipe"} == {"theme": ["dark"], "empty": [""]}
    assert [from_code(code) for code in query["recipe"]] == [SIX]


def code_of(text: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text, 9)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("", "nothing at all"),
        (to_code(SIX) + "\n", "signs that none has"),
        ("<script>", "signs that none has"),
        ("AAAA", "damaged"),
        ("A", "damaged"),
        (to_code(SIX)[:-9], "cut off"),
        (to_code(SIX) + "AAAAAAAA", "something behind it|damaged"),
        ("A" * 16_001, "16001 characters, over 16000"),
        (code_of(b"0" * 1_000_000), "more than 64 KiB"),
        (code_of(b"[" * LARGEST), "other data"),
        (code_of(b"\xff\xfe"), "other data"),
        (code_of(b"{"), "other data"),
        (code_of(b"[]"), "no merge: .*dictionary"),
        (code_of(json.dumps({"adapters": [{"name": "a", "weight": 5}], "methods": "x"}).encode()), r"less than .*; methods: "),
    ],
)
def test_what_is_no_link_is_told_in_one_line(code: str, told: str):
    with pytest.raises(DataError, match=told) as raised:
        from_code(code)
    assert "\n" not in str(raised.value)


def test_no_code_is_made_that_would_not_be_read():
    layers = tuple(i / 7 for i in range(200))
    many = tuple(RecipeAdapter(name=f"a{i}", layers=tuple(i * share / 100 for share in layers)) for i in range(40))
    with pytest.raises(DataError, match="40 adapters is too long for a link"):
        to_code(MergeRecipe(adapters=many))


@pytest.mark.parametrize("fields", [{}, {"method": "iteris"}, {"repair": "linear"}], ids=["plain", "images", "repair"])
def test_a_snippet_reads_a_photo(
    fields: dict, adapters_root: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").write_bytes(PORTRAIT.read_bytes())
    for angle in (-5, 0, 5, 10):
        Image.open(PORTRAIT).rotate(angle).save(tmp_path / "photos" / f"{angle}.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_lab.cards.PRETRAINED", adapters_root)
    names: dict = {"print": lambda prediction: found.append(prediction)}
    found = []
    exec(snippet(MergeRecipe.parse("emotion=0.5,galaxy=1", "tiny").model_copy(update=fields)), names)
    assert [set(face.predictions) for face in found[0].faces] == [{"emotion"}]


def test_an_adapter_that_is_off_keeps_its_weight_and_is_no_part_of_the_merge():
    recipe = MergeRecipe.parse("emotion=1", "dinov2-small")
    off = MergeRecipe.parse("galaxy=0.6,landmarks:r64=-0.2", "dinov2-small").adapters
    assert to_code(recipe, ()) == to_code(recipe)
    code = to_code(recipe, off)
    assert with_off(code) == (recipe, off)
    assert from_code(code) == recipe
    assert with_off(to_code(recipe)) == (recipe, ())
    for wrong in ({"off": 3}, {"off": [{"name": "x", "weight": 99}]}, {"off": [{"weight": 1}]}):
        fields = {"adapters": [{"name": "emotion"}], **wrong}
        text = base64.urlsafe_b64encode(zlib.compress(json.dumps(fields).encode())).decode().rstrip("=")
        with pytest.raises(DataError, match="holds no merge"):
            from_code(text)

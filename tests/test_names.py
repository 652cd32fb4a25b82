"""Names from outside are names: nothing else is looked for, wherever it enters."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import EXAMPLES
from typer.testing import CliRunner
from watched import opened

from lora_lab.cards import adapter_folder, list_cards
from lora_lab.cli import app
from lora_lab.errors import LONGEST, LoraLabError, NotFoundError
from lora_lab.lab import Lab
from lora_lab.links import from_code
from lora_lab.merging import MergeRecipe
from lora_lab.merging.recipe import LONGEST as LONGEST_RECIPE
from lora_lab.merging.recipe import MOST_ADAPTERS
from lora_lab.names import folder_of, is_name
from lora_lab.saved_merges import saved_in
from lora_lab.ui.api import Endpoints

LEADING_OUT = [
    "../tiny/emotion",
    "/etc",
    "./emotion",
    "emotion/",
    "emotion/../emotion",
    "..",
    ".",
    "~",
    "C:\\emotion",
    "emo\0tion",
    "\ud800",
    "emotion\u200b",
    "émotion",
    "-emotion",
    "con",
    "NUL",
    "a" * 300,
    "a" * 30_000,
    "<img src=x>",
    "",
]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_name_that_is_none_is_one_line_and_nothing_is_read(name: str, adapters_root: Path):
    ends = Endpoints(Lab("tiny", adapters_root))
    # Half a character is no text, so that nothing that holds it is a recipe.
    with opened() as places, pytest.raises(Exception, match=r"no adapter named|no recipe: .*unicode") as told:
        ends.merge(json.dumps({"adapters": [{"name": "emotion"}, {"name": name}]}, ensure_ascii=False))
    line = str(getattr(told.value, "message", told.value))
    assert len(line) <= LONGEST
    assert line.isprintable()
    assert not [place for place in places if not place.startswith(str(adapters_root))]
    with pytest.raises(NotFoundError):
        adapter_folder("tiny", name, "r16", adapters_root)
    assert not is_name(name)


@pytest.mark.parametrize("name", ["emotion", "age_class", "my-flowers_2", "A", "9", "x" * 64])
def test_a_name_is_a_name(name: str):
    assert is_name(name)
    assert MergeRecipe.parse(f"{name}=1", "tiny").adapters[0].name == name


def test_whether_a_file_is_there_makes_no_difference(adapters_root: Path):
    ends = Endpoints(Lab("tiny", adapters_root))
    lines = []
    for name in ("../tiny/emotion", "../tiny/nothing"):
        with pytest.raises(Exception, match="no adapter named") as told:
            ends.merge(f"{name}=1")
        lines.append(str(told.value).replace("nothing", "emotion"))
    assert lines[0] == lines[1]


@pytest.mark.parametrize("number", [MOST_ADAPTERS + 1, 10_000, 40_000])
def test_recipes_of_too_many_adapters_are_refused_before_they_are_read(number: int):
    text = ",".join(f"a{i}=1" for i in range(number))
    with pytest.raises(LoraLabError, match=r"at most 64|too long|64"):
        MergeRecipe.parse(text, "tiny")
    whole = '{"adapters": [' + ",".join(f'{{"name": "a{i}"}}' for i in range(number)) + "]}"
    with pytest.raises(LoraLabError, match=r"at most 64|too long|64"):
        MergeRecipe.from_json(whole)


@pytest.mark.parametrize(
    "text",
    [
        '{"adapters": [{"name": "emotion", "weight": 1e400}]}',
        '{"adapters": [{"name": "emotion", "rank": 99999999999999999999}]}',
        '{"adapters": [{"name": "emotion"}], "seed": -1}',
        '{"adapters": [{"name": "emotion"}], "seed": 1e30}',
        '{"adapters": [{"name": "emotion"}], "knobs": {"x": NaN}}',
        '{"adapters": [{"name": "emotion", "layers": [' + "1," * 999 + "1]}]}",
        '{"adapters": ' + "[" * 30_000,
        "[" * (LONGEST_RECIPE + 1),
        '{"adapters": [' + '{"name": 3},' * 60 + '{"name": 4}]}',
    ],
)
def test_a_recipe_that_is_none_is_one_bounded_line(text: str):
    with pytest.raises(LoraLabError) as told:
        MergeRecipe.from_json(text)
    assert len(str(told.value)) <= LONGEST
    assert "\n" not in str(told.value)


def test_a_link_with_a_name_that_leads_out_is_refused():
    import base64
    import zlib

    text = json.dumps({"adapters": [{"name": "../tiny/emotion"}]}).encode()
    code = base64.urlsafe_b64encode(zlib.compress(text)).rstrip(b"=").decode()
    with pytest.raises(LoraLabError, match="no adapter named"):
        from_code(code)


def test_a_recipe_in_a_file_is_text_of_a_bounded_size(tmp_path: Path):
    path = tmp_path / "recipe.json"
    for content in (b"\xff\xfe\0", b" " * (LONGEST_RECIPE + 1), b"version https://git-lfs.github.com/spec/v1\n", b"[" * 9999):
        path.write_bytes(content)
        with pytest.raises(LoraLabError):
            MergeRecipe.read(path)
    path.write_bytes(b"\xef\xbb\xbf" + MergeRecipe.parse("emotion=1", "tiny").model_dump_json().encode())
    assert MergeRecipe.read(path).adapters[0].name == "emotion"
    with pytest.raises(LoraLabError):
        MergeRecipe.read(tmp_path)


def test_capitals_are_another_name_even_where_they_are_the_same_folder(adapters_root: Path, tmp_path: Path):
    root = tmp_path / "root"
    shutil.copytree(adapters_root, root)
    (root / "tiny" / "Emotion").symlink_to(root / "tiny" / "emotion")
    lab = Lab("tiny", root)
    assert lab.adapter("emotion", 16).name == "emotion"
    with pytest.raises(NotFoundError, match="no adapter named 'Emotion'; did you mean 'emotion'"):
        lab.adapter("Emotion", 16)


@pytest.mark.parametrize(
    ("backbone", "folder"),
    [("tiny", "tiny"), ("a/b", "a--b"), ("..", "--.."), ("/tmp/vit", "--tmp--vit"), ("../x", "..--x"), ("C:\\vit", "C----vit")],
)
def test_a_backbones_folder_is_one_below_the_others(backbone: str, folder: str):
    assert folder_of(backbone) == folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "PHOTO", "--adapters", "NAME=1"),
        ("predict", "PHOTO", "--adapters", "emotion=1,NAME=1"),
        ("merge", "OUT", "--adapters", "NAME=1"),
        ("merge", "OUT", "--adapters", "emotion=1", "--method", "NAME"),
        ("merge", "OUT", "--adapters", "emotion=1", "--method", "saved:NAME"),
        ("merge", "OUT", "--adapters", "emotion=1", "--repair", "NAME"),
        ("merge", "OUT", "--adapters", "emotion=1", "--method", "ties", "--knob", "NAME=1"),
        ("merge", "--adapters", "emotion=1", "--save", "NAME"),
        ("add", "OUT", "--name", "NAME"),
        ("forget", "NAME"),
        ("compose", "NAME", "--data", "OUT"),
        ("compose", "mine", "--data", "OUT", "--adapters", "NAME"),
        ("suggest", "--adapters", "NAME"),
        ("train", "NAME", "--data", "OUT"),
        ("evaluate", "NAME", "--data", "OUT"),
        ("predict", "PHOTO", "--adapters", "emotion=1", "--knob", "NAME"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["../tiny/emotion", "../../x", "/etc/x", "con", "\x1b[31m", "a\nb", "x" * 50_000, "\udcff"])
def test_the_command_tells_names_that_are_none_in_one_line_and_writes_nothing(
    arguments: tuple[str, ...], name: str, adapters_root: Path, own_cache: Path, tmp_path: Path
):
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    places = {"PHOTO": str(EXAMPLES / "astronaut.jpg"), "OUT": str(work / "data")}
    given = [places.get(one, one.replace("NAME", name)) for one in arguments]
    given += ["--backbone", "tiny"]
    if arguments[0] not in ("add", "forget", "train"):
        given += ["--adapters-root", str(adapters_root)]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(work)
        told = CliRunner().invoke(app, given)
    assert told.exit_code == 2, (told.output, told.exception)
    assert not told.exception or isinstance(told.exception, SystemExit)
    lines = told.stderr.strip().splitlines()
    if lines[0].startswith("lora-lab: "):
        assert len(lines) == 1
        assert len(lines[0]) <= LONGEST + len("lora-lab: ")
        assert lines[0].isprintable()
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert not left


def test_what_a_killed_process_left_half_written_is_no_adapter_and_no_merge(
    adapters_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root, merges = tmp_path / "root", tmp_path / "merges"
    shutil.copytree(adapters_root / "tiny" / "emotion", root / "tiny" / "emotion")
    shutil.copytree(root / "tiny" / "emotion" / "r16", root / "tiny" / "emotion" / ".r16.x1y2.part")
    shutil.copytree(root / "tiny" / "emotion", root / "tiny" / ".emotion.x1y2.part")
    (merges / ".mine.x1y2.part").mkdir(parents=True)
    (merges / ".mine.x1y2.part" / "merge.json").write_text("{")
    assert [card.variant for card in list_cards("tiny", root)] == ["head_only", "r16"]
    assert saved_in(merges) == {}
    assert not caplog.records

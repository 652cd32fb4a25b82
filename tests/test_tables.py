"""Answers about many photos: a row for each, on screen, as JSON, as a table and drawn."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import EXAMPLES, PORTRAIT
from PIL import Image
from test_cli import run

from lora_lab.errors import DataError, LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.tables import COLUMNS, answers_table, find_photos, sent_names, write_csv

SKY = EXAMPLES / "hubble_spiral.jpg"
RECIPE = MergeRecipe.parse("age_regression=1,emotion=0.5,landmarks=1,galaxy=1", "tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a portrait, a photo without a face in a folder below, and a file that is no photo."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / "=1+1.jpg").write_bytes(PORTRAIT.read_bytes())
    (folder / "below" / "sky.jpg").write_bytes(SKY.read_bytes())
    (folder / "torn.png").write_bytes(b"torn")
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def on_tiny(adapters_root: Path) -> list[object]:
    return ["--adapters", RECIPE.spelled, "--backbone", "tiny", "--adapters-root", adapters_root]


def test_a_row_is_an_answer(tiny_lab: Lab, photos: Path):
    paths = find_photos([photos])
    assert [path.name for path in paths] == ["=1+1.jpg", "sky.jpg", "torn.png"]
    told = []
    table = answers_table(tiny_lab, RECIPE, paths, lambda share, what: told.append((share, what)))
    assert tuple(table.columns) == COLUMNS
    assert told == [(0.0, "photo 1 of 3"), (1 / 3, "photo 2 of 3"), (2 / 3, "photo 3 of 3")]
    face = ["age_regression", "emotion", "landmarks"]
    places = list(zip(table.photo, table.part, table.task, strict=True))
    assert places[:4] == [*(("=1+1.jpg", "face 1", task) for task in face), ("=1+1.jpg", "photo", "galaxy")]
    assert places[4] == ("below/sky.jpg", "photo", "galaxy")
    assert table.note[5].startswith("no face was found")
    assert table.photo[6] == "torn.png"
    assert table.note[6] == "torn.png is no image that can be read; try JPEG, PNG or WebP"
    assert len(table) == 7


def test_a_row_says_what_predict_says(tiny_lab: Lab):
    answer = tiny_lab.predict(tiny_lab.photo(PORTRAIT), RECIPE).prediction
    rows = answers_table(tiny_lab, RECIPE, [PORTRAIT]).set_index("task")
    face = answer.faces[0]
    assert json.loads(rows.box["emotion"]) == [round(side, 2) for side in face.box]
    assert rows.answer["emotion"] == face.predictions["emotion"].answer
    assert rows.confidence["emotion"] == pytest.approx(face.predictions["emotion"].confidence, abs=1e-5)
    assert rows.value["age_regression"] == pytest.approx(face.predictions["age_regression"].value, abs=1e-3)
    assert rows.unit["age_regression"] == "years"
    points = json.loads(rows.points["landmarks"])
    np.testing.assert_allclose(points, face.predictions["landmarks"].points or (), atol=0.01)
    assert pd.isna(rows.points["emotion"])
    assert pd.isna(rows.box["galaxy"])
    assert rows.answer["galaxy"] == answer.photo.predictions["galaxy"].answer


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0.jpg", "+1.jpg", "-1.jpg", "@SUM(1).jpg", "\t=1.jpg", " =1.jpg", "＝1.jpg"]
)
def test_no_file_name_is_a_formula_in_a_spreadsheet(name: str, tmp_path: Path):
    rows = [{"photo": name, "part": "photo", "answer": "-2 years", "value": -2.0, "note": None}, {"photo": 'a, "b"\nc.jpg'}]
    write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["photo"] == f"'{name}"
    assert (first["answer"], first["value"], first["note"]) == ("'-2 years", "-2", "")
    assert second["photo"] == 'a, "b"\nc.jpg'


def test_numbers_have_four_digits_and_no_text_or_column_is_a_formula(tmp_path: Path):
    frame = pd.DataFrame({"task": ["@own", "galaxy"], "score": [0.12345678, None], "images": [123456, 2], "=head": ["+1", "a"]})
    write_csv(frame, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        head, first, second = csv.reader(file)
    assert head == ["task", "score", "images", "'=head"]
    assert first == ["'@own", "0.1235", "123456", "'+1"]
    assert second == ["galaxy", "", "2", "a"]


def test_files_that_were_sent_have_their_own_names():
    sent = [Path("/tmp/up/3f/a.jpg"), Path("/tmp/up/9c/a.jpg"), Path("/tmp/up/9d/a (2).jpg"), Path("/tmp/up/9e/b.tar.gz")]
    assert sent_names(sent) == ["a.jpg", "a (3).jpg", "a (2).jpg", "b.tar.gz"]
    assert sent_names([sent[0]] * 3) == ["a.jpg", "a (2).jpg", "a (3).jpg"]
    assert sent_names([]) == []


def test_a_table_calls_photos_as_it_is_told(tiny_lab: Lab, tmp_path: Path):
    torn = [tmp_path / "3f" / "a.jpg", tmp_path / "9c" / "a.jpg"]
    for path in torn:
        path.parent.mkdir()
        path.write_bytes(b"torn")
    assert list(answers_table(tiny_lab, RECIPE, torn, names=sent_names(torn)).photo) == ["a.jpg", "a (2).jpg"]


def test_what_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"none is not there"):
        find_photos([PORTRAIT, tmp_path / "none"])
    with pytest.raises(DataError, match="no photos in"):
        find_photos([tmp_path])
    with pytest.raises(LoraLabError, match="cannot be written"):
        write_csv(pd.DataFrame(columns=list(COLUMNS)), tmp_path / "nowhere" / "out.csv")


def test_the_command_writes_a_table(photos: Path, on_tiny: list[object], tmp_path: Path):
    found = run("predict", photos, SKY, "--csv", tmp_path / "out.csv", *on_tiny)
    assert found.exit_code == 0
    assert "wrote 6 answers about 4 photos" in found.stdout
    assert "3 photos lack some or all answers" in found.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert tuple(table.columns) == COLUMNS
    assert table.photo[0].startswith("'") == table.photo[0].lstrip("'").startswith("=")
    assert int(table.answer.notna().sum()) == 6


def test_the_command_tells_many_photos(photos: Path, on_tiny: list[object]):
    found = run("predict", photos, *on_tiny)
    assert found.exit_code == 0
    assert "below/sky.jpg" in found.stdout
    assert "torn.png: torn.png is no image that can be read" in found.stderr
    given = json.loads(run("predict", photos, "--json", *on_tiny).stdout)
    assert [one["file"] for one in given["photos"]] == ["=1+1.jpg", "below/sky.jpg", "torn.png"]
    assert set(given["photos"][0]["faces"][0]["predictions"]) == {"age_regression", "emotion", "landmarks"}
    assert set(given["photos"][2]) == {"file", "error"}
    assert MergeRecipe.model_validate(given["recipe"]) == RECIPE


def test_the_command_draws(on_tiny: list[object], tmp_path: Path):
    found = run("predict", PORTRAIT, "--out", tmp_path / "drawn.png", *on_tiny)
    assert "drew what was found into" in found.stdout
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(PORTRAIT) as photo:
        assert (drawn.format, max(drawn.size)) == ("PNG", 900)
        difference = np.asarray(drawn).astype(int) - np.asarray(photo.convert("RGB").resize(drawn.size)).astype(int)
    assert (np.abs(difference).max(2) > 60).mean() > 0.001
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([PORTRAIT, "--csv", "out.csv", "--json"], "--csv or --json, not both"),
        ([PORTRAIT, SKY, "--out", "drawn.png"], "--out draws one photo"),
        ([PORTRAIT, "--out", "drawn.gif2"], "names no kind of image"),
        ([PORTRAIT, "--out", "nowhere/drawn.png"], "in a folder that is there"),
        ([PORTRAIT, "--csv", "."], "cannot be written"),
    ],
)
def test_outputs_that_cannot_be_are_told_at_once(arguments: list, told: str):
    found = run("predict", *arguments, "--backbone", "no such backbone")
    assert found.exit_code == 2
    assert told in found.output

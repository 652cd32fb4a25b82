"""`lora-lab compose` as people use it, on a folder of their own."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from lora_lab.cli.compose import compose

APP = typer.Typer()
APP.command()(compose)


@pytest.fixture
def folder(tmp_path: Path, own_cache: Path) -> Path:
    """Pictures of noise, 12 for each of two colours."""
    rng = np.random.default_rng(0)
    for channel, colour in enumerate(("red", "green")):
        place = tmp_path / "paints" / colour
        place.mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 150, (32, 32, 3), dtype=np.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "paints"


def run(*arguments: object) -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(APP, [*given, "--backbone", "tiny"], env={"COLUMNS": "200"})


def test_a_folder_becomes_a_composition(folder: Path, adapters_root: Path, tmp_path: Path):
    out = tmp_path / "out"
    common = ("paints", "--data", folder, "--adapters-root", adapters_root, "--steps", 5, "--shots", 3, "--out", out)
    shown = run(*common, "--adapters", "emotion,landmarks:r4,galaxy", "--leave-out", "galaxy", "--ways", "head_only")
    assert shown.exit_code == 0, shown.output
    for said in ("Head only", "Learned composition", "carrying most", "emotion", "landmarks", str(out)):
        assert said in shown.output
    assert "Uniform" not in shown.output
    recipe = json.loads((out / "recipe.json").read_text())
    assert [(a["name"], a["rank"], len(a["layers"])) for a in recipe["adapters"]] == [("emotion", 16, 2), ("landmarks", 4, 2)]


def test_json_is_for_programs(folder: Path, adapters_root: Path, tmp_path: Path):
    common = ("paints", "--data", folder, "--adapters-root", adapters_root, "--steps", 2, "--out", tmp_path / "out")
    found = json.loads(run(*common, "--shots", 0, "--json").stdout)
    assert list(found["ways"]) == ["head_only", "uniform", "learned"]
    assert found["shots"] is None
    assert found["task"]["labels"] == ["green", "red"]


def test_a_mistake_is_one_line(folder: Path, adapters_root: Path):
    told = run("paints", "--data", folder / "none", "--adapters-root", adapters_root)
    assert told.exit_code == 2
    assert "no folder" in told.output

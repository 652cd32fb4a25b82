"""What the documents say is what the files hold."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lora_lab.cli import app
from lora_lab.docs import README, blocks, pictures, with_block
from lora_lab.pictures import LARGEST_DECODED, LARGEST_PIXELS, WORKING_PIXELS

ROOT = README.parent


@pytest.mark.parametrize(("place", "content"), blocks().items(), ids=[name for _, name in blocks()])
def test_what_is_generated_is_up_to_date(place: tuple[Path, str], content: Callable[[], str]):
    path, name = place
    text = path.read_text(encoding="utf-8")
    assert with_block(text, name, content()) == text


@pytest.mark.parametrize(("path", "svg"), pictures().items(), ids=[path.name for path in pictures()])
def test_pictures_are_up_to_date(path: Path, svg: str):
    assert path.read_text(encoding="utf-8") == svg


def test_a_spaces_requirements_are_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_the_front_matter_of_a_space_fits_the_packages():
    front = re.match(r"---\n(.*?)\n---\n", README.read_text(encoding="utf-8"), re.DOTALL)
    assert front is not None
    fields = dict(line.split(": ", 1) for line in front[1].splitlines())
    assert fields["sdk"] == "gradio"
    assert (ROOT / fields["app_file"]).exists()
    assert f"gradio=={fields['sdk_version']}" in (ROOT / "requirements.txt").read_text()


def test_every_link_to_a_file_leads_somewhere():
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("assets/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_command_in_the_readme_exists_and_takes_its_options():
    commands = {str(info.name or info.callback.__name__): info for info in app.registered_commands if info.callback}
    lines = re.findall(r"^    lora-lab (\w+)(.*?)(?:#.*)?$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, _ in lines} == set(commands)
    for name, rest in lines:
        explained = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in explained


def test_the_limits_of_a_picture_are_those_of_the_code():
    api, reliability = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("API", "RELIABILITY"))
    assert f"of up to {LARGEST_PIXELS // 10**6} megapixels" in api
    assert f"More than {LARGEST_PIXELS // 10**6} megapixels" in reliability
    assert f"more than {LARGEST_DECODED // 10**6} MB" in reliability
    assert f"More than {WORKING_PIXELS // 10**6} megapixels" in reliability


def test_every_example_has_a_source_and_opens():
    examples = ROOT / "assets" / "examples"
    sources = (examples / "SOURCES.md").read_text(encoding="utf-8")
    for path in examples.glob("*.jpg"):
        assert f"`{path.name}`" in sources
        with Image.open(path) as image:
            assert image.width > 200


def test_files_and_functions_keep_to_the_budget():
    import ast

    for path in [*Path(ROOT / "lora_lab").rglob("*.py"), ROOT / "app.py"]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}: {node.name}"

"""The wheel alone, installed in an empty folder, has everything the default app needs."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lora_lab.tasks import TASKS

ROOT = Path(__file__).parent.parent
MOST_MB = 100


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    return next(folder.glob("lora_lab-*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)], check=True
    )
    return folder


def run(site: Path, folder: Path, *arguments: str) -> str:
    """What the installed package prints, run in another folder."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("LORA_LAB_ADAPTERS", None)
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_of_a_size_that_an_index_takes(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < MOST_MB * 1e6
    assert not [name for name in names if name.startswith(("tests/", "assets/", "benchmarks/")) or "/full/model" in name]


def test_the_installed_package_finds_what_it_carries(site: Path, tmp_path: Path):
    code = """
import json, lora_lab
from lora_lab.forecast import findings_of, forecast_of
from lora_lab.lab import Lab
from lora_lab.paper import Paper
from lora_lab.provenance import commit
from lora_lab.records import RECORDS
from lora_lab.saved_merges import SAVED
from lora_lab.ui import ASSETS
examples, saved = list((ASSETS / "examples").glob("*.jpg")), list(SAVED.rglob("*.json"))
lab = Lab("dinov2-small")
cards = [card.name for card in lab.cards() if card.variant == "r16"]
here = [RECORDS.is_file(), (ASSETS / "style.css").is_file(), len(examples), bool(saved)]
Paper()
findings = findings_of(lab)
here.append(bool(findings and findings.methods(16) and findings.methods(64) and forecast_of(findings)))
print(json.dumps([lora_lab.__file__, cards, here, commit()]))
"""
    file, cards, here, commit = json.loads(run(site, tmp_path, "-c", code).splitlines()[-1])
    assert Path(file).is_relative_to(site)
    assert set(cards) == set(TASKS)
    assert here == [True, True, 4, True, True]
    assert commit is None


def test_the_installed_command_predicts_as_the_checkout_does(site: Path, tmp_path: Path):
    arguments = ["predict", str(ROOT / "assets" / "examples" / "astronaut.jpg"), "--adapters", "emotion=1", "--json"]
    installed = run(site, tmp_path, "-m", "lora_lab", *arguments)
    checkout = run(ROOT, tmp_path, "-m", "lora_lab", *arguments)
    answers, expected = json.loads(installed), json.loads(checkout)
    assert answers["faces"] == expected["faces"]
    assert answers["faces"][0]["predictions"]["emotion"]["answer"] == "happy"

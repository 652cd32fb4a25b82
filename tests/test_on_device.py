"""What is packed here is unpacked there and run in parts, each of which goes on where the last one stopped."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import random_adapter
from made import write_squares

from lora_lab.adapters import load_adapter, save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import adapter_folder, rank_folder
from lora_lab.data import load_crops
from lora_lab.records import RecordFile
from lora_lab.saved_merges import SavedMerge
from lora_lab.sweeps import plan
from lora_lab.tasks import TASKS

PAIR = ("galaxy", "land_cover")


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    for name in ("on_device", "device_jobs", "composition"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module("on_device")


@pytest.fixture
def slices(
    on_device: ModuleType, tiny: Backbone, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """The pack of two adapters and their images, in slices of 1 MB; the cache of this machine is not that machine's."""
    for place, name in enumerate(PAIR):
        write_squares(tmp_path / "data" / name, train=80, val=24)
        for rank in (0, 16):
            folder = adapter_folder("tiny", name, rank_folder(rank), tmp_path / "adapters")
            save_adapter(random_adapter(tiny, name, rank, place), folder)
    what = [
        "--data",
        str(tmp_path / "data"),
        "--adapters",
        str(tmp_path / "adapters"),
        "--slice",
        "1",
        "--most",
        "galaxy/train=30",
    ]
    on_device.main([*TINY, "pack", str(tmp_path / "pack"), *what])
    return sorted((tmp_path / "pack").iterdir())


TINY = ("--backbone", "tiny", "--size", "56")


def test_a_pack_comes_back_and_jobs_go_on(
    on_device: ModuleType, slices: list[Path], tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = load_crops(TASKS["land_cover"], tmp_path / "data", "val", 56)
    assert len(slices) > 1
    assert max(path.stat().st_size for path in slices) <= 10**6
    home, out = tmp_path / "home", tmp_path / "out"
    monkeypatch.setenv("LORA_LAB_CACHE", "")  # the command sets it
    monkeypatch.setattr(plan, "RANDOM_RECIPES", 2)
    monkeypatch.setattr(plan, "GRID", (0.0, 1.0))
    on_device.main([*TINY, "unpack", str(home), *map(str, slices)])
    there = load_crops(TASKS["land_cover"], home / "data", "val", 56)
    assert np.array_equal(here.pixels, there.pixels)
    assert np.array_equal(here.targets, there.targets)
    assert len(load_crops(TASKS["galaxy"], home / "data", "train", 56)) == 30

    def run(*jobs: str) -> None:
        options = ["--device", "cpu", "--views", "50", "--batch", "4", "--share", "0", "--scale", "0.001", "--images", "24"]
        on_device.main([*TINY, "run", str(home), str(out), *jobs, *options])

    run("check", "distil", "sweep", "train")
    check = json.loads((out / "check.json").read_text())
    assert max(check["largest_difference"].values()) == 0
    assert {one["merge"] for one in json.loads((out / "distil_scores.json").read_text())} == {"six", "six-plain"}
    assert SavedMerge.load(out / "six").mends.keys() == set(PAIR)
    assert SavedMerge.load(out / "six-plain").recipe.method == "saved:six-plain"
    records = RecordFile(out / "merges.parquet").read()
    assert {"galaxy:r16=1.0,land_cover:r16=1.0", "galaxy:r16=0.5,land_cover:r16=0.5"} <= set(records.adapters)
    assert load_adapter(adapter_folder("tiny", "galaxy", "r16", out), tiny).card.images_seen == 128
    steps = [one["steps"] for one in json.loads((out / "distil.json").read_text())]
    run("distil", "sweep")
    again = [one["steps"] for one in json.loads((out / "distil.json").read_text())]
    assert again[: len(steps)] == steps
    assert again[-1] > steps[-1]
    assert len(RecordFile(out / "merges.parquet").read()) == len(records)

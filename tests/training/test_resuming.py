"""A stopped run goes on with its own data, wherever that lies, and refuses other data in its place."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_lab.backbones import Backbone
from lora_lab.data import open_dataset, own_task
from lora_lab.errors import MismatchError
from lora_lab.training.config import TrainConfig
from lora_lab.training.run import Run

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("val", 4)):
        for place, name in enumerate(("rose", "tulip")):
            for number in range(count):
                picture(
                    tmp_path / "flowers" / split / name / f"{number}.png",
                    1000 * place + number + (500 if split == "val" else 0),
                )
    return tmp_path / "flowers"


def run_on(folder: Path, tiny: Backbone) -> Run:
    data = open_dataset(folder)
    config = TrainConfig(task="flowers", backbone="tiny", rank=2, images=64, batch=8, checks=2)
    return Run(config, [(own_task("flowers", data), data)], tiny)


def stopped_run(folder: Path, tiny: Backbone) -> Run:
    run = run_on(folder, tiny)
    next(run.steps())
    run.save_checkpoint()
    return run


def test_moved_data_goes_on(folder: Path, tiny: Backbone, tmp_path: Path):
    assert stopped_run(folder, tiny).step == 4
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    moved = run_on(tmp_path / "elsewhere", tiny)
    assert moved.load_checkpoint()
    assert moved.step == 4
    moved.forget_checkpoint()
    assert not run_on(tmp_path / "elsewhere", tiny).load_checkpoint()


def more(folder: Path) -> None:
    picture(folder / "train" / "rose" / "new.png", 77)


def other_class(folder: Path) -> None:
    (folder / "train" / "rose").rename(folder / "train" / "aster")
    (folder / "val" / "rose").rename(folder / "val" / "aster")


def third_class(folder: Path) -> None:
    picture(folder / "train" / "aster" / "0.png", 78)
    picture(folder / "val" / "aster" / "0.png", 79)


def other_pixels(folder: Path) -> None:
    picture(folder / "train" / "rose" / "0.png", 80)


def moved_label(folder: Path) -> None:
    (folder / "train" / "rose" / "0.png").rename(folder / "train" / "tulip" / "9.png")
    (folder / "train" / "tulip" / "0.png").rename(folder / "train" / "rose" / "9.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (more, "flowers, train has 17 images and had 16"),
        (other_class, "flowers, train has no rose any more, flowers, train has aster as well"),
        (third_class, "train has aster as well"),
        (other_pixels, "train has other images or names at the same number of 16"),
        (moved_label, "train has other images or names at the same number of 16"),
    ],
)
def test_changed_data_in_the_same_place_is_refused_by_what_differs(folder: Path, tiny: Backbone, change, told: str):
    stopped_run(folder, tiny)
    change(folder)
    changed = run_on(folder, tiny)
    with pytest.raises(MismatchError, match="has changed since this run was stopped") as caught:
        changed.load_checkpoint()
    assert told in str(caught.value)
    assert str(caught.value).endswith("bring it back, or begin anew with --fresh")
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)
    changed.forget_checkpoint()  # what --fresh does
    assert not changed.load_checkpoint()
    assert changed.step == 0


def test_other_data_in_another_place_is_another_run(folder: Path, tiny: Backbone, tmp_path: Path):
    first = stopped_run(folder, tiny)
    shutil.copytree(folder, tmp_path / "other")
    more(tmp_path / "other")
    assert not run_on(tmp_path / "other", tiny).load_checkpoint()
    assert first.checkpoint_path().exists()
    assert run_on(folder, tiny).load_checkpoint()


def test_a_run_of_an_earlier_version_is_left_aside_and_goes_with_this_one(folder: Path, tiny: Backbone):
    run = run_on(folder, tiny)
    old = run.older_checkpoint()
    old.write_bytes(b"old")
    assert not run.load_checkpoint()
    run.forget_checkpoint()
    assert not old.exists()


def test_a_checkpoint_without_its_data_is_left_aside(folder: Path, tiny: Backbone):
    run = stopped_run(folder, tiny)
    run.checkpoint_path().with_suffix(".json").write_text("{broken")
    more(folder)
    assert not run_on(folder, tiny).load_checkpoint()

"""A task for one's own data follows from its labels."""

from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, make_wflw, put_table

from lora_lab.data import FORMATS, Reading, load_crops, open_dataset, own_task, task_dataset
from lora_lab.data.own import origin_of
from lora_lab.errors import LoraLabError
from lora_lab.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_cache")


def dataset(folder: Path, values: list):
    put_table(folder / "train.parquet", len(values), target=values)
    put_table(folder / "val.parquet", len(values), start=50, target=values)
    return open_dataset(folder)


def test_names_make_a_task_of_classes(tmp_path: Path):
    data = dataset(tmp_path / "garden", ["tulip", "rose", "aster"])
    task = own_task("my_flowers", data)
    assert (task.title, task.kind, task.labels) == ("My flowers", "classes", ("aster", "rose", "tulip"))
    assert (task.metrics, task.outputs) == (TASKS["galaxy"].metrics, 3)
    assert (task.framing, task.stored, task.column, task.version) == ("square", "square", "target", "1")
    assert (task.source, task.licence) == ("own data: garden", "not stated")
    assert load_crops(task, data, "val", 56).targets.tolist() == [2, 1, 0]


def test_digits_are_names_of_classes(tmp_path: Path):
    data = dataset(tmp_path, [2, 3, 4])
    task = own_task("stars", data)
    assert task.labels == ("2", "3", "4")
    assert load_crops(task, data, "train", 56).targets.tolist() == [0, 1, 2]


def test_numbers_are_scaled_by_train(tmp_path: Path):
    data = dataset(tmp_path, [10.0, 20.0, 60.0])
    task = own_task("weight", data, "face")
    assert (task.kind, task.metrics) == ("number", TASKS["age_regression"].metrics)
    assert (task.framing, task.stored) == ("face", "face")
    assert task.offset == 30.0
    np.testing.assert_allclose(task.scale, np.std([10, 20, 60]))
    assert own_task("flat", dataset(tmp_path / "flat", [1.5, 1.5])).scale == 1.0


def test_points_are_scored_by_their_boxs_size(tmp_path: Path):
    data = dataset(tmp_path, [[4.0, 4.0, 12.0, 8.0, 20.0, 20.0]] * 2)
    task = own_task("corners", data)
    assert (task.kind, task.points, task.metrics, task.outputs) == ("points", 3, ("nme",), 6)
    crops = load_crops(task, data, "train", 56)
    # The images are 24 pixels wide: points in shares of them from the middle.
    np.testing.assert_allclose(crops.targets[0], [[-1 / 3, -1 / 3], [0, -1 / 6], [1 / 3, 1 / 3]], atol=1e-6)
    assert crops.normaliser is not None
    np.testing.assert_allclose(crops.normaliser, 16 / 24)


def test_a_known_layout_brings_its_terms_and_its_faces(tmp_path: Path):
    make_wflw(tmp_path)
    task = own_task("wflw", open_dataset(tmp_path))
    assert (task.points, task.framing, task.stored) == (98, "face", "face")
    assert "WFLW" in task.source
    assert "non-commercial" in task.licence


@pytest.mark.parametrize("layout", ["firerisk", "galaxy10"])
def test_layouts_of_classes_are_tasks(layout: str, tmp_path: Path):
    LAYOUTS[layout](tmp_path)
    data = open_dataset(tmp_path)
    task = own_task("own", data)
    assert task.labels == data.labels
    targets = load_crops(task, data, "val", 56).targets
    assert sorted(set(targets.tolist())) == list(range(len(task.labels)))


@pytest.mark.parametrize("name", ["Flowers", "2much", "my-flowers", "", "galaxy"])
def test_a_name_that_will_not_do_is_told(name: str, tmp_path: Path):
    data = dataset(tmp_path, ["a", "b"])
    with pytest.raises(LoraLabError, match=r"another name|cannot name a task"):
        own_task(name, data)


def test_a_card_says_what_the_data_is_that_was_given(tmp_path: Path):
    galaxy = TASKS["galaxy"]
    labels = [*galaxy.labels]
    for folder in (tmp_path / "galaxy", tmp_path / "stars"):
        for number, split in enumerate(("train", "val")):
            put_table(folder / f"{split}.parquet", len(labels), start=20 * number, label=labels)
    ours, theirs = (task_dataset(galaxy, tmp_path / name) for name in ("galaxy", "stars"))
    assert origin_of(ours, galaxy) == (galaxy.source, galaxy.licence)
    assert origin_of(theirs, galaxy) == ("own data: stars", "not stated")
    renamed = task_dataset(galaxy, tmp_path / "galaxy", Reading(labels=f"{labels[0]}={labels[1]}"))
    assert origin_of(renamed, galaxy) == ("own data: galaxy", "not stated")
    make_wflw(tmp_path / "wflw")
    wflw = open_dataset(tmp_path / "wflw")
    assert origin_of(wflw, TASKS["landmarks"]) == (FORMATS["wflw"].title, FORMATS["wflw"].terms)

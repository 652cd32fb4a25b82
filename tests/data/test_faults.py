"""All that is wrong with a data set is said at once, and leaving out the named rows cures what can be cured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import colour, encoded, face_points, put_table

from lora_lab.data import Dataset, Faults, find_faults, open_dataset, own_task
from lora_lab.data import faults as faults_module
from lora_lab.data.faults import listed
from lora_lab.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_cache")

ODD_EVEN = ["odd", "even"] * 10


def write(path: Path, images: list[bytes], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in images], **columns}), path)


def found(folder: Path) -> tuple[Faults, Dataset]:
    data = open_dataset(folder)
    return find_faults(own_task("numbers", data), data), data


def test_nothing_is_wrong_with_sound_data(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 4, label=ODD_EVEN[:4])
    put_table(tmp_path / "val.parquet", 4, start=10, label=ODD_EVEN[:4])
    faults, _ = found(tmp_path)
    assert faults == Faults((), {}, ())
    assert not faults


def test_all_faults_are_told_at_once_and_curable_ones_can_be_left_out(tmp_path: Path):
    images = [encoded(colour(i)) for i in range(10)]
    photo = encoded((9, 9, 9), (300, 300), "JPEG")
    images += [b"nothing", photo[: len(photo) // 2], b"", b"again"]
    images += [images[0], images[1]]
    labels = [*ODD_EVEN[:10], *ODD_EVEN[:4], "even", None]
    write(tmp_path / "train.parquet", images, label=labels)
    # The last picture of val is the third of train.
    write(
        tmp_path / "val.parquet",
        [*(encoded(colour(i)) for i in range(50, 53)), images[2]],
        label=["odd", "even", "odd", "prime"],
    )
    faults, data = found(tmp_path)
    assert faults.lines == (
        "1 missing label in train: row 15",
        "1 label that numbers does not know ('prime'; known: even, odd) in val: row 3",
        "4 unreadable images in train: row 10, row 11, row 12 and 1 more",
        "1 image of train in val as well: row 2 is row 3",
        "2 images in train are the same with other labels, such as row 0 and row 14",
    )
    assert faults.rows == {"train": {0, 2, 10, 11, 12, 13, 14, 15}, "val": {3}}
    assert not faults.incurable
    rest = data.without(faults.rows)
    assert list(rest.read("train").names) == [f"row {row}" for row in (1, *range(3, 10))]
    assert rest.read("train").stamp != data.read("train").stamp
    assert not find_faults(own_task("numbers", data), rest)


def test_what_leaving_out_does_not_cure_is_told_too(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 4, label=ODD_EVEN[:4])
    put_table(tmp_path / "val.parquet", 1, start=10, label=["odd"])
    faults, _ = found(tmp_path)
    assert faults.lines == (
        "val has 1 image that will do; it needs 2 or more",
        "val has no image of even; add some, or leave the class out everywhere",
    )
    assert faults.incurable
    (tmp_path / "train.parquet").rename(tmp_path / "test.parquet")
    faults, _ = found(tmp_path)
    assert any(line.startswith("there is no split 'train'") for line in faults.lines)
    assert faults.incurable


def test_the_second_time_is_from_the_cache_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_table(tmp_path / "train.parquet", 4, label=ODD_EVEN[:4])
    put_table(tmp_path / "val.parquet", 2, start=2, label=ODD_EVEN[:2])
    first, _ = found(tmp_path)
    assert first.rows == {"train": {2, 3}}
    with monkeypatch.context() as patch:
        patch.setattr(faults_module, "_glances", None)
        assert found(tmp_path)[0] == first
    put_table(tmp_path / "val.parquet", 2, start=20, label=ODD_EVEN[:2])
    assert not found(tmp_path)[0]


def test_the_same_pixels_in_another_file_are_a_leak(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 4, label=ODD_EVEN[:4])
    images = [encoded(colour(2), kind="BMP"), encoded(colour(30)), encoded(colour(31)), encoded(colour(32))]
    write(tmp_path / "val.parquet", images, label=ODD_EVEN[:4])
    faults, _ = found(tmp_path)
    assert faults.lines == ("1 image of train in val as well: row 2 is row 0",)


def test_points_are_looked_at(tmp_path: Path):
    inside = face_points(5, 2, 2, 10).ravel().tolist()
    far = (np.array(inside) + 40).tolist()
    rows = [inside, inside, far, inside[:-2], [*inside[:-1], float("nan")], inside]
    put_table(tmp_path / "train.parquet", 6, points=rows)
    put_table(tmp_path / "val.parquet", 2, start=10, points=[inside] * 2)
    faults, _ = found(tmp_path)
    assert faults.lines == (
        "1 label that is not 5 points of x, y in train: row 3",
        "1 label with points that are no finite numbers in train: row 4",
        "points far outside of 1 image in train: row 2",
    )
    assert faults.rows == {"train": {2, 3, 4}}


def test_unknown_labels_are_told_once_for_all_splits(tmp_path: Path):
    for start, split in enumerate(("train", "val", "test")):
        put_table(tmp_path / f"{split}.parquet", 3, start=10 * start, label=["odd", "even", ["bored", "shy", "bored"][start]])
    data = open_dataset(tmp_path)
    faults = find_faults(replace(own_task("numbers", data), labels=("even", "odd")), data)
    assert faults.lines == (
        "3 labels that numbers does not know ('bored', 'shy'; known: even, odd) in train, val and test: row 2, row 2, row 2",
    )
    assert faults.rows == {"train": {2}, "val": {2}, "test": {2}}


def test_numbers_are_looked_at(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 4, size=[1.5, float("nan"), float("inf"), 2.5])
    put_table(tmp_path / "val.parquet", 2, start=10, size=[1.5, 2.5])
    faults, _ = found(tmp_path)
    assert faults.lines == (
        "1 missing label in train: row 1",
        "1 label that is no finite number in train: row 2",
    )


def test_a_task_of_the_catalog_says_which_column_it_wants(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 2, label=["a", "b"])
    put_table(tmp_path / "val.parquet", 2, start=10, other=["a", "b"])
    data = open_dataset(tmp_path, column="label")
    faults = find_faults(TASKS["galaxy"], data)
    assert "val has no column 'label'; it has other" in faults.lines
    assert faults.incurable


def test_many_names_are_cut_short():
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed([str(number) for number in range(12)]) == "0, 1, 2 and 9 more"

"""Tables as the hub and the datasets library lay them out, with the columns and cells that they have there."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import encoded, make_saved, put, put_images

from lora_lab.data import load_crops, open_dataset, own_task
from lora_lab.errors import DataError, NotFoundError

pytestmark = pytest.mark.usefixtures("own_cache")
CELLS = [{"bytes": encoded((number * 20, 9, 9)), "path": f"{number}.png"} for number in range(12)]


def write(path: Path, cells: list, name: str = "img", label: str = "label", names: list[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: cells, label: [i % 2 for i in range(len(cells))]})
    if names:
        features = {label: {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], ("train", "val", "test")),
        (
            ["data/train-00000-of-00002-0a1b2c3d.parquet", "data/train-00001-of-00002-9f8e7d6c.parquet"],
            ("train", "val", "test"),
        ),
        (["default/train/0000.parquet", "default/validation/0000.parquet"], ("train", "val")),
        (["plain/partial-train/0000.parquet", "plain/partial-train/0001.parquet"], ("train", "val", "test")),
        (["config/train-00000-of-00001.parquet", "config/dev-00000-of-00001.parquet"], ("train", "val")),
        (["train_0.parquet", "train_1.parquet", "eval.parquet"], ("train", "val", "test")),
        (["0000.parquet"], ("train", "val", "test")),
    ],
)
def test_the_hubs_layouts(tmp_path: Path, files: list[str], splits: tuple):
    for file in files:
        write(tmp_path / file, CELLS)
    data = open_dataset(tmp_path)
    assert data.splits == splits
    assert sum(len(data.read(split)) for split in splits) == 12 * len(files)
    assert data.read("train").images[0].startswith(b"\x89PNG")


def test_names_of_classes_come_from_the_table_in_its_order(tmp_path: Path):
    write(tmp_path / "train.parquet", CELLS, names=["zebra", "ant"])
    data = open_dataset(tmp_path)
    assert data.labels == ("zebra", "ant")
    assert sorted(data.read("train").columns["label"])[0] == "ant"
    task = own_task("animals", data)
    assert set(load_crops(task, data, "val", 56).targets.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["image", "img", "pixel_values", "scan"])
def test_the_column_of_pictures_is_known_by_name_or_kind(tmp_path: Path, name: str):
    write(tmp_path / "train.parquet", CELLS, name)
    assert len(open_dataset(tmp_path).read("train")) == 8


def test_columns_can_be_named(tmp_path: Path):
    cells = [cell["bytes"] for cell in CELLS]
    table = pa.table({"left": cells, "right": cells[::-1], "kind": ["a", "b"] * 6})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"no column 'image'; it has left, right, kind: say which .* with --image-column"):
        open_dataset(tmp_path)
    left, right = (open_dataset(tmp_path, column="kind", image_column=side).read("train") for side in ("left", "right"))
    assert left.images[0] != right.images[0]
    assert left.stamp != right.stamp
    with pytest.raises(DataError, match="no column 'up'"):
        open_dataset(tmp_path, image_column="up")


def test_cells_may_be_paths_or_pixels_and_addresses_are_refused(tmp_path: Path):
    put_images(tmp_path / "pics", ["0.png"])
    grey = [[0, 128], [200, 255]]
    files = {
        "paths": ["pics/0.png"] * 2,
        "structs": [{"bytes": None, "path": "pics/0.png"}] * 2,
        "pixels": [grey] * 2,
        "far": ["https://a.b/c.png"] * 2,
        "floats": [[[0.5, 0.1]]] * 2,
        "none": [{"bytes": None, "path": "gone.png"}] * 2,
    }
    for name, cells in files.items():
        write(tmp_path / name / "train.parquet", cells, "image")
        put_images(tmp_path / name / "pics", ["0.png"])
    read = {name: open_dataset(tmp_path / name).read("train") for name in files}
    assert read["paths"].images[0] == read["structs"].images[0] == (tmp_path / "paths" / "pics" / "0.png").read_bytes()
    assert read["pixels"].images[0].getpixel((1, 0)) == (128, 128, 128)
    for name, told in (("far", "names addresses"), ("floats", "no whole numbers 0–255"), ("none", r"gone\.png is not there")):
        with pytest.raises(DataError, match=told):
            read[name].images[0]


def test_several_configurations_are_told_apart(tmp_path: Path):
    write(tmp_path / "small" / "train.parquet", CELLS)
    write(tmp_path / "large" / "train.parquet", CELLS)
    with pytest.raises(DataError, match="several configurations: large, small; name the folder of one with --data"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path / "small").read("train")) == 8


def test_an_empty_split_and_files_of_no_split_are_told(tmp_path: Path):
    write(tmp_path / "train.parquet", CELLS)
    write(tmp_path / "val.parquet", CELLS)
    pq.write_table(pq.read_table(tmp_path / "train.parquet").slice(0, 0), tmp_path / "test.parquet")
    put(tmp_path / "README.md", "about")
    assert open_dataset(tmp_path).notes == (
        "1 file was not used: README.md (no parquet file of a split)",
        "the split test has no rows",
    )


def test_what_save_to_disk_writes_is_read(tmp_path: Path):
    make_saved(tmp_path / "both")
    data = open_dataset(tmp_path / "both")
    assert (data.format, data.labels, data.splits) == ("saved", ("tulip", "rose"), ("train", "val", "test"))
    assert [len(data.read(split)) for split in data.splits] == [18, 2, 2]
    one = open_dataset(tmp_path / "both" / "train")
    assert (one.labels, one.splits) == (("tulip", "rose"), ("train", "val", "test"))
    assert one.read("train").images[0].startswith(b"\x89PNG")
    put(tmp_path / "both" / "dataset_dict.json", '{"splits": ["train", "gone"]}')
    with pytest.raises(DataError, match="names splits that are not there"):
        open_dataset(tmp_path / "both")
    put(tmp_path / "both" / "train" / "data-00000-of-00001.arrow", "broken")
    with pytest.raises(DataError, match="is no Arrow file that can be read"):
        open_dataset(tmp_path / "both" / "train")
    with pytest.raises(NotFoundError, match=r"lacks dataset_dict\.json"):
        open_dataset(tmp_path, format="saved")

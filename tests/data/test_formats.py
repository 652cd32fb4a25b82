"""Every layout is told from the others and read: its splits, images and labels."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, encoded, face_points, make_fer2013, put, put_images, put_table

from lora_lab.data.formats import FORMATS, format_table, open_dataset
from lora_lab.data.formats.fer2013 import majority
from lora_lab.errors import DataError, NotFoundError
from lora_lab.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("layout", FORMATS.values(), ids=list(FORMATS))
def test_every_layout_says_where_it_is_from_and_is_told_from_the_others(layout, tmp_path: Path):
    assert min(len(text) for text in (layout.title, layout.documented, layout.home, layout.terms)) > 5
    LAYOUTS[layout.name](tmp_path)
    data = open_dataset(tmp_path)
    assert data.format == layout.name
    assert {"train", "val"} <= set(data.splits)
    names = [name for split in data.splits for name in data.read(split).names]
    assert len(set(names)) == len(names) or layout.name == "parquet"
    for split in data.splits:
        read = data.read(split)
        assert len(read) == len(read.names) == len(read.images) == len(read.columns[data.column])
        assert isinstance(json.loads(read.stamp), list)
    with pytest.raises(NotFoundError, match=r"no split 'holiday'.*it holds train"):
        data.read("holiday")


@pytest.mark.parametrize("name", FORMATS)
def test_made_splits_are_the_same_each_time_and_share_no_image(name: str, tmp_path: Path):
    LAYOUTS[name](tmp_path)
    one, two = open_dataset(tmp_path), open_dataset(tmp_path)
    for split in one.splits:
        assert list(one.read(split).names) == list(two.read(split).names)
        assert one.read(split).stamp == two.read(split).stamp
    stamps = [one.read(split).stamp for split in one.splits]
    assert len(set(stamps)) == len(stamps)


def test_wflw_is_cut_around_each_face(tmp_path: Path):
    LAYOUTS["wflw"](tmp_path)
    data = open_dataset(tmp_path)
    assert (data.kind, data.points, data.stored) == ("points", 98, "face")
    assert data.splits == ("train", "val", "test")
    # Both faces of a photo stay on one side.
    assert sorted(len(data.read(split)) for split in ("train", "val")) == [1, 2]
    test = data.read("test")
    # The points are 20 wide at (40, 30); the cut is 1.8 times as wide around them.
    assert test.images[0].size == (36, 36)
    points = np.reshape(test.columns["points"][0], (98, 2))
    np.testing.assert_allclose(points, face_points(98, left=8, top=8), atol=1e-4)
    assert test.images[0].getpixel((9, 9))[0] > 200
    assert test.images[0].getpixel((4, 4))[0] < 50
    assert test.names[0].startswith("1--Rally/d.jpg")


def test_wflw_says_which_line_is_broken(tmp_path: Path):
    LAYOUTS["wflw"](tmp_path)
    path = tmp_path / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    path.write_text(path.read_text() + "1 2 3 d.jpg\n")
    with pytest.raises(DataError, match="line 2: 4 words where WFLW has 207"):
        open_dataset(tmp_path)


def test_300w_counts_from_one_and_has_the_usual_splits(tmp_path: Path):
    LAYOUTS["300w"](tmp_path)
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val", "test", "challenging")
    assert list(data.read("test").names) == ["helen/testset/300_1.jpg"]
    assert list(data.read("challenging").names) == ["ibug/image_003_1.jpg"]
    sides = {name: split for split in ("train", "val") for name in data.read(split).names}
    assert len(sides) == 5
    assert sides["afw/111_1.jpg"] == sides["afw/111_2.jpg"]
    points = np.reshape(data.read("test").columns["points"][0], (68, 2))
    np.testing.assert_allclose(points, face_points(68, left=8, top=8), atol=1e-4)


def test_utkface_names_are_read_and_broken_ones_counted(tmp_path: Path):
    LAYOUTS["utkface"](tmp_path)
    data = open_dataset(tmp_path)
    assert (data.kind, data.column, data.stored) == ("number", "age", "framed")
    assert data.splits == ("train", "val", "test")
    assert [len(data.read(split)) for split in data.splits] == [16, 2, 2]
    assert data.notes == (
        "1 file was not used: 39_1_20170116174525125.jpg.chip.jpg (its name lacks age, gender, race or date)",
    )
    train = data.read("train")
    row = train.names.index(next(name for name in train.names if name.startswith("7_")))
    assert [train.columns[name][row] for name in ("age", "gender", "race")] == [7, "female", "asian"]
    assert train.images[row] == (tmp_path / train.names[row]).read_bytes()
    assert open_dataset(tmp_path, column="gender").labels == ("male", "female")


def test_expw_boxes_are_top_left_right_bottom(tmp_path: Path):
    LAYOUTS["expw"](tmp_path)
    data = open_dataset(tmp_path)
    assert data.labels == TASKS["emotion"].labels
    sides = {name: (split, row) for split in data.splits for row, name in enumerate(data.read(split).names)}
    first, second = sides["pair.jpg (line 1)"], sides["pair.jpg (line 2)"]
    assert first[0] == second[0]
    split = data.read(first[0])
    assert [split.columns["label"][row] for _, row in (first, second)] == ["happy", "neutral"]
    # The box is 20 × 20 at (20, 10), and the cut around its middle 36 wide.
    assert split.images[first[1]].size == (36, 36)
    put(tmp_path / "label" / "label.lst", "one0.jpg 0 10 20 40\n")
    with pytest.raises(DataError, match="line 1 is not of ExpW's 8 words"):
        open_dataset(tmp_path)


def test_fer2013_splits_by_usage(tmp_path: Path):
    make_fer2013(tmp_path)
    data = open_dataset(tmp_path)
    assert [len(data.read(split)) for split in ("train", "val", "test")] == [3, 1, 1]
    assert data.read("train").columns["label"] == ["angry", "happy", "neutral"]
    assert data.read("val").images[0].getpixel((5, 5)) == (40, 40, 40)
    assert data.read("test").columns["label"] == ["surprise"]


def test_fer_plus_votes_replace_the_labels_and_what_is_left_out_is_counted(tmp_path: Path):
    make_fer2013(tmp_path, votes=True)
    data = open_dataset(tmp_path)
    assert data.read("train").columns["label"] == ["sad"]
    assert data.read("train").images[0].getpixel((0, 0)) == (10, 10, 10)
    assert data.read("val").columns["label"] == ["neutral"]
    assert data.notes == ("FER+: left out 1 contempt, 1 no majority",)
    path = tmp_path / "fer2013new.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"4 rows and fer2013\.csv 5"):
        open_dataset(tmp_path)


def test_a_majority_is_more_than_half_of_what_single_votes_leave():
    assert majority({"sad": 5, "angry": 4, "happy": 1}) == "sad"
    assert majority({"sad": 4, "angry": 4}) == "no majority"
    assert majority({"sad": 3, "angry": 2, "happy": 2}) == "no majority"
    assert majority({"sad": 1, "angry": 1}) == "no majority"


def test_firerisk_keeps_its_splits_and_orders_its_classes_by_risk(tmp_path: Path):
    LAYOUTS["firerisk"](tmp_path)
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val")
    assert data.labels == ("very low", "low", "moderate", "high", "very high", "non-burnable", "water")
    labels = dict(zip(data.read("val").names, data.read("val").columns["label"], strict=True))
    assert labels["Non-burnable/3_1_0_0.png"] == "non-burnable"
    assert labels["Very_High/3_1_0_0.png"] == "very high"


def test_eurosat_has_the_names_of_the_land_cover_task_and_a_tenth_of_each_class_apart(tmp_path: Path):
    LAYOUTS["eurosat"](tmp_path / "2750")
    data = open_dataset(tmp_path)
    assert data.labels == TASKS["land_cover"].labels
    assert [len(data.read(split)) for split in data.splits] == [48, 6, 6]
    assert sorted(data.read("val").columns["label"])[-1] == "sea or lake"
    assert len(set(data.read("val").columns["label"])) == 6


def test_galaxy10_reads_pictures_where_they_lie(tmp_path: Path):
    LAYOUTS["galaxy10"](tmp_path)
    data = open_dataset(tmp_path)
    assert len(data.labels) == 10
    for split in data.splits:
        read = data.read(split)
        row = int(read.names[0].split()[1])
        assert read.images[0].getpixel((3, 3)) == (row, 0, 0)
        assert read.columns["label"][0] == data.labels[row % 10]
    put(tmp_path / "Galaxy10_DECals.h5", "no table")
    with pytest.raises(DataError, match="is not Galaxy10's file"):
        open_dataset(tmp_path)


def test_parquet_takes_class_names_from_the_librarys_metadata(tmp_path: Path):
    feature = {"label": {"_type": "ClassLabel", "names": ["rose", "tulip"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    put_table(tmp_path / "data" / "train-00000-of-00002.parquet", 3, metadata, label=[1, 0, -1])
    put_table(tmp_path / "data" / "train-00001-of-00002.parquet", 1, metadata, start=5, label=[1])
    put_table(tmp_path / "data" / "validation-00000-of-00001.parquet", 2, metadata, start=9, label=[0, 1])
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val")
    assert data.labels == ("rose", "tulip")
    train = data.read("train")
    assert train.columns["label"] == ["tulip", "rose", None, "tulip"]
    assert train.images[3] == encoded((5 * 37, 55, 5))
    assert train.images[0] == encoded((0, 0, 0))
    assert list(train.names) == ["row 0", "row 1", "row 2", "row 3"]


def test_parquet_without_val_has_one_made_and_reads_images_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lora_lab.data.formats import parquet

    put_table(tmp_path / "train.parquet", 20, label=[i % 2 for i in range(20)], note=["x"] * 20)
    monkeypatch.setattr(parquet.TableImages, "_image", None)
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val", "test")
    assert [len(data.read(split)) for split in data.splits] == [16, 2, 2]
    assert sorted(data.read("val").columns["label"]) == [0, 1]
    with pytest.raises(TypeError):
        data.read("val").images[0]


@pytest.mark.parametrize(
    ("values", "kind", "labels", "points"),
    [
        (["b", "a", "b"], "classes", ("a", "b"), 0),
        ([True, False, True], "classes", ("false", "true"), 0),
        ([3, 4, 5], "classes", ("3", "4", "5"), 0),
        ([3, None, 4], "classes", ("3", "4"), 0),
        ([1, 70, 300], "number", (), 0),
        ([1.0, 2.0, 3.0], "number", (), 0),
        ([[1.0, 2.0, 3.0, 4.0]] * 3, "points", (), 2),
        ([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]] * 3, "points", (), 3),
    ],
)
def test_the_kind_follows_from_the_values(tmp_path: Path, values: list, kind: str, labels: tuple, points: int):
    put_table(tmp_path / "train.parquet", 3, target=values)
    put_table(tmp_path / "val.parquet", 3, start=5, target=values)
    data = open_dataset(tmp_path)
    assert (data.column, data.kind, data.labels, data.points) == ("target", kind, labels, points)


def test_a_label_column_is_chosen_by_name_or_asked_for(tmp_path: Path):
    put_table(tmp_path / "train.parquet", 2, colour=["red", "blue"], weight=[1.5, 2.5])
    with pytest.raises(DataError, match="say which of colour, weight holds the labels with --column"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, column="weight").kind == "number"
    with pytest.raises(DataError, match="no column 'size'; it has colour, weight"):
        open_dataset(tmp_path, column="size")
    put_table(tmp_path / "train.parquet", 2, points=[[1.0, 2.0, 3.0]] * 2)
    with pytest.raises(DataError, match="lists of 3 numbers"):
        open_dataset(tmp_path)


def test_imagefolder_takes_classes_from_folders_and_val_from_valid(tmp_path: Path):
    LAYOUTS["imagefolder"](tmp_path)
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val")
    assert data.labels == ("rose", "tulip")
    assert [len(data.read(split)) for split in data.splits] == [6, 4]
    val = data.read("val")
    assert next(zip(val.names, val.columns["label"], strict=True)) == ("valid/rose/validrose0.png", "rose")
    # An image is read when it is asked for, and no earlier.
    put(tmp_path / "valid" / "rose" / "validrose0.png", b"changed")
    assert val.images[0] == b"changed"
    assert open_dataset(tmp_path).read("val").stamp != val.stamp


# The library leaves the table open until it is swept up.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_imagefolder_reads_a_table_of_numbers(tmp_path: Path):
    names = [f"{number}.png" for number in range(20)]
    put_images(tmp_path, names)
    lines = [f"{name},{1.5 * number},note" for number, name in enumerate(names)]
    put(tmp_path / "metadata.csv", "\n".join(["file_name,size,text", *lines]) + "\n")
    data = open_dataset(tmp_path, column="size")
    assert (data.kind, data.splits) == ("number", ("train", "val", "test"))
    assert [len(data.read(split)) for split in data.splits] == [16, 2, 2]
    train = data.read("train")
    assert train.columns["size"] == [1.5 * int(Path(name).stem) for name in train.names]
    gc.collect()


def test_a_class_may_be_named_like_a_split(tmp_path: Path):
    for name in ("car", "ship", "train"):
        put_images(tmp_path / name, [f"{name}{number}.png" for number in range(3)])
    data = open_dataset(tmp_path)
    assert data.labels == ("car", "ship", "train")
    assert [len(data.read(split)) for split in data.splits] == [3, 3, 3]


def test_imagefolder_without_labels_says_so(tmp_path: Path):
    put_images(tmp_path / "train", ["a.png", "b.png"])
    put_images(tmp_path / "val", ["c.png"])
    with pytest.raises(DataError, match=r"3 images in no class's folder, such as train/a\.png"):
        open_dataset(tmp_path)


def test_unknown_folders_and_formats_are_told(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="layout that is known; looked for: WFLW"):
        open_dataset(tmp_path)
    with pytest.raises(NotFoundError, match="no format named 'wflv'; did you mean 'wflw'"):
        open_dataset(tmp_path, format="wflv")
    for name in FORMATS:
        with pytest.raises((NotFoundError, DataError)):
            open_dataset(tmp_path, format=name)


def test_the_table_of_formats_has_a_row_each():
    lines = format_table(FORMATS.values()).splitlines()
    assert len(lines) == 2 + len(FORMATS)
    assert all(line.count("|") == 6 for line in lines)
    assert lines[2].startswith("| `wflw` |")

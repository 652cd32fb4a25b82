"""Tables of text as spreadsheets and people write them, every cell exactly as it stands."""

import unicodedata
from pathlib import Path

import pytest
from layouts import put, put_images

from lora_lab.data import Dataset, open_dataset
from lora_lab.data.texts import typed
from lora_lab.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


def table(folder: Path, labels: list[str], name: str = "metadata.csv", head: str = "file_name,label", join: str = ",") -> Path:
    names = [f"{number}.png" for number in range(len(labels))]
    put_images(folder, names)
    return put(folder / name, "\n".join([head, *(join.join(row) for row in zip(names, labels, strict=True))]) + "\n")


def labels_of(data: Dataset) -> dict[str, object]:
    splits = [data.read(name) for name in data.splits]
    return {n: label for split in splits for n, label in zip(split.names, split.columns[data.column], strict=True)}


def test_labels_are_text_as_it_stands_and_only_empty_cells_are_missing(tmp_path: Path):
    labels = ["NA", "None", "null", "nan", "01", "1.0", "True", "N/A", "", "-", "NaN", "a/b"]
    table(tmp_path, labels)
    data = open_dataset(tmp_path)
    assert data.labels == tuple(sorted({label for label in labels if label}))
    assert labels_of(data) == {f"{number}.png": label or None for number, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["3", "4", None], [3, 4, None]),
        (["01", "02"], ["01", "02"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        (["1.5", "70"], [1.5, 70.0]),
        (["25.0", "70.0"], [25.0, 70.0]),
        (["1", "NA"], ["1", "NA"]),
        (["-1", "1e3"], [-1.0, 1000.0]),
        (["inf", "1"], ["inf", "1"]),
        (["True", "False"], ["True", "False"]),
    ],
)
def test_a_column_is_numbers_where_all_of_it_is(values: list, found: list):
    assert typed(values) == found
    assert [type(value) for value in typed(values)] == [type(value) for value in found]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("utf-16", ()),
        ("latin-1", ("metadata.csv is no UTF-8 and was read as Windows-1252 (latin-1)",)),
    ],
)
def test_any_encoding_and_separator_will_do(tmp_path: Path, encoding: str, said: tuple):
    path = table(tmp_path, ["Rosé", "Käfer"] * 6, head="file_name;label", join=";")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    data = open_dataset(tmp_path)
    assert (data.labels, data.notes) == (("Käfer", "Rosé"), said)


def test_spaces_are_trimmed_and_letters_brought_to_one_form_and_both_are_said(tmp_path: Path):
    table(tmp_path, ["rosé", unicodedata.normalize("NFD", "rosé"), " rosé ", "tulip"] * 3)
    data = open_dataset(tmp_path)
    assert data.labels == ("rosé", "tulip")
    assert data.notes == (
        "spaces around 3 values of 'label' were trimmed",
        "3 values of 'label' were brought to one Unicode form (NFC)",
    )


def test_quoted_cells_may_hold_anything(tmp_path: Path):
    table(tmp_path, ['"a, b"', '"two\nlines"', '"say ""hi"""'] * 4)
    assert open_dataset(tmp_path).labels == ("a, b", 'say "hi"', "two\nlines")


def test_rows_and_pictures_that_are_not_used_are_counted(tmp_path: Path):
    path = table(tmp_path, ["a", "b"] * 6)
    put_images(tmp_path, ["stray.png"])
    path.write_text(path.read_text() + "gone.png,a\n3.png\n0.png,a,b,c\n")
    assert open_dataset(tmp_path).notes == (
        "4 files were not used: row 15 of metadata.csv (cells: 1, in the header: 2); "
        "row 16 of metadata.csv (cells: 4, in the header: 2); gone.png of metadata.csv (named in the table and not there); "
        "stray.png (no row in the table)",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file_name,label,label\n0.png,a,b\n", "has label more than once in its header"),
        (
            "name,label\n0.png,a\n",
            "has no column file_name; it has name, label: say which names the pictures with --image-column",
        ),
        ("file_name,label\nhttps://a.b/0.png,a\n", r"names addresses, such as https://a\.b/0\.png: fetch the pictures first"),
        ("file_name,label\n9.png,a\n", r"none of the pictures that metadata\.csv names is in"),
        ("", "metadata.csv is empty"),
        ("file_name,kind\n0.png,a\n", None),
        ("file_name,one,two\n0.png,a,b\n", "say which of one, two holds the labels with --column"),
        ("\x00\x01\x02", "is no table of text"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(tmp_path: Path, content: str, told: str | None):
    put_images(tmp_path, ["0.png"])
    put(tmp_path / "metadata.csv", content)
    if told is None:
        assert open_dataset(tmp_path).column == "kind"
        return
    with pytest.raises(DataError, match=told) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_columns_can_be_named(tmp_path: Path):
    names = [f"{number}.png" for number in range(12)]
    put_images(tmp_path / "pics", names)
    lines = [f"pics/{name},{number % 3},x" for number, name in enumerate(names)]
    put(tmp_path / "list.csv", "\n".join(["photo file,kind,other", *lines]))
    data = open_dataset(tmp_path, column="kind", image_column="photo file")
    assert (data.labels, len(labels_of(data))) == (("0", "1", "2"), 12)
    with pytest.raises(DataError, match="no column 'size'; it has kind, other: name that of the labels with --column"):
        open_dataset(tmp_path, column="size", image_column="photo file")
    with pytest.raises(DataError, match="no table with a column 'pic'"):
        open_dataset(tmp_path, image_column="pic")


def test_tables_name_files_in_many_ways(tmp_path: Path):
    put_images(tmp_path / "train", ["a.png", "b.png", "über.png"])
    put_images(tmp_path / "val", ["c.png", "d.png"])
    nfd = unicodedata.normalize("NFD", "train/über.png")
    rows = ["train\\a.png,x", "train/b,y", f"{nfd},x", "./val/c.png,y", "val/d.png,x"]
    put(tmp_path / "metadata.csv", "\n".join(["file_name,label", *rows]))
    data = open_dataset(tmp_path)
    assert data.splits == ("train", "val")
    assert labels_of(data) == {
        "train/a.png": "x",
        "train/b.png": "y",
        "train/über.png": "x",
        "val/c.png": "y",
        "val/d.png": "x",
    }


def test_a_table_for_each_split_or_a_column_of_splits(tmp_path: Path):
    names = [f"{number}.png" for number in range(6)]
    put_images(tmp_path / "one", names)
    for split, part in (("train", names[:4]), ("validation", names[4:])):
        put(tmp_path / "one" / f"{split}.csv", "\n".join(["image_id,label", *(f"{name[:-4]},{name[:-4]}x" for name in part)]))
    data = open_dataset(tmp_path / "one")
    assert [len(data.read(split)) for split in data.splits] == [4, 2]
    put_images(tmp_path / "two", names)
    rows = [f"{name},{'val' if number > 3 else 'train'},{number % 2}" for number, name in enumerate(names)]
    put(tmp_path / "two" / "metadata.csv", "\n".join(["file_name,split,label", *rows]))
    data = open_dataset(tmp_path / "two")
    assert (data.splits, data.labels) == (("train", "val"), ("0", "1"))


def test_json_lines_keep_their_types_and_broken_ones_are_told(tmp_path: Path):
    put_images(tmp_path, ["0.png", "1.png", "2.png"])
    lines = ['{"file_name": "0.png", "label": "NA"}', "{broken", '{"file_name": "1.png", "label": "null"}']
    put(tmp_path / "metadata.jsonl", "\n".join(lines))
    data = open_dataset(tmp_path)
    assert data.labels == ("NA", "null")
    assert data.notes[0].startswith("2 files were not used: line 2 of metadata.jsonl (no JSON object); 2.png")


def test_too_many_or_too_long_names_are_refused(tmp_path: Path):
    put_images(tmp_path, ["0.png"])
    rows = [f"0.png,id{number}" for number in range(1001)]
    put(tmp_path / "metadata.csv", "\n".join(["file_name,label", *rows]))
    with pytest.raises(DataError, match="holds 1001 different names, over 1000: name the labels' column with --column"):
        open_dataset(tmp_path)
    put(tmp_path / "metadata.csv", f"file_name,label\n0.png,{'x' * 5000}\n")
    with pytest.raises(DataError, match="a label of 5000 characters, over 100") as caught:
        open_dataset(tmp_path)
    assert len(str(caught.value)) <= 300

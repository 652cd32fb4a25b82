"""Folders as people have them: nested, linked, with odd endings and what systems leave behind; nothing vanishes in silence."""

import os
from pathlib import Path

import pytest
from layouts import encoded, put, put_images

from lora_lab.data import files as files_module
from lora_lab.data import find_pictures, listening, open_dataset
from lora_lab.data.report import Report
from lora_lab.errors import DataError, NotFoundError

pytestmark = pytest.mark.usefixtures("own_cache")
SIX = [f"{number}.png" for number in range(6)]


def labels_by_name(folder: Path) -> dict[str, str]:
    data = open_dataset(folder)
    splits = [data.read(name) for name in data.splits]
    return {name: label for split in splits for name, label in zip(split.names, split.columns["label"], strict=True)}


def test_folders_below_a_class_belong_to_it(tmp_path: Path):
    put_images(tmp_path / "rose" / "day1", SIX)
    put_images(tmp_path / "rose", ["a.png"])
    put_images(tmp_path / "tulip" / "day2" / "noon", SIX)
    data = open_dataset(tmp_path)
    assert data.labels == ("rose", "tulip")
    assert labels_by_name(tmp_path)["rose/day1/0.png"] == "rose"
    assert data.notes == ("taken as the classes: rose, tulip; folders below belong to them, such as rose/day1, tulip/day2",)


@pytest.mark.parametrize(
    ("places", "labels", "splits"),
    [
        (["train/rose/day1", "train/tulip", "val/rose/day3", "val/tulip"], ("rose", "tulip"), ("train", "val")),
        (["rose/train", "rose/valid", "tulip/train", "tulip/valid"], ("rose", "tulip"), ("train", "val")),
        (["flowers/rose", "flowers/tulip"], ("rose", "tulip"), ("train", "val", "test")),
        (
            ["set/Training/rose", "set/Training/tulip", "set/eval/rose", "set/eval/tulip"],
            ("rose", "tulip"),
            ("train", "val", "test"),
        ),
        (["train/images/rose", "train/images/tulip"], ("rose", "tulip"), ("train", "val", "test")),
        (["car/day1", "ship/day1", "train/day2"], ("car", "ship", "train"), ("train", "val", "test")),
    ],
)
def test_what_nested_folders_mean(tmp_path: Path, places: list[str], labels: tuple, splits: tuple):
    for place in places:
        put_images(tmp_path / place, SIX)
    data = open_dataset(tmp_path)
    assert (data.labels, data.splits) == (labels, splits)
    assert sum(len(data.read(split)) for split in data.splits) == 6 * len(places)


def test_links_are_followed_once_and_broken_ones_told(tmp_path: Path):
    put_images(tmp_path / "store" / "red", SIX)
    put_images(tmp_path / "data" / "tulip", SIX)
    data = tmp_path / "data"
    (data / "rose").symlink_to(tmp_path / "store" / "red")
    (data / "tulip" / "up").symlink_to(data)
    (data / "tulip" / "root").symlink_to("/")
    (data / "tulip" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (data / "tulip" / "seven.png").symlink_to(tmp_path / "store" / "red" / "0.png")
    (data / "a_tulip").symlink_to(data / "tulip")
    found = open_dataset(data)
    assert found.labels == ("rose", "tulip")
    assert sum(len(found.read(split)) for split in found.splits) == 13
    assert found.notes[0] == (
        "4 files were not used: tulip/gone.png (a broken link); a_tulip, tulip/root, tulip/up (a folder that is read already)"
    )


def test_a_folder_that_leads_into_itself_ends(tmp_path: Path):
    put_images(tmp_path / "rose", SIX)
    put_images(tmp_path / "tulip", SIX)
    (tmp_path / "rose" / "loop").symlink_to(tmp_path / "tulip")
    (tmp_path / "tulip" / "loop").symlink_to(tmp_path / "rose")
    assert len(labels_by_name(tmp_path)) == 12


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jfif", "JPEG"), ("a.JPG", "JPEG"), ("a.avif", "AVIF"), ("noending", "PNG"), ("a.jpg", "PNG"), ("a.dat", "WEBP")],
)
def test_what_pillow_reads_is_a_picture_whatever_it_is_called(tmp_path: Path, name: str, kind: str):
    put_images(tmp_path / "rose", SIX)
    for number in range(3):
        put(tmp_path / "daisy" / f"{number}{name}", encoded((9 * number, 5, 200), kind=kind))
    assert open_dataset(tmp_path).labels == ("daisy", "rose")
    assert len(find_pictures(tmp_path)) == 9


def test_a_class_whose_pictures_all_need_pillow_heif_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "formats", lambda: ("JPEG", "PNG"))
    stub = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300)
    for number in range(2):
        put(tmp_path / "daisy" / f"{number}.HEIC", stub)
    put_images(tmp_path / "rose", SIX)
    told = (
        r"none of the 2 pictures of the class daisy can be used: daisy/0\.HEIC, daisy/1\.HEIC \(needs pillow-heif\): install it"
    )
    with pytest.raises(DataError, match=told):
        open_dataset(tmp_path)
    put_images(tmp_path / "daisy", SIX)
    assert open_dataset(tmp_path).notes == ("2 files were not used: daisy/0.HEIC, daisy/1.HEIC (needs pillow-heif)",)
    put(tmp_path / "only" / "a.heic", stub)
    with pytest.raises(NotFoundError, match=r"no picture that can be read: a\.heic needs pillow-heif: install it"):
        open_dataset(tmp_path / "only")


def test_other_files_are_counted_and_named_a_few_at_a_time(tmp_path: Path):
    put_images(tmp_path / "rose", SIX)
    put_images(tmp_path / "tulip", SIX)
    for number in range(5):
        put(tmp_path / "rose" / f"{number}.txt", "note")
    put(tmp_path / "docs" / "read.me", "note")
    put_images(tmp_path, ["loose.png"])
    (tmp_path / "empty").mkdir()
    data = open_dataset(tmp_path)
    assert data.notes == (
        "7 files were not used: docs/read.me, rose/0.txt, rose/1.txt and 3 more (no picture); loose.png (in no class's folder)",
        "there is no picture in docs, so it is no class",
        "there is no picture in empty, so it is no class",
    )
    assert all(len(line) <= 300 for line in data.notes)


def test_what_systems_and_storage_boxes_leave_does_not_count(tmp_path: Path):
    put_images(tmp_path / "rose", SIX)
    put_images(tmp_path / "tulip", SIX)
    for name in (".ipynb_checkpoints", "@eaDir", ".thumbnails", "__MACOSX", "lost+found", "#recycle", "$RECYCLE.BIN"):
        put_images(tmp_path / name, SIX)
        put_images(tmp_path / "rose" / name, SIX)
    for name in ("Thumbs.db", "desktop.ini", "._0.png", ".DS_Store"):
        put(tmp_path / "tulip" / name, encoded())
    data = open_dataset(tmp_path)
    assert (data.labels, data.notes) == (("rose", "tulip"), ())
    assert len(labels_by_name(tmp_path)) == 12
    assert len(find_pictures(tmp_path)) == 12


def test_photos_without_labels_are_found_alike_and_the_rest_is_told(tmp_path: Path):
    put_images(tmp_path / "deep" / "er", ["a.png"])
    put(tmp_path / "b.jfif", encoded(kind="JPEG"))
    put(tmp_path / "notes.txt", "note")
    told: list[str] = []
    with listening(told.append):
        assert [path.name for path in find_pictures(tmp_path)] == ["b.jfif", "a.png"]
        find_pictures(tmp_path)
    assert told == ["1 file was not used: notes.txt (no picture)"]
    put(tmp_path / "none" / "notes.txt", "note")
    with pytest.raises(DataError, match=r"no photos in .*; 1 file was not used: notes\.txt \(no picture\)"):
        find_pictures(tmp_path / "none")


def test_a_line_of_the_report_is_short_and_printable():
    report = Report()
    report.leave("x" * 500, "no picture")
    report.leave("new\nline", "a broken link")
    [line] = report.lines
    assert len(line) <= 300
    assert "\n" not in line
    assert line.startswith("2 files were not used: xxx")


def test_a_changed_file_of_the_same_size_and_time_is_another(tmp_path: Path):
    put_images(tmp_path / "rose", SIX)
    put_images(tmp_path / "tulip", SIX)
    path = tmp_path / "rose" / "0.png"
    before, time = open_dataset(tmp_path).read("train").stamp, path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(time, time))
    assert path.stat().st_mtime_ns == time
    assert open_dataset(tmp_path).read("train").stamp != before


def test_archives_are_refused_with_what_to_do(tmp_path: Path):
    put(tmp_path / "train-0000.tar", b"x")
    with pytest.raises(NotFoundError, match=r"\.tar files \(webdataset\), which are not read: unpack them"):
        open_dataset(tmp_path)

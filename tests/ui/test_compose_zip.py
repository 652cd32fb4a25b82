"""What the tab *New task* takes as a zip, and what it says about any other."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from lora_lab.composition import task_of_zip
from lora_lab.composition import zipped as reader
from lora_lab.composition.zipped import read_zip
from lora_lab.data import listening
from lora_lab.errors import DataError
from lora_lab.ui.boundary import with_notes


def image(red: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 30), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def good(count: int = 3, top: str = "") -> dict[str, bytes]:
    return {f"{top}{label}/{i}.png": image(red + i) for label, red in (("rose", 200), ("aster", 10)) for i in range(count)}


@pytest.mark.parametrize("top", ["", "flowers/"])
def test_folders_are_classes(top: str, tmp_path: Path):
    files = {**good(3, top), "__MACOSX/rose/._0.png": b"", f"{top}.DS_Store": b"x"}
    task, crops = read_zip(zipped(tmp_path / "flowers.zip", files), 28)
    assert (task.labels, task.kind, task.framing, task.source) == (("aster", "rose"), "classes", "square", "own data: flowers")
    assert crops.pixels.shape == (6, 28, 28, 3)
    reds = [int(red) for red in crops.pixels[:, 14, 14, 0]]
    assert sorted(zip(crops.targets.tolist(), reds, strict=True)) == [(0, 10), (0, 11), (0, 12), (1, 200), (1, 201), (1, 202)]


def test_an_image_of_each_class_is_held_out(tmp_path: Path):
    new = task_of_zip(zipped(tmp_path / "few.zip", good(3)), 28, shots=5)
    assert sorted(new.crops.targets.tolist()) == [0, 0, 1, 1]
    assert sorted(new.held_out.targets.tolist()) == [0, 1]
    more = task_of_zip(zipped(tmp_path / "more.zip", good(6)), 28, shots=2)
    assert (len(more.crops), len(more.held_out)) == (4, 8)


FAULTY = {
    "outside": ({**good(), "../rose/3.png": image(1)}, "outside of itself"),
    "inside and out": ({**good(), "rose/../../3.png": image(1)}, "outside of itself"),
    "absolute": ({**good(), "/tmp/rose/3.png": image(1)}, "outside of itself"),
    "one class": ({"rose/1.png": image(1), "rose/2.png": image(2)}, "holds 1 classes"),
    "one image": ({**good(), "lily/1.png": image(1)}, "fewer of lily"),
    "empty": ({}, "holds 0 classes"),
}


def test_what_is_no_picture_is_named_and_the_rest_goes_on(tmp_path: Path):
    odd = {"rose/notes.txt": b"x", "3.png": image(1), "aster/3.png": b"no image", "rose/red/4.png": image(9)}
    system = {"rose/Thumbs.db": b"x", "rose/.DS_Store": b"x", "rose/@eaDir/0.png": image(1), "__MACOSX/rose/._0.png": b""}
    said: list[str] = []
    with listening(said.append):
        task, crops = read_zip(zipped(tmp_path / "odd.zip", {**good(), **odd, **system}), 28)
    assert task.labels == ("aster", "rose")
    assert sorted(crops.targets.tolist()) == [0, 0, 0, 1, 1, 1, 1]
    assert len(said) == 1
    assert said[0].startswith("3 files were not used: rose/notes.txt (no picture); 3.png (in no class's folder); aster/3.png (")
    assert with_notes("**Added.**", said).count("\n") == 2
    assert with_notes("**Added.**", []) == "**Added.**"


@pytest.mark.parametrize("name", FAULTY)
def test_what_is_no_such_zip_is_told_in_one_line(name: str, tmp_path: Path):
    files, said = FAULTY[name]
    with pytest.raises(DataError, match=said) as told:
        read_zip(zipped(tmp_path / "faulty.zip", files), 28)
    assert "\n" not in str(told.value)


def test_what_is_no_zip_at_all_is_told(tmp_path: Path):
    path = tmp_path / "image.zip"
    path.write_bytes(image(1))
    with pytest.raises(DataError, match=r"image\.zip is no zip"):
        read_zip(path, 28)


def test_a_damaged_zip_is_told(tmp_path: Path):
    path = zipped(tmp_path / "damaged.zip", good())
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT")
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(DataError, match="no zip that can be read"):
        read_zip(path, 28)


def test_too_much_is_told_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "MOST_BYTES", 300)
    monkeypatch.setattr(reader, "_framed", lambda *given: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match="take at most"):
        read_zip(zipped(tmp_path / "large.zip", good()), 28)

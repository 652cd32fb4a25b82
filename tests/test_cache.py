"""What is written appears whole or not at all."""

import os
from pathlib import Path

import pytest

from lora_lab.cache import whole_folder
from lora_lab.errors import LoraLabError


def fill(part: Path) -> None:
    (part / "a.txt").write_text("new")
    (part / "within").mkdir()
    (part / "within" / "b.txt").write_text("new")


def fail_after(part: Path, error: BaseException) -> None:
    fill(part)
    raise error


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["a.txt", "within", "within/b.txt"]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_whole(there: bool, tmp_path: Path):
    place = tmp_path / "up" / "out"
    if there:
        place.mkdir(parents=True)
    with whole_folder(place) as part:
        fill(part)
        assert not place.exists() or not (place / "a.txt").exists()
    assert listed(tmp_path) == ["up", "up/out", *(f"up/out/{name}" for name in WHOLE)]
    assert place.stat().st_mode & 0o555 == 0o555, "others may read it"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_and_a_second_try_works(there: bool, error: BaseException, tmp_path: Path):
    place = tmp_path / "out"
    if there:
        place.mkdir()
        (place / "mine.txt").write_text("old")
    before = listed(tmp_path)
    told = LoraLabError if isinstance(error, OSError) else type(error)
    with pytest.raises(told), whole_folder(place) as part:
        fail_after(part, error)
    assert listed(tmp_path) == before
    with whole_folder(place) as part:
        fill(part)
    assert set(WHOLE) <= set(listed(place))


def test_what_else_lies_there_stays(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("old")
    (tmp_path / "a.txt").write_text("old")
    with whole_folder(tmp_path) as part:
        fill(part)
    assert listed(tmp_path) == sorted([*WHOLE, "mine.txt"])
    assert (tmp_path / "mine.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_move_that_fails_takes_back_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("old")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "within":
            raise OSError("no more space")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(LoraLabError, match="no more space"), whole_folder(tmp_path) as part:
        fill(part)
    assert listed(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_a_file_is_no_folder(place: str, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LoraLabError, match="is a file: name another folder"), whole_folder(tmp_path / place):
        pass
    assert (tmp_path / "file").read_text() == "mine"

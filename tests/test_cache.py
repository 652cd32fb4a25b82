"""Files and folders get to their place whole or not at all."""

from pathlib import Path

import pytest

from lora_lab.cache import whole_folder


def test_a_folder_comes_whole(tmp_path: Path):
    with whole_folder(tmp_path / "out" / "deep") as part:
        (part / "a").write_text("1")
        assert not (tmp_path / "out" / "deep").exists()
    assert (tmp_path / "out" / "deep" / "a").read_text() == "1"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["deep"]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_one_that_broke_off(there: bool, tmp_path: Path):
    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    def break_off() -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "a").write_text("1")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        break_off()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_in_a_folder_already_stays(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with whole_folder(tmp_path / "out") as part:
        (part / "a").write_text("1")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"mine": "mine", "a": "1"}

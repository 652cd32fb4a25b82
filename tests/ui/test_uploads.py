"""Photos do not outlive what the page promises: neither a visit, nor the server, nor one that was killed."""

import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from browser import served  # pyright: ignore[reportMissingImports] (beside this file)
from conftest import PORTRAIT
from filelock import FileLock
from PIL import Image
from visitor import Visitor  # pyright: ignore[reportMissingImports] (beside this file)

from lora_lab import ui
from lora_lab.ui import uploads

SOON = 15
FORGETFUL = (sys.executable, "-c", f"from lora_lab import cli, ui; ui.HOUR = {SOON}; cli.main()")


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def break_off_an_upload(url: str) -> None:
    """Send half of a photo, and hang up."""
    host, port = url.removeprefix("http://").split(":")
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="half.jpg"\r\n\r\n' + PORTRAIT.read_bytes()[:9000]
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"Content-Length: 90000\r\n\r\n" + body)
        time.sleep(1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A portrait that is none of the examples, which stay."""
    path = tmp_path / "portrait.png"
    with Image.open(PORTRAIT) as image:
        image.crop((100, 0, 400, 300)).save(path)
    return path


def test_nothing_of_a_visit_stays_and_nothing_at_all_once_the_server_is_stopped(
    adapters_root: Path, own_cache: Path, photo: Path
):
    with served("--backbone", "tiny", "--adapters-root", str(adapters_root), command=FORGETFUL) as url:
        (folder,) = (path for path in (own_cache / "uploads").iterdir() if path.is_dir())
        examples = files(folder)
        break_off_an_upload(url)
        with Visitor(url) as visitor:
            sent = Path(visitor.upload(photo))
            assert folder in sent.parents
            visitor.ask()
        # The photo, the half one, and the picture that was drawn of it.
        assert len(files(folder) - examples) >= 3
        deadline = time.monotonic() + 90
        while files(folder) - examples and time.monotonic() < deadline:
            time.sleep(1)
        assert files(folder) == examples
        with Visitor(url) as visitor:
            visitor.upload(photo)
    assert not folder.exists()


def test_the_page_promises_no_more_than_the_two_hours_that_deleting_takes():
    assert "within two hours" in re.sub(r"\s+", " ", ui.NOTICE)
    # What has just missed one round goes in the next.
    assert 2 * ui.HOUR <= 2 * 60 * 60


def test_sweeping_takes_what_is_old_and_leaves_what_is_young_or_to_be_kept(tmp_path: Path):
    old, kept, young = (tmp_path / "a" / name for name in ("old", "kept", "young"))
    old.parent.mkdir()
    for path in (old, kept):
        path.write_bytes(b"photo")
    time.sleep(0.3)
    young.write_bytes(b"photo")
    uploads.sweep(tmp_path, 0.2, {str(kept)})
    assert files(tmp_path) == {kept, young}


def test_what_a_killed_server_left_goes_when_the_next_one_starts(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))
    monkeypatch.setattr(uploads.gr.mcp, "DEFAULT_TEMP_DIR", "")
    left, living = own_cache / "uploads" / "left", own_cache / "uploads" / "living"
    for folder in (left, living):
        folder.mkdir(parents=True)
        (folder / "photo.jpg").write_bytes(b"photo")
    with FileLock(f"{living}.lock"):
        with uploads.own_folder() as own:
            (own / "photo.jpg").write_bytes(b"photo")
            assert os.environ["GRADIO_TEMP_DIR"] == str(own)
            assert not left.exists()
        assert not own.exists()
        assert files(living) == {living / "photo.jpg"}

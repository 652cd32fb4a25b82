"""A machine that refuses: full disks, places for reading only, proxies, taken ports. One line each, nothing half-written."""

import errno
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from lora_lab.cache import cache_folder, whole_file, whole_folder
from lora_lab.errors import LoraLabError
from lora_lab.ui.address import free_port, port_of, reach_oneself

ROOT = Path(__file__).parent.parent
REFUSALS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]


def command(*words: object, **environment: str) -> subprocess.CompletedProcess:
    """`python -m lora_lab` with these words, in an environment with these changes."""
    return subprocess.run(
        [sys.executable, "-m", "lora_lab", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def fill(path: Path, number: int) -> None:
    (path / "a" if path.is_dir() else path).write_text("half")
    raise OSError(number, os.strerror(number), str(path))


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_what_the_system_refuses_is_one_line_and_leaves_nothing(writer, number: int, tmp_path: Path):
    def write() -> None:
        with writer(tmp_path / "out") as part:
            fill(part, number)

    with pytest.raises(LoraLabError, match=os.strerror(number)) as told:
        write()
    assert str(tmp_path / "out") in str(told.value)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_a_checkpoint_is_one_line(tmp_path: Path):
    def write() -> None:
        with whole_file(tmp_path / "run.pt") as part:
            part.unlink()
            part.symlink_to("/dev/full")
            torch.save({"weights": torch.zeros(100_000)}, part)

    with pytest.raises(LoraLabError) as told:
        write()
    assert "cannot be written (torch could not write all of it): free some space" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_line_names_the_place_that_was_asked_for(tmp_path: Path):
    def write() -> None:
        with whole_folder(tmp_path / "out") as part, whole_file(part / "a.json"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LoraLabError) as told:
        write()
    assert str(told.value).startswith(f"{tmp_path}/out/a.json cannot be written (No space left on device)")


def test_a_cache_that_cannot_be_made_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "file"))
    places = [cache_folder("adapters"), cache_folder("merges"), cache_folder("adapters", "deep")]
    assert [record.message for record in caplog.records] == [
        f"the cache {tmp_path}/file cannot be made (Not a directory), so {places[0].parent} stands in until the program ends"
    ]
    assert all(place.is_dir() for place in places)


def test_a_full_disk_under_tensors_is_one_line(tmp_path: Path):
    def write() -> None:
        with whole_folder(tmp_path / "out"):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(LoraLabError, match=r"No space left on device.*free some space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_the_system_is_one_line(tmp_path: Path):
    def write() -> None:
        with whole_file(tmp_path / ("x" * 300)) as part:
            part.write_text("")

    with pytest.raises(LoraLabError, match="shorter name"):
        write()


def test_a_cache_that_cannot_be_made_is_replaced_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        folder = cache_folder("adapters")
    assert folder.is_dir()
    assert folder == cache_folder("adapters")
    assert "cannot be made" in caplog.text


def test_the_command_says_it_in_one_line(tmp_path: Path, adapters_root: Path):
    portrait = ROOT / "assets" / "examples" / "hubble_spiral.jpg"
    tiny = ("--backbone", "tiny", "--adapters-root", adapters_root)
    (tmp_path / "file").write_text("mine")
    done = command("merge", tmp_path / "file" / "out", "--adapters", "emotion=1", *tiny)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "is a file" in done.stderr
    done = command("predict", portrait, "--adapters", "galaxy=1", "--csv", tmp_path / "none" / "a.csv", *tiny)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_few_letters_and_an_impatient_reader_raise_nothing(adapters_root: Path):
    done = command("methods", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    line = f"{sys.executable} -m lora_lab methods | head -n 1"
    cut = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in cut.stderr


def test_a_taken_port_and_an_unknown_host_are_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LoraLabError, match=rf"port {port} .*--port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", 0) > 0
    for host in ("no.such.host.invalid", "256.1.1.1", "\0", "x" * 300):
        with pytest.raises(LoraLabError, match="--host"):
            free_port(host, port)


@pytest.mark.parametrize("text", ["x", "-1", "65536", "1e3", "80 80"])
def test_a_port_in_the_environment_that_is_none_is_one_line(text: str):
    with pytest.raises(LoraLabError, match="GRADIO_SERVER_PORT"):
        port_of({"GRADIO_SERVER_PORT": text})
    assert port_of({}) == port_of({"GRADIO_SERVER_PORT": " "}) == 7860


def test_no_proxy_stands_before_the_page_itself(monkeypatch: pytest.MonkeyPatch):
    import httpx

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "mine.example")
    with pytest.raises(ValueError, match="Unknown scheme"):
        httpx.Client()
    reach_oneself()
    assert os.environ["http_proxy"] == "http://127.0.0.1:1"  # others are still reached through it
    assert os.environ["no_proxy"] == "mine.example,127.0.0.1,localhost,::1"
    with socket.socket() as here, httpx.Client() as client:
        here.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{here.getsockname()[1]}/"
        transport = client._transport_for_url(httpx.URL(url))
    assert transport is client._transport

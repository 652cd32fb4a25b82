"""Mutated cards, settings, tensors and zips give an adapter that answers or short lines, soon, and read nothing else."""

import json
import os
import reprlib
import shutil
import struct
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from conftest import random_adapter
from fuzzing import fuzz
from hypothesis import strategies as st
from made_adapters import coloured
from mutations import anything, bounded, changed, names, reading_only, spoilt

from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import CARD, own_root, read_card
from lora_lab.composition.zipped import read_zip
from lora_lab.lab import Lab
from lora_lab.own_adapters import Offer, add, forget
from lora_lab.peft_files import CONFIG


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with everything that LoRA Lab writes of it."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    save_adapter(random_adapter(tiny, "galaxy", 4, 1), folder)
    return folder


CARD_FIELDS = {
    "calibration": {"n": 3, "temperature": 1.5, "low": -2.0, "high": 3.0},
    "gate": {"threshold": 0.5, "passed": 90.0},
}
SETTINGS = {
    "rank_pattern": {"layer.0.attention.attention.key": 4},
    "alpha_pattern": {"(a+)+$": 4, "layer.1": 8},
    "target_modules": "(x+x+)+y",
    "layers_to_transform": [0, 1],
    "modules_to_save": ["head"],
    "use_rslora": True,
    "init_lora_weights": "pissa",
    "bias": "all",
}


def in_header(change: Callable[[Any], st.SearchStrategy[Any]], data: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file whose header says other things."""
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]

    def joined(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + rest

    return change(header).map(joined)


class Files(dict[str, bytes]):
    """Files by name, told shortly."""

    def __repr__(self) -> str:
        return f"Files({reprlib.repr({name: data[:200] for name, data in self.items()})})"


def folders(whole: Path) -> st.SearchStrategy[Files]:
    """The files of an adapter, one or more of them changed."""
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    kinds: list[st.SearchStrategy[dict[str, bytes]]] = []
    for name, data in files.items():
        kinds.append(spoilt(data).map(lambda new, name=name: {name: new}))
        kinds.append(
            st.sampled_from((b"", b"{}", b"[]", b"null", b"[" * 99_999, data.decode("latin-1").encode("utf-16"))).map(
                lambda new, name=name: {name: new}
            )
        )
        if name.endswith(".safetensors"):
            kinds.append(in_header(changed, data).map(lambda new, name=name: {name: new}))
    card = json.loads(files[CARD]) | CARD_FIELDS
    config = json.loads(files[CONFIG])
    kinds.append(changed(card).map(lambda value: {CARD: json.dumps(value).encode("utf-8", "replace")}))
    kinds.append(changed(config).map(lambda value: {CONFIG: json.dumps(value).encode("utf-8", "replace")}))
    some = st.dictionaries(st.sampled_from(sorted(SETTINGS)), anything, max_size=3)
    kinds.append(some.map(lambda more: {CONFIG: json.dumps(config | {k: SETTINGS[k] for k in more}).encode()}))
    kinds.append(some.map(lambda more: {CONFIG: json.dumps(config | more).encode()}))
    return st.one_of(kinds).map(lambda new: Files(files | new))


def forget_all() -> None:
    for left in list(own_root().glob("tiny/*")):
        forget("tiny", left.name)


def test_adapters(own_cache: Path, whole: Path, tmp_path: Path):
    lab = Lab("tiny")
    place = tmp_path / "given"

    def check(files: dict[str, bytes]) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, data in files.items():
            (place / name).write_bytes(data)
        try:
            with bounded(), reading_only(own_cache, tmp_path):
                card = add(lab, Offer(str(place), "mine"))
                adapter = lab.adapter("mine", card.rank)
                assert all(pair.delta().isfinite().all() for pair in adapter.factors.values())
                assert [one.name for one in Lab("tiny").cards()] == ["mine"]
                assert lab.tasks()["mine"].name == "mine"
        finally:
            forget_all()
        assert not list(own_root().rglob("*.json"))

    assert fuzz("adapters", folders(whole), check) > 5


def test_cards_on_disk(tiny: Backbone, own_cache: Path, whole: Path):
    folder = own_root() / "tiny" / "galaxy" / "r4"
    shutil.copytree(whole, folder)
    card = json.loads((folder / CARD).read_text()) | CARD_FIELDS

    def check(value: Any) -> None:
        (folder / CARD).write_text(json.dumps(value), encoding="utf-8", errors="replace")
        os.utime(folder / CARD, ns=(0, time.monotonic_ns()))
        with bounded(), reading_only(own_cache, folder):
            for one in Lab("tiny").cards():
                one.load_task()
        with bounded():
            read_card(folder)

    assert fuzz("cards", changed(card), check) > 20


@st.composite
def zips(draw: st.DrawFn, files: dict[str, bytes]) -> bytes:
    """A zip of these files with others among them, under odd names, as links, locked, packed otherwise, and spoilt."""
    stream = BytesIO()
    how = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, data in files.items():
            if draw(st.integers(0, 9)):
                archive.writestr(name, data)
        for _ in range(draw(st.integers(0, 3))):
            odd = st.sampled_from(
                ("../x", "/x", "C:x", "a\\b", "./adapter_config.json", "a/adapter_config.json", "x/", "..", "a" * 999)
            )
            info = zipfile.ZipInfo(
                draw(st.one_of(odd, names.filter(lambda one: one.isprintable() and one), st.sampled_from(sorted(files))))
            )
            info.external_attr = draw(st.sampled_from((0, 0o120777 << 16, 0o100644 << 16)))
            archive.writestr(info, draw(st.sampled_from((b"", b"x", bytes(3_000_000), *files.values()))))
    data = stream.getvalue()
    end = data.rindex(b"PK\x05\x06")
    start = data.find(b"PK\x01\x02")
    return data[:start] + draw(spoilt(data[start:end])) + data[end:] if draw(st.booleans()) else draw(spoilt(data))


def test_zips_of_adapters(own_cache: Path, whole: Path, tmp_path: Path):
    lab = Lab("tiny")
    path = tmp_path / "given.zip"
    files = {path.name: path.read_bytes() for path in whole.iterdir()}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            with bounded(), reading_only(own_cache, tmp_path, Path(tempfile.gettempdir()) / "lora-lab-"):
                assert add(lab, Offer(str(path), "mine")).name == "mine"
        finally:
            forget_all()

    with _quiet():
        assert fuzz("zips of adapters", zips(files), check) > 5


def test_zips_of_pictures(tmp_path: Path):
    path = tmp_path / "given.zip"
    files = {f"{colour}/{i}.png": coloured(channel, i) for channel, colour in enumerate(("red", "green")) for i in range(2)}

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with bounded(), reading_only(tmp_path):
            task, crops = read_zip(path, 16)
            assert len(crops) >= len(task.labels) > 1

    with _quiet():
        assert fuzz("zips of pictures", zips(files), check) > 5


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice in a zip
        yield

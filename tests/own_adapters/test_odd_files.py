"""Odd adapters are taken where that does no harm, else refused in lines; and one on disk that is broken stops nothing else."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import random_adapter
from safetensors.torch import load_file, save_file

from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cards import own_root
from lora_lab.errors import LONGEST, LoraLabError, NotFoundError
from lora_lab.lab import Lab
from lora_lab.merging import MERGE_METHODS, RecipeAdapter
from lora_lab.own_adapters import Offer, add, forget
from lora_lab.peft_files import CONFIG, FACTORS
from lora_lab.photos import Photo

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 99\n"
Change = Callable[[Path], object]


@pytest.fixture
def lab(own_cache: Path) -> Lab:
    """A lab that has no adapters but the user's own."""
    return Lab("tiny")


@pytest.fixture
def whole(tiny: Backbone, tmp_path: Path) -> Path:
    """An adapter with everything that LoRA Lab writes of it."""
    save_adapter(random_adapter(tiny, "galaxy", 4, 1), tmp_path / "whole")
    return tmp_path / "whole"


def settings(text: str) -> Change:
    """The configuration with these fields, as they stand in JSON."""

    def change(folder: Path) -> None:
        found = (folder / CONFIG).read_text().rstrip().removesuffix("}")
        (folder / CONFIG).write_text(f"{found}, {text}}}")

    return change


def card(text: str) -> Change:
    def change(folder: Path) -> None:
        found = (folder / "card.json").read_text().rstrip().removesuffix("}")
        (folder / "card.json").write_text(f"{found}, {text}}}")

    return change


def content(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data)


def tensors(change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Change:
    def apply(folder: Path) -> None:
        save_file(dict(change(*pair) for pair in load_file(folder / FACTORS).items()), folder / FACTORS)

    return apply


def only_b(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return tensors(lambda name, tensor: (name, change(tensor) if "lora_B" in name else tensor))


def renamed(old: str, new: str) -> Change:
    return tensors(lambda name, tensor: (name.replace(old, new), tensor))


HARMLESS: dict[str, Change] = {
    "all B are zero": only_b(torch.zeros_like),
    "half precision": only_b(torch.Tensor.half),
    "double precision": only_b(torch.Tensor.double),
    "float8": only_b(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "in a parallel module": renamed("base_model.model.", "base_model.model.module."),
    "compiled": renamed("base_model.model.", "_orig_mod.base_model.model._orig_mod."),
    "prefix twice": renamed("base_model.model.", "base_model.model.base_model.model."),
    "no prefix": renamed("base_model.model.", ""),
    "the adapter's name within": tensors(lambda name, tensor: (name.replace(".weight", ".default.weight"), tensor)),
    "byte order mark": lambda folder: (folder / CONFIG).write_bytes(b"\xef\xbb\xbf" + (folder / CONFIG).read_bytes()),
    "alpha as a float": settings('"lora_alpha": 4.0'),
}
REFUSED: dict[str, Change] = {
    "alpha too large for float": settings(f'"lora_alpha": 1{"0" * 400}'),
    "alpha 1e308": settings('"lora_alpha": 1e308'),
    "alpha nan": settings('"lora_alpha": NaN'),
    "alpha true": settings('"lora_alpha": true'),
    "alpha negative": settings('"lora_alpha": -1'),
    "rank zero": settings('"r": 0'),
    "rank text": settings('"r": "four"'),
    "many patterns": settings('"alpha_pattern": {' + ", ".join(f'"l{i}": 1' for i in range(60_000)) + "}"),
    "pattern list": settings('"rank_pattern": [1]'),
    "deep settings": content(CONFIG, b"[" * 100_000),
    "no settings": content(CONFIG, b""),
    "utf-16": lambda folder: (folder / CONFIG).write_text((folder / CONFIG).read_text(), encoding="utf-16"),
    "settings pointer": content(CONFIG, POINTER),
    "factors pointer": content(FACTORS, POINTER),
    "factors cut": content(FACTORS, b"\x10\0\0\0\0\0\0\0{"),
    "factors empty": content(FACTORS, b""),
    "huge header": content(FACTORS, b"\xff" * 64),
    "huge B": only_b(lambda tensor: torch.full_like(tensor, 3e38)),
    "infinite B": only_b(lambda tensor: tensor / 0),
    "whole numbers": only_b(lambda tensor: tensor.to(torch.int8)),
    "seconds 1e400": card('"seconds": 1e400'),
    "seconds nan": card('"seconds": NaN'),
    "temperature 1e-300": card('"calibration": {"n": 50, "temperature": 1e-300}'),
    "temperature 1e300": card('"calibration": {"n": 50, "temperature": 1e300}'),
    "temperature negative": card('"calibration": {"n": 50, "temperature": -1}'),
    "temperature zero": card('"calibration": {"n": 50, "temperature": 0}'),
    "gate beyond a cosine": card('"gate": {"threshold": 5, "passed": 95}'),
    "deep card": content("card.json", b"[" * 100_000),
    "card pointer": content("card.json", POINTER),
    "head pointer": content("head.safetensors", POINTER),
    "task of another form": card('"own_task": {"name": 3}'),
    "name that leads out": card('"name": "../emotion"'),
    "factors that lead out": card('"factors": "../../emotion/r16"'),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_does_no_harm_is_taken(change: Change, lab: Lab, whole: Path):
    plain = lab.backbone
    change(whole)
    found = add(lab, Offer(str(whole), "mine"))
    adapter = lab.adapter("mine", found.rank)
    assert set(adapter.factors) == set(plain.target_modules)
    assert [one.name for one in Lab("tiny").cards()] == ["mine"]


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_what_would_do_harm_is_refused_in_lines_and_leaves_nothing(change: Change, lab: Lab, whole: Path):
    change(whole)
    with pytest.raises(LoraLabError) as told:
        add(lab, Offer(str(whole), "mine"))
    lines = str(told.value).splitlines()
    assert 0 < len(lines) < 8
    assert all(len(line) <= LONGEST + 2 for line in lines)
    assert str(whole) not in str(told.value)
    assert lab.cards() == []
    assert not list(own_root().rglob("*.json"))


SPOILT: dict[str, Change] = {
    "card": content("card.json", b"{"),
    "card of another": card('"name": "other"'),
    "endless card": lambda folder: (folder / "card.json").write_text(
        json.dumps(json.loads((folder / "card.json").read_text()) | {"seconds": float("inf")})
    ),
    "settings": content(CONFIG, b"{}"),
    "factors": content(FACTORS, b""),
    "head": content("head.safetensors", b""),
    "statistics": content("statistics.safetensors", b""),
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda head: head | {"output.bias": torch.zeros(99)}, r"output.bias has the shape \(99,\) and must have \(4,\)"),
        (lambda head: head | {"more": torch.zeros(1)}, "more is unknown, it takes "),
        (lambda head: {name: head[name] for name in head if name != "output.bias"}, "output.bias is missing, it takes "),
        (lambda head: {name: tensor.to(torch.complex64) for name, tensor in head.items()}, "holds complex numbers; save it"),
    ],
    ids=["shape", "more", "fewer", "complex"],
)
def test_a_head_of_another_shape_is_refused_with_its_tensor(change: Callable, told: str, lab: Lab, whole: Path):
    save_file(change(load_file(whole / "head.safetensors")), whole / "head.safetensors")
    with pytest.raises(LoraLabError, match=rf"head.safetensors is no head for galaxy: .*{told}"):
        add(lab, Offer(str(whole), "mine"))


@pytest.mark.parametrize("name", [CONFIG, FACTORS, "card.json"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(name: str, lab: Lab, whole: Path):
    (whole / name).unlink()
    os.mkfifo(whole / name)
    with pytest.raises(LoraLabError, match=rf"^{name} of whole is no regular file: put the adapter's own file in its place$"):
        add(lab, Offer(str(whole), "mine"))
    assert not lab.cards()


def test_a_folder_has_the_same_limits_as_a_zip(lab: Lab, whole: Path):
    with (whole / "head.safetensors").open("ab") as file:
        file.truncate(200_000_001)
    with pytest.raises(LoraLabError, match=r"^whole holds 4 files of 200 MB together: an adapter has at most 100 and 200 MB$"):
        add(lab, Offer(str(whole), "mine"))


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_one_that_broke_on_disk_is_left_out_and_the_others_answer(
    change: Change, lab: Lab, whole: Path, caplog: pytest.LogCaptureFixture
):
    add(lab, Offer(str(whole), "good"))
    add(lab, Offer(str(whole), "bad"))
    change(next(own_root().glob("tiny/bad/*")))
    with caplog.at_level(logging.WARNING):
        later = Lab("tiny")
        assert [one.name for one in later.cards()] == ["good"]
        later.cards()
    assert len([record for record in caplog.records if "left out" in record.message]) <= 1
    assert later.ranks() == {"good": [4]}
    photo = Photo.read(Path("assets/examples/hubble_spiral.jpg"))
    assert later.predict(photo, later.uniform()).prediction.photo.predictions.keys() == {"good"}
    forget("tiny", "bad")
    assert not list(own_root().glob("tiny/bad"))
    forget("tiny", "good")
    assert Lab("tiny").cards() == []


@pytest.mark.parametrize("name", ["../good", "/etc", "", ".", "..", "x" * 300, "a\0b", "tiny/good", "good/"])
def test_nothing_is_forgotten_by_a_name_that_is_none(name: str, lab: Lab, whole: Path):
    add(lab, Offer(str(whole), "good"))
    with pytest.raises(NotFoundError):
        forget("tiny", name)
    with pytest.raises(LoraLabError):
        add(lab, Offer(str(whole), name))
    assert [one.name for one in lab.cards()] == ["good"]


@pytest.mark.parametrize("method", [one.name for one in MERGE_METHODS.values() if one.needs == "nothing"])
def test_every_method_takes_an_adapter_that_changes_nothing(method: str, adapters_root: Path, tiny: Backbone, tmp_path: Path):
    root = tmp_path / "root"
    shutil.copytree(adapters_root, root)
    only_b(torch.zeros_like)(root / "tiny" / "galaxy" / "r16")
    lab = Lab("tiny", root)
    recipe = lab.recipe([RecipeAdapter(name="galaxy"), RecipeAdapter(name="emotion")]).model_copy(update={"method": method})
    assert all(delta.isfinite().all() for delta in lab.merger.merged(recipe).deltas.values())
    alone = lab.recipe([RecipeAdapter(name="galaxy")]).model_copy(update={"method": method})
    assert all(not delta.abs().max() for delta in lab.merger.merged(alone).deltas.values())

"""What is refused of the adapters that people bring, with every reason."""

import json
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import random_adapter
from huggingface_hub.errors import OfflineModeIsEnabled
from made_adapters import CONFIG, FACTORS, by_peft, coloured, files_of, write_paints, zipped
from safetensors.torch import load_file, save_file

from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.errors import DataError, LoraLabError, MismatchError
from lora_lab.lab import Lab
from lora_lab.own_adapters import Offer, add, sources
from lora_lab.tasks import TASKS


@pytest.fixture
def lab(own_cache: Path) -> Lab:
    """A lab that has no adapters but the user's own."""
    return Lab("tiny")


@pytest.fixture(scope="module")
def made(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_peft(tiny, tmp_path_factory.mktemp("made") / "mine")


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paints(tmp_path_factory.mktemp("paints") / "paints.zip")


@pytest.fixture
def whole(tiny: Backbone, tmp_path: Path) -> Path:
    """An adapter with everything that LoRA Lab writes of it."""
    save_adapter(random_adapter(tiny, "galaxy", 4, 1), tmp_path / "whole")
    return tmp_path / "whole"


def refused(lab: Lab, source: object, images: Path | None = None) -> list[str]:
    """The lines of a refusal; nothing was kept."""
    with pytest.raises(LoraLabError) as told:
        add(lab, Offer(str(source), "mine", images))
    assert lab.cards() == []
    return [line.strip() for line in str(told.value).splitlines()]


def settings(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(found))

    return change


def tensors(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / FACTORS)), folder / FACTORS)


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return tensors(lambda found: {name.replace(old, new): tensor for name, tensor in found.items()})


FAULTY = {
    "type": (settings(peft_type="IA3"), "peft's type IA3"),
    "DoRA": (settings(use_dora=True), "uses DoRA; only plain LoRA"),
    "bias": (settings(bias="all"), "uses trained biases"),
    "more modules": (settings(modules_to_save=["classifier"]), "uses modules saved beside LoRA"),
    "beginning": (settings(init_lora_weights="pissa"), "a beginning that changes the backbone"),
    "later peft": (settings(twisted=0.5), "the setting twisted, which is not known here"),
    "alpha": (settings(lora_alpha=float("nan")), "lora_alpha = nan"),
    "pattern": (settings(alpha_pattern={"(.*)*x": 2}), "alpha_pattern that is none of module names"),
    "rank": (settings(r=8), "has another rank than adapter_config.json says for encoder"),
    "query": (
        renamed("k_proj", "q_proj"),
        r"no target module named so in the backbone: encoder\.layer\.\*\.attention\.q_proj;",
    ),
    "shape": (tensors(lambda found: {n: t[:, :3].contiguous() for n, t in found.items()}), "the wrong shape"),
    "values": (tensors(lambda found: {n: t / 0 for n, t in found.items()}), "not finite in encoder"),
    "others": (tensors(lambda found: {**found, "extra.weight": torch.ones(1)}), r"holds extra\.weight"),
    "half": (tensors(lambda found: {n: t for n, t in found.items() if "lora_A" in n}), "which are no pairs of LoRA factors"),
    "nothing": (tensors(lambda found: {}), "has no LoRA factors"),
    "torn": (lambda folder: (folder / FACTORS).write_bytes(b"torn"), "no peft LoRA that can be read"),
    "no settings": (lambda folder: (folder / CONFIG).unlink(), f"there is no {CONFIG}"),
    "no factors": (lambda folder: (folder / FACTORS).unlink(), f"there is no {FACTORS}"),
    "pickle": (lambda folder: (folder / FACTORS).rename(folder / "adapter_model.bin"), "is a pickle, which can run any code"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_each_fault_is_told(name: str, lab: Lab, made: Path, paints: Path, tmp_path: Path):
    spoil, said = FAULTY[name]
    shutil.copytree(made, tmp_path / "faulty")
    spoil(tmp_path / "faulty")
    lines = refused(lab, tmp_path / "faulty", paints)
    assert lines[0] == "faulty cannot be taken:"
    assert len(lines) == 2
    assert re.search(said, lines[1]), lines
    assert str(tmp_path) not in lines[1]


def test_all_faults_are_told_at_once(lab: Lab, made: Path, tmp_path: Path):
    shutil.copytree(made, tmp_path / "faulty")
    settings(use_dora=True, lora_alpha=0)(tmp_path / "faulty")
    renamed("0.attention.k_proj", "0.attention.q_proj")(tmp_path / "faulty")
    (tmp_path / "faulty" / "card.json").write_text("{}")
    lines = refused(lab, tmp_path / "faulty")
    for said in ("DoRA", "lora_alpha = 0", "q_proj", "no adapter card", "has no head"):
        assert sum(said in line for line in lines) == 1, said
    assert len(lines) == 6


def test_what_came_along_must_fit(lab: Lab, whole: Path, tiny: Backbone):
    card = json.loads((whole / "card.json").read_text())
    spoilt = {
        "fingerprint": ({"fingerprint": "0" * 64}, f"000000000000.*{tiny.fingerprint[:12]}"),
        "task": ({"own_task": {"name": "x"}}, "the card has a task that is none"),
        "labels": ({"own_task": TASKS["galaxy"].to_json() | {"labels": ["a", "a"]}}, "has a task that will not do"),
        "points": ({"own_task": TASKS["landmarks"].to_json() | {"points": 10**9}}, "has a task that will not do"),
        "other head": ({"own_task": TASKS["emotion"].to_json()}, "is no head for emotion"),
    }
    for changes, said in spoilt.values():
        (whole / "card.json").write_text(json.dumps(card | changes))
        with pytest.raises(MismatchError, match=said):
            add(lab, Offer(str(whole), "mine"))
    (whole / "card.json").write_text(json.dumps(card))
    head = load_file(whole / "head.safetensors")
    save_file({name: tensor * float("inf") for name, tensor in head.items()}, whole / "head.safetensors")
    save_file({"class_means": torch.ones(4, 3)}, whole / "statistics.safetensors")
    lines = refused(lab, whole)
    assert "head.safetensors holds values that are not finite: save it again" in lines
    assert any("statistics.safetensors" in line for line in lines)


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("mine/adapter_model.safetensors")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_zips_that_are_not_safe_are_refused(lab: Lab, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good = files_of(made)
    for name in ("../out.json", "/etc/out.json", "a/../../out.json", "C:/out.json"):
        assert "outside of itself" in refused(lab, zipped(tmp_path / "out.zip", {**good, name: b"x"}))[0]
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link(), "/etc/passwd")
    assert "is a link" in refused(lab, tmp_path / "link.zip")[0]
    two = {**files_of(made, "one/"), **files_of(made, "two/")}
    assert "holds 2 adapters, one, two" in refused(lab, zipped(tmp_path / "two.zip", two))[0]
    with zipfile.ZipFile(zipped(tmp_path / "twice.zip", good), "a") as archive, pytest.warns(match="Duplicate name"):
        archive.writestr(CONFIG, b"{}")
    assert refused(lab, tmp_path / "twice.zip") == [f"twice.zip holds {CONFIG} more than once: make it anew from a folder"]
    (tmp_path / "none.zip").write_bytes(b"none")
    assert "is no zip that can be read" in refused(lab, tmp_path / "none.zip")[0]
    archive = zipped(tmp_path / "pickle.zip", {"mine/adapter_config.json": good[CONFIG], "mine/adapter_model.bin": b"x"})
    assert any("is a pickle" in line for line in refused(lab, archive))
    assert any("there is no adapter_config" in line for line in refused(lab, zipped(tmp_path / "empty.zip", {"a.txt": b"x"})))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *given: pytest.fail("was unpacked"))
    for limit, value, said in (
        ("MOST_BYTES", 10, "0 MB"),
        ("MOST_FILES", 1, "holds 3 files"),
        ("MOST_JSON_BYTES", 5, "too large for a JSON"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sources, limit, value)
            assert said in refused(lab, zipped(tmp_path / "large.zip", good))[0]


def test_without_a_network_the_hub_is_one_line(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def offline(self: object, repo: str, files_metadata: bool) -> None:
        raise OfflineModeIsEnabled("no network\nat all")

    monkeypatch.setattr(sources.HfApi, "model_info", offline)
    (line,) = refused(lab, "someone/lora")
    assert "check the id and the network" in line
    (line,) = refused(lab, "no such thing")
    assert "no folder, no zip and no hub id" in line


def test_images_that_will_not_do_are_told(lab: Lab, made: Path, tmp_path: Path):
    assert "is no folder and no zip" in refused(lab, made, tmp_path / "none")[0]
    one = zipped(tmp_path / "one.zip", {f"red/{i}.png": coloured(0, i) for i in range(4)})
    assert "holds 1 classes" in refused(lab, made, one)[0]
    (tmp_path / "one").mkdir()
    images = [{"bytes": coloured(0, i), "path": None} for i in range(6)]
    pq.write_table(pa.table({"image": images, "label": ["red"] * 6}), tmp_path / "one" / "train.parquet")
    with pytest.raises(DataError, match="images of one class"):
        add(lab, Offer(str(made), "mine", tmp_path / "one"))

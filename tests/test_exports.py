"""What is written opens again elsewhere and says the same, and its card tells what it is."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import PORTRAIT, write_random_adapters
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from test_cli import run
from transformers import AutoImageProcessor, AutoModel

from lora_lab.backbones import Backbone, Features, load_backbone
from lora_lab.calibration import Calibration
from lora_lab.cards import ScoreEntry, adapter_folder, read_card, write_card
from lora_lab.errors import DataError, LoraLabError, MismatchError
from lora_lab.exports import export_adapter, export_full, open_full, recorded_retention, relative_error, zipped
from lora_lab.lab import Lab
from lora_lab.lora import RIDGE, deltas_of, split
from lora_lab.merging import MERGE_METHODS, Merged, MergeRecipe, Sight
from lora_lab.peft_files import load_factors
from lora_lab.records import Record, RecordFile
from lora_lab.tasks import TASKS, Task

FREE = [method.name for method in MERGE_METHODS.values() if method.needs == "nothing"]
MIXED = "age_class=0.8,landmarks:r4=-0.5,galaxy=0,emotion=1.5"


@pytest.fixture
def lab(adapters_root: Path, own_cache: Path) -> Lab:
    """A lab of its own, with an empty cache."""
    return Lab("tiny", adapters_root)


def recipe(text: str = MIXED, **fields: object) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny").model_copy(update=fields)


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def sight(lab: Lab) -> Sight:
    heads = {name: lab.adapter(name, 16).head for name in TASKS}
    return Sight(lab.serving, {name: pixels(12) for name in TASKS}, heads)


def by_peft(backbone: Backbone, folder: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(backbone.to(torch.float32).module, str(folder))
    with torch.no_grad():
        return model(pixels()).pooler_output


def test_an_adapter_is_the_same_in_peft(lab: Lab, tmp_path: Path):
    done = export_adapter(lab, recipe(), tmp_path / "merge")
    assert done.rank == 16 + 4 + 16
    assert done.loss < 1e-6
    ours = lab.backbone.encode(pixels(), lab.merge(recipe()).deltas).pooled
    torch.testing.assert_close(ours, by_peft(lab.backbone, tmp_path / "merge"), atol=1e-5, rtol=1e-5)
    assert MergeRecipe.read(tmp_path / "merge" / "recipe.json") == recipe()
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "merge").iterdir()), "others may read it"


@pytest.mark.parametrize("method", FREE)
def test_every_method_is_the_same_in_peft(method: str, lab: Lab, tmp_path: Path):
    chosen = recipe("age_class=1,emotion=0.5,galaxy=1", method=method)
    if MERGE_METHODS[method].family == "bound":
        with pytest.raises(LoraLabError, match="is a bound and no merge"):
            export_adapter(lab, chosen, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    export_adapter(lab, chosen, tmp_path / "out")
    expected = lab.backbone.encode(pixels(), lab.merge(chosen).deltas).pooled
    torch.testing.assert_close(by_peft(lab.backbone, tmp_path / "out"), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["exact", "ties"])
def test_a_lower_rank_is_the_nearest_and_says_what_it_lost(method: str, lab: Lab, tmp_path: Path):
    chosen = recipe("age_class=1,emotion=0.5", method=method)
    done = export_adapter(lab, chosen, tmp_path / method, rank=5)
    deltas = lab.merger.merged(chosen).deltas
    spectra = [torch.linalg.svdvals(delta.double()) for delta in deltas.values()]
    tail = sum(float(s[5:].square().sum()) for s in spectra) / sum(float(s.square().sum()) for s in spectra)
    assert done.rank == 5
    assert done.loss == pytest.approx(tail**0.5, rel=1e-4)
    assert done.loss > 0.1
    assert done.output_loss is None
    factors = load_factors(tmp_path / method, lab.backbone)
    assert {pair.rank for pair in factors.values()} == {5}
    assert relative_error(deltas, factors) == pytest.approx(done.loss, rel=1e-4)
    ours = lab.backbone.encode(pixels(), deltas_of(factors)).pooled
    torch.testing.assert_close(by_peft(lab.backbone, tmp_path / method), ours, atol=1e-5, rtol=1e-5)
    assert f"a relative Frobenius error of {done.loss:.2g}" in (tmp_path / method / "README.md").read_text()


def test_a_cut_with_inputs_known_is_nearest_in_what_comes_out():
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    inputs = torch.randn(400, 16, generator=generator, dtype=torch.float64) * torch.logspace(1, -2, 16)
    gram = inputs.T @ inputs / len(inputs)
    ridged = gram + RIDGE * gram.diagonal().mean() * torch.eye(16)

    def missing(b: torch.Tensor, a: torch.Tensor) -> float:
        error = delta - b.double() @ a.double()
        return float((error @ ridged * error).sum())

    known, plain = (split({"m": delta}, 4, grams)["m"] for grams in ({"m": gram}, None))
    assert known.rank == plain.rank == 4
    best = missing(known.b, known.a)
    assert best < 0.5 * missing(plain.b, plain.a)
    assert relative_error({"m": delta}, {"m": plain}) < relative_error({"m": delta}, {"m": known})
    whole = float((delta @ ridged * delta).sum())
    assert relative_error({"m": delta}, {"m": known}, {"m": gram}) == pytest.approx((best / whole) ** 0.5, rel=1e-4)
    for _ in range(20):
        nudges = (0.01 * torch.randn(part.shape, generator=generator) for part in (known.b, known.a))
        b, a = (part + nudge for part, nudge in zip((known.b, known.a), nudges, strict=True))
        assert missing(b, a) >= best * (1 - 1e-6)
    assert relative_error({"m": delta}, split({"m": delta}, 16, {"m": gram})) < 1e-6


def test_a_rank_above_that_of_the_merge_loses_nothing(lab: Lab, tmp_path: Path):
    done = export_adapter(lab, recipe("landmarks:r4=1"), tmp_path / "out", rank=64)
    assert done.rank == 4
    assert done.loss < 1e-5


def test_what_cannot_be_written_is_told(lab: Lab, tmp_path: Path):
    export_adapter(lab, recipe(), tmp_path / "out")
    with pytest.raises(LoraLabError, match=r"out holds adapter_config.json already"):
        export_full(lab, recipe(), tmp_path / "out")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(LoraLabError, match=r"holds README.md already"):
        export_adapter(lab, recipe(), tmp_path)
    with pytest.raises(LoraLabError, match="all weights are 0"):
        export_adapter(lab, recipe("galaxy=0"), tmp_path / "none")
    with pytest.raises(LoraLabError, match="the rank 0"):
        export_adapter(lab, recipe(), tmp_path / "none", rank=0)
    with pytest.raises(MismatchError, match="for the backbone dinov2-small"):
        export_full(lab, MergeRecipe.parse("emotion=1", "dinov2-small"), tmp_path / "none")
    with pytest.raises(LoraLabError, match="needs images"):
        export_full(lab, recipe(repair="linear"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("fields", [{}, {"repair": "linear"}, {"repair": "patches", "method": "iteris"}])
def test_a_whole_backbone_is_the_same_merge(fields: dict, lab: Lab, tmp_path: Path):
    chosen = recipe("age_class=1,emotion=0.5,galaxy=1", **fields)
    seen = sight(lab) if fields else None
    expected = lab.merge(chosen, seen)
    export_full(lab, chosen, tmp_path / "out", seen)
    features = lab.backbone.encode(pixels(), expected.deltas)
    again = load_backbone(str(tmp_path / "out")).encode(pixels())
    torch.testing.assert_close(again.pooled, features.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.patches, features.patches, atol=1e-5, rtol=1e-5)
    found = open_full(tmp_path / "out")
    assert list(found.heads) == list(expected.heads)
    assert set(found.mends) == (set(expected.heads) if fields.get("repair") else set())
    for name in expected.heads:
        torch.testing.assert_close(found.outputs(name, again), expected.outputs(name, features), atol=1e-4, rtol=1e-4)
        told = (tmp_path / "out" / "heads" / name / "task.json").read_text(encoding="utf-8")
        assert Task.from_json(json.loads(told)) == TASKS[name]
    photo = Image.open(PORTRAIT).convert("RGB")
    assert found.predict(photo).faces[0].predictions.keys() == expected.predict(photo).faces[0].predictions.keys()


def test_the_encoder_sees_what_it_sees_here(lab: Lab, tmp_path: Path):
    export_full(lab, recipe(), tmp_path / "out")
    crop = Image.open(PORTRAIT).convert("RGB").crop((100, 0, 300, 200))
    seen = AutoImageProcessor.from_pretrained(tmp_path / "out")(crop, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen, lab.backbone.preprocess([crop]))
    with torch.no_grad():
        pooled = AutoModel.from_pretrained(tmp_path / "out")(seen).pooler_output
    expected = lab.backbone.encode(seen, lab.merge(recipe()).deltas).pooled
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    assert open_full(tmp_path / "out").backbone.image_size == lab.backbone.image_size


def test_a_kept_merge_takes_its_repair_along(lab: Lab, tmp_path: Path):
    chosen = recipe("age_class=1,emotion=0.5", method="iteris", repair="linear")
    kept = lab.save_merge(chosen, sight(lab), "mine", "12 pictures of noise")
    export_full(lab, kept, tmp_path / "full")
    found, expected = open_full(tmp_path / "full"), lab.merge(kept)
    features = Features(torch.randn(4, 32), torch.randn(4, 16, 32))
    for name in expected.heads:
        assert torch.equal(found.outputs(name, features), expected.outputs(name, features))
    card = (tmp_path / "full" / "README.md").read_text(encoding="utf-8")
    assert "IterIS" in card
    assert "Kept as `saved:mine`; images that it was made with: 12 pictures of noise" in card
    assert "Linear repair. It is a small map" in card
    export_adapter(lab, kept, tmp_path / "adapter")
    assert "**not in this adapter**" in (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "full" / "heads" / "emotion" / "mend.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="holds no repair that can be read"):
        open_full(tmp_path / "full")


def test_heads_stay_as_sure_as_they_are(tiny: Backbone, tmp_path: Path):
    write_random_adapters(tiny, tmp_path / "adapters")
    folder = adapter_folder("tiny", "emotion", "r16", tmp_path / "adapters")
    card = read_card(folder)
    score = ScoreEntry(value=70.44, low=66.9, high=73.5, n=1000)
    sure = Calibration(n=10, temperature=2.5)
    changed = {"calibration": sure, "licence": "my | own terms", "scores": {"val": {"macro_f1": score}}}
    write_card(card.model_copy(update=changed), folder)
    export_full(Lab("tiny", tmp_path / "adapters"), recipe("emotion=1"), tmp_path / "out")
    assert open_full(tmp_path / "out").heads["emotion"].temperature == 2.5
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| emotion | 16 | 1 | macro_f1 | 70.4 (66.9 to 73.5) |" in text
    assert "| adapter emotion | random | my ¦ own terms |" in text
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "several-terms")


def test_the_card_is_one_that_a_hub_reads(lab: Lab, tmp_path: Path):
    chosen = recipe(method="dare", knobs={"density": 0.5}, seed=3)
    export_adapter(lab, chosen, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    data = card.data.to_dict()
    assert (data["license"], data["base_model"], data["library_name"]) == ("mit", "tiny", "peft")
    assert {"lora", "merge"} <= set(data["tags"])
    assert re.search(r"Method: .*\(`dare`\); knobs: .*density = 0\.5.*; seed: 3", card.text)
    assert "| landmarks | 4 | -0.5 | nme | not measured |" in card.text
    assert "retention" not in card.text


@pytest.mark.parametrize("export", [export_adapter, export_full], ids=["adapter", "full"])
def test_what_the_cards_code_does(export: Callable, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lora_lab.cards.PRETRAINED", lab.adapters_root)
    chosen = recipe("emotion=0.5,galaxy=1")
    export(lab, chosen, tmp_path / "out")
    (tmp_path / "out" / "photo.jpg").write_bytes(PORTRAIT.read_bytes())
    monkeypatch.chdir(tmp_path / "out")
    opened, said = {}, []
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        names: dict = {"print": said.append}
        exec(block, names)
        opened |= names
    assert ("model" in opened, "encoder" in opened) == (True, export is export_full)
    expected = lab.predict(lab.photo(PORTRAIT), chosen).prediction
    assert len(said) == 1
    assert said[0].faces[0].predictions["emotion"].answer == expected.faces[0].predictions["emotion"].answer
    assert said[0].photo.predictions["galaxy"].confidence == pytest.approx(
        expected.photo.predictions["galaxy"].confidence, abs=1e-4
    )


def test_records_of_this_very_merge_are_told(lab: Lab, tmp_path: Path):
    def record(task: str, value: float, **fields: object) -> Record:
        known = {"recipe": recipe().key, "fingerprint": lab.fingerprint(recipe()), "split": "val", "metric": "retention"}
        rest = {"subject": "merge", "low": value - 1, "high": value + 1, "n": 300, "seed": 0, "seconds": 1}
        return Record.model_validate({**known, **rest, "task": task, "value": value, **fields})

    file = RecordFile(tmp_path / "merges.parquet")
    file.add([record("emotion", 91.25), record("emotion", 70, metric="macro_f1"), record("galaxy", 50, fingerprint="other")])
    file.add([record("emotion", 12, split="test"), record("age_class", 33, recipe="other")])
    assert recorded_retention(lab, recipe(), tmp_path) == {"emotion": "91.2 (90.2–92.2), n = 300"}
    assert recorded_retention(lab, recipe("emotion=1"), tmp_path) == {}
    export_adapter(lab, recipe(), tmp_path / "out", rank=4, records=tmp_path)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| emotion | 16 | 1.5 | macro_f1 | not measured | 91.2 (90.2–92.2), n = 300 |" in text
    assert "It was measured before the rank was cut." in text


def test_a_zip_holds_the_folder(lab: Lab, tmp_path: Path):
    export_full(lab, recipe(), tmp_path / "out.v1")
    archive = zipped(tmp_path / "out.v1")
    assert archive == (tmp_path / "out.v1.zip").resolve()
    with zipfile.ZipFile(archive) as inside:
        inside.extractall(tmp_path / "again")
    assert open_full(tmp_path / "again" / "out.v1").backbone.fingerprint == open_full(tmp_path / "out.v1").backbone.fingerprint
    with pytest.raises(DataError, match="nothing to zip"):
        zipped(tmp_path / "nowhere")


def test_the_command_tells_the_loss_and_writes_all(adapters_root: Path, tmp_path: Path):
    on_tiny = ["--adapters", "age_class=1,emotion=1", "--backbone", "tiny", "--adapters-root", adapters_root]
    found = run("merge", tmp_path / "low", "--rank", 3, *on_tiny)
    assert re.search(r"rank 3, relative Frobenius error 0\.\d+", found.stdout)
    assert "a whole backbone with its heads" in run("merge", tmp_path / "full", "--full", *on_tiny).stdout
    assert list(open_full(tmp_path / "full").heads) == ["age_class", "emotion"]
    assert "--rank or --full, not both" in run("merge", tmp_path / "no", "--full", "--rank", 3, *on_tiny).output
    assert "name a folder" in run("merge", "--save", "mine", "--rank", 3, *on_tiny).output


@pytest.mark.parametrize("write", [export_adapter, export_full])
def test_values_beyond_float32_are_one_line_and_nothing_is_written(write: Callable, lab: Lab, tmp_path: Path):
    lab.merger._merged = huge(lab, float("inf"))
    with pytest.raises(LoraLabError, match="not finite, so nothing is written: take smaller weights"):
        write(lab, recipe(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def huge(lab: Lab, size: float) -> Callable:
    """A merge whose every value is as large."""
    return lambda *_: Merged(
        {target: torch.full_like(lab.backbone.weight(target), size) for target in lab.backbone.target_modules}
    )


def test_a_merge_that_float16_cannot_hold_is_not_kept(lab: Lab, own_cache: Path):
    lab.merger._merged = huge(lab, 1e6)
    with pytest.raises(LoraLabError, match="beyond 65504"):
        lab.merger.save(recipe(), None, "large", "none")
    assert not list(own_cache.glob("merges/*/*"))

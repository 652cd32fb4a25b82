"""A backbone from a folder loads the same twice, whole, and with its own normalisation; or says why not in one line."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification, ViTModel

from lora_lab.backbones import Walk, load_backbone
from lora_lab.errors import LoraLabError

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(**options: Any) -> ViTConfig:
    return ViTConfig(**SMALL, intermediate_size=64, image_size=32, **options)


def refusal(folder: Path | str) -> str:
    with pytest.raises(LoraLabError) as caught:
        load_backbone(str(folder))
    line = str(caught.value)
    assert 0 < len(line) <= 300
    assert "\n" not in line
    return line


def test_a_classifier_without_pooler_gives_its_class_token_the_same_each_time(tmp_path: Path):
    model = ViTForImageClassification(vit(num_labels=3)).eval()
    model.save_pretrained(tmp_path)
    first, second = load_backbone(str(tmp_path)), load_backbone(str(tmp_path))
    assert first.fingerprint == second.fingerprint
    features = first.encode(PIXELS)
    assert torch.equal(features.pooled, second.encode(PIXELS).pooled)
    with torch.no_grad():
        expected = model.vit(PIXELS).last_hidden_state
    torch.testing.assert_close(features.pooled, expected[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(features.patches, expected[:, 1:], rtol=0, atol=1e-6)
    walk = Walk(first, PIXELS)
    walk.step({})
    walk.step({})
    assert torch.equal(walk.features().pooled, features.pooled)


def test_a_pooler_that_is_there_is_used(tmp_path: Path):
    model = ViTModel(vit()).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(PIXELS).pooler_output
    torch.testing.assert_close(load_backbone(str(tmp_path)).encode(PIXELS).pooled, expected, rtol=0, atol=1e-6)


def test_half_precision_on_disk_is_computed_in_float32(tmp_path: Path):
    ViTModel(vit()).half().save_pretrained(tmp_path)
    assert load_backbone(str(tmp_path)).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ({"do_normalize": False, "image_mean": [9, 9, 9]}, (0, 0, 0), (1, 1, 1)),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (
            {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [255] * 3},
            (0.5, 0.5, 0.5),
            (1, 1, 1),
        ),
    ],
)
def test_normalisation_is_that_of_the_preprocessor(settings: dict, mean: tuple, std: tuple, tmp_path: Path):
    ViTModel(vit()).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor", **settings}))
    backbone = load_backbone(str(tmp_path))
    assert backbone.mean == pytest.approx(mean)
    assert backbone.std == pytest.approx(std)


def test_without_a_preprocessor_the_family_decides_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Dinov2Model(Dinov2Config(**SMALL, image_size=56)).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone(str(tmp_path))
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert "has no preprocessor_config.json" in caplog.text


@pytest.mark.parametrize("std", [[0, 0.5, 0.5], [0.5, 0.5], ["x"] * 3, [float("nan")] * 3])
def test_a_normalisation_that_is_none_is_refused(std: list, tmp_path: Path):
    ViTModel(vit()).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": std}))
    assert "could not be loaded" in (line := refusal(tmp_path)) or "image_std" in line


def test_weights_that_are_missing_are_named(tmp_path: Path):
    ViTModel(vit()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("0.attention.attention.key.weight"))
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "has no weights for layers.0.attention.k_proj.weight" in refusal(tmp_path)


def test_other_kinds_and_broken_folders_are_one_line(tmp_path: Path):
    bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    BertModel(bert).save_pretrained(tmp_path / "bert")
    assert "is of the kind 'bert'" in refusal(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    assert "look into the folder" in refusal(tmp_path / "empty")
    for name, text in {
        "cut": "{",
        "deep": "[" * 100_000,
        "list": "[]",
        "odd": '{"model_type": "vit", "hidden_size": "x"}',
    }.items():
        ViTModel(vit()).save_pretrained(tmp_path / name)
        (tmp_path / name / "config.json").write_text(text)
        refusal(tmp_path / name)
    ViTModel(vit()).save_pretrained(tmp_path / "pointer")
    (tmp_path / "pointer" / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    refusal(tmp_path / "pointer")
    ViTModel(vit()).save_pretrained(tmp_path / "pickle")
    weights = tmp_path / "pickle" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pickle" / "pytorch_model.bin")
    weights.unlink()
    refusal(tmp_path / "pickle")

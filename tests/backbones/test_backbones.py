"""What holds for every backbone, and for those from transformers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertConfig, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from lora_lab.backbones import BACKBONES, Backbone, Walk, by_layer, load_backbone
from lora_lab.errors import BackboneUnavailableError, MismatchError, NotFoundError


def small_vit(folder: Path) -> str:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    return str(folder)


def small_dinov2(folder: Path) -> str:
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["tiny", small_vit, small_dinov2], ids=["tiny", "vit", "dinov2"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    return load_backbone(request.param if isinstance(request.param, str) else request.param(tmp_path))


def random_deltas(backbone: Backbone, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {t: 0.3 * torch.randn(backbone.weight(t).shape, generator=generator) for t in backbone.target_modules}


def test_features_have_the_stated_shapes(backbone: Backbone):
    pixels = backbone.preprocess(
        [Image.new("RGB", (50, 40), "teal"), Image.new("RGB", (backbone.image_size, backbone.image_size))]
    )
    features = backbone.encode(pixels)
    assert features.pooled.shape == (2, backbone.width)
    assert features.patches.shape[0] == 2
    assert features.patches.shape[2] == backbone.width


def test_target_modules_are_key_and_value_of_each_layer(backbone: Backbone):
    assert len(backbone.target_modules) == 4
    assert {name.rsplit(".", 1)[-1] for name in backbone.target_modules} == {"k_proj", "v_proj"}


def test_deltas_act_as_if_they_were_added_to_the_weights(backbone: Backbone):
    pixels = torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(1))
    deltas = random_deltas(backbone)
    changed = backbone.to(torch.float32)
    with torch.no_grad():
        for target, delta in deltas.items():
            changed.module.get_parameter(f"{target}.weight").add_(delta)
    torch.testing.assert_close(backbone.encode(pixels, deltas).pooled, changed.encode(pixels).pooled)
    assert not torch.equal(backbone.encode(pixels, deltas).pooled, backbone.encode(pixels).pooled)


def test_no_deltas_is_the_base_bit_for_bit(backbone: Backbone):
    pixels = torch.randn(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    plain = backbone.encode(pixels).pooled
    backbone.encode(pixels, random_deltas(backbone))
    assert torch.equal(backbone.encode(pixels, {}).pooled, plain)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.module.state_dict().items())


def test_two_people_merge_at_once(tiny: Backbone):
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    many = [random_deltas(tiny, seed) for seed in range(4)]
    expected = [tiny.encode(pixels, deltas).pooled for deltas in many]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: tiny.encode(pixels, many[i % 4]).pooled, range(80)))
    for i, pooled in enumerate(found):
        assert torch.equal(pooled, expected[i % 4])


def test_tiny_is_the_same_each_time():
    assert load_backbone("tiny").fingerprint == load_backbone("tiny").fingerprint


def test_the_papers_backbone_is_in_the_catalog():
    assert list(BACKBONES) == ["dinov2-small", "google/vit-base-patch16-224-in21k", "tiny"]


def test_unknown_names_get_a_hint():
    with pytest.raises(NotFoundError, match="did you mean 'dinov2-small'"):
        load_backbone("dinov2-smal")


def test_a_missing_folder_and_another_kind_of_model_are_told(tmp_path: Path):
    with pytest.raises(BackboneUnavailableError, match="look into the folder"):
        load_backbone(str(tmp_path))
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="'bert'"):
        load_backbone(str(tmp_path))


def test_a_walk_ends_where_a_forward_does(backbone: Backbone):
    pixels = torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(1))
    deltas = random_deltas(backbone)
    seen = {}
    expected = backbone.watch(pixels, deltas, backbone.target_modules, seen.__setitem__)
    walk = Walk(backbone, pixels)
    for targets in by_layer(backbone).values():
        inputs = walk.inputs()
        assert all(torch.equal(inputs, seen[target]) for target in targets)
        walk.step(deltas)
    assert torch.equal(walk.features().pooled, expected.pooled)
    assert torch.equal(walk.features().patches, expected.patches)


def test_weights_are_merged_before_they_are_rounded(tiny: Backbone):
    """W₀ + ΔW rounded once, and not a rounded W₀ with ΔW rounded on top."""
    target = tiny.target_modules[0]
    rounded = tiny.to(torch.bfloat16)
    assert torch.equal(rounded.weight(target), tiny.weight(target))
    assert rounded.module.get_parameter(f"{target}.weight").dtype == torch.bfloat16
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    weights = {f"{t}.weight": (tiny.weight(t) + d).bfloat16() for t, d in random_deltas(tiny).items()}
    assert torch.equal(rounded.encode(pixels, random_deltas(tiny)).pooled, rounded.encode_with(pixels, weights).pooled)

"""Adapters are written as peft reads them, and what does not fit is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from conftest import random_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from lora_lab.adapters import load_adapter, load_factors, save_adapter, save_peft
from lora_lab.backbones import Backbone, load_backbone
from lora_lab.cards import list_cards, read_card
from lora_lab.errors import DataError, MismatchError, NotFoundError
from lora_lab.lora import deltas_of


def some_pixels(backbone: Backbone) -> torch.Tensor:
    size = backbone.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def by_peft(backbone: Backbone, folder: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(backbone.to(torch.float32).module, str(folder))
    with torch.no_grad():
        return model(some_pixels(backbone)).pooler_output


def test_what_is_saved_is_loaded(tiny: Backbone, tmp_path: Path):
    adapter = random_adapter(tiny, "emotion", 8, 1)
    save_adapter(adapter, tmp_path)
    loaded = load_adapter(tmp_path, tiny)
    assert loaded.card == adapter.card
    for target, pair in adapter.factors.items():
        assert torch.equal(loaded.factors[target].a, pair.a)
        assert torch.equal(loaded.factors[target].b, pair.b)
    for name, tensor in adapter.head.state_dict().items():
        assert torch.equal(loaded.head.state_dict()[name], tensor)


def test_peft_loads_it_to_the_same_features(tiny: Backbone, tmp_path: Path):
    adapter = random_adapter(tiny, "emotion", 8, 1)
    save_adapter(adapter, tmp_path)
    ours = tiny.encode(some_pixels(tiny), deltas_of(adapter.factors)).pooled
    torch.testing.assert_close(ours, by_peft(tiny, tmp_path), atol=1e-5, rtol=1e-5)


def test_mixed_ranks_on_different_modules_are_the_same_in_peft(tiny: Backbone, tmp_path: Path):
    wide, narrow = random_adapter(tiny, "emotion", 8, 1).factors, random_adapter(tiny, "galaxy", 3, 2).factors
    first, *others = tiny.target_modules
    factors = {first: narrow[first], **{target: wide[target] for target in others}}
    save_peft(factors, tmp_path, tiny.name)
    ours = tiny.encode(some_pixels(tiny), deltas_of(factors)).pooled
    torch.testing.assert_close(ours, by_peft(tiny, tmp_path), atol=1e-5, rtol=1e-5)
    again = load_factors(tmp_path, tiny)
    assert {target: pair.rank for target, pair in again.items()} == {first: 3, **dict.fromkeys(others, 8)}


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"layer.0.attention.k_proj": 2}}])
def test_adapters_made_by_peft_are_read(tiny: Backbone, tmp_path: Path, options: dict):
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["k_proj", "v_proj"], init_lora_weights=False, **options)
    torch.manual_seed(0)
    get_peft_model(tiny.to(torch.float32).module, config).save_pretrained(str(tmp_path))  # type: ignore[arg-type]
    ours = tiny.encode(some_pixels(tiny), deltas_of(load_factors(tmp_path, tiny))).pooled
    torch.testing.assert_close(ours, by_peft(tiny, tmp_path), atol=1e-5, rtol=1e-5)


def test_what_is_not_plain_lora_is_refused_by_name(tiny: Backbone, tmp_path: Path):
    config = LoraConfig(r=4, target_modules=["k_proj"], use_dora=True)
    get_peft_model(tiny.to(torch.float32).module, config).save_pretrained(str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="uses DoRA; only plain LoRA"):
        load_factors(tmp_path, tiny)


def test_another_backbone_is_refused_with_both_fingerprints(tiny: Backbone, tmp_path: Path):
    adapter = random_adapter(tiny, "emotion", 8, 1)
    save_adapter(adapter, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text()) | {"fingerprint": "0" * 64}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(MismatchError, match=f"000000000000.*{tiny.fingerprint[:12]}"):
        load_adapter(tmp_path, tiny)


def test_factors_that_do_not_fit_are_refused(tiny: Backbone, tmp_path: Path):
    save_adapter(random_adapter(tiny, "emotion", 8, 1), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({name: tensor[:, :5].contiguous() for name, tensor in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MismatchError, match="wrong shape"):
        load_adapter(tmp_path, tiny)
    save_file({f"base_model.model.other.{n}": t for n, t in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MismatchError, match="no target module named"):
        load_adapter(tmp_path, tiny)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="no peft LoRA that can be read"):
        load_adapter(tmp_path, tiny)


def test_missing_and_broken_cards_are_told(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no adapter in"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match="is no adapter card: task"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text("")
    with pytest.raises(DataError, match="is no adapter card: Invalid JSON: EOF"):
        read_card(tmp_path)


def test_cards_are_listed_in_the_order_of_the_tasks(adapters_root: Path):
    names = [(card.name, card.rank) for card in list_cards("tiny", adapters_root)]
    assert names[:3] == [("age_class", 0), ("age_class", 16), ("age_regression", 0)]
    assert ("landmarks", 4) in names


def test_the_backbones_fingerprint_is_that_of_its_weights(tiny: Backbone):
    changed = tiny.to(torch.float32)
    with torch.no_grad():
        next(changed.module.parameters()).add_(1e-3)
    from lora_lab.backbones.base import fingerprint

    assert fingerprint(changed.module) != tiny.fingerprint == fingerprint(load_backbone("tiny").module)

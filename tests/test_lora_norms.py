"""How large deltas are, without forming them."""

import pytest
import torch
from conftest import random_adapter

from lora_lab.backbones import Backbone
from lora_lab.lora import deltas_of, norm_of, norms_by_layer


def test_norms_are_those_of_the_dense_deltas(tiny: Backbone):
    factors = random_adapter(tiny, "emotion", 4, 0).factors
    dense = deltas_of(factors)
    whole = torch.stack([delta.square().sum() for delta in dense.values()]).sum().sqrt().item()
    assert norm_of(factors) == pytest.approx(whole, rel=1e-5)
    by_layer = norms_by_layer(factors)
    assert len(by_layer) == len(tiny.target_modules) // 2
    first = [delta.square().sum() for target, delta in dense.items() if ".layer.0." in target]
    assert by_layer[0] == pytest.approx(torch.stack(first).sum().sqrt().item(), rel=1e-5)
    assert sum(norm**2 for norm in by_layer) == pytest.approx(whole**2, rel=1e-5)
    assert norms_by_layer({}) == []
    assert norm_of({}) == 0

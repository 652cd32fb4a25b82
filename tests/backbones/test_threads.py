"""One thread merges by looking at images while another answers: neither disturbs the other."""

import ast
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import random_adapter

import lora_lab
from lora_lab.backbones import Backbone
from lora_lab.lora import deltas_of
from lora_lab.merging import Selection, Setting, Sight, iteris, regmean_pp


def busy_beside(work: Callable[[], object], tiny: Backbone) -> None:
    """Every answer given while `work` runs in other threads is the answer given alone, bit for bit."""
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    deltas = deltas_of(random_adapter(tiny, "emotion", 16, 0).factors)
    with torch.no_grad():
        alone = tiny.encode(pixels, deltas).pooled
    faults: list[BaseException] = []
    over = threading.Event()

    def again() -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 (told to the test's own thread below)
            faults.append(error)

    threads = [threading.Thread(target=again) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with torch.no_grad():
            answers = [tiny.encode(pixels, deltas).pooled for _ in range(300)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults, faults
    assert all(torch.equal(answer, alone) for answer in answers)


@pytest.mark.parametrize("method", [iteris.METHOD, regmean_pp.METHOD], ids=lambda method: method.name)
def test_a_walk_through_the_layers_leaves_other_answers_alone(method: object, tiny: Backbone):
    members = {name: random_adapter(tiny, name, 16, seed).factors for seed, name in enumerate(("age_class", "emotion"))}
    images = {
        name: torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(place)) for place, name in enumerate(members)
    }
    selection = Selection(tuple(members), list(members.values()), [], Sight(tiny, images, {}))
    setting = Setting((1.0, 1.0), method.turned({}))  # type: ignore[attr-defined]
    expected = method.merge(selection, setting).deltas  # type: ignore[attr-defined]

    def work() -> None:
        found = method.merge(selection, setting).deltas  # type: ignore[attr-defined]
        assert all(torch.equal(found[target], delta) for target, delta in expected.items())

    busy_beside(work, tiny)


def test_tensors_are_swapped_in_one_place():
    swapping = {"functional_call", "_parameters"}
    root = Path(lora_lab.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in swapping:
                found.add(path.relative_to(root).as_posix())
    assert found == {"backbones/base.py"}

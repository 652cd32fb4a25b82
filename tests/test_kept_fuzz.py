"""Mutated kept merges and compositions on disk are left out or told in a line, and all else answers."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import EXAMPLES
from fuzzing import fuzz
from hypothesis import strategies as st
from mutations import bounded, changed, in_header, spoilt

from lora_lab.cache import cache_folder
from lora_lab.composition.saved import CompositionCard, load_composition
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.saved_merges import own_folder
from lora_lab.tasks import TASKS, make_head, save_head


def mutated(folder: Path) -> st.SearchStrategy[tuple[Path, bytes]]:
    """One of the files of a folder, and what it holds now."""
    kinds = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        kinds.append(spoilt(data).map(lambda new, path=path: (path, new)))
        other = in_header(data) if path.suffix == ".safetensors" else changed(json.loads(data)).map(_text)
        kinds.append(other.map(lambda new, path=path: (path, new)))
    return st.one_of(kinds)


def _text(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


def in_place(check: Callable[[], None]) -> Callable[[tuple[Path, bytes]], None]:
    """Put the file there while the check runs."""

    def run(one: tuple[Path, bytes]) -> None:
        path, data = one
        whole = path.read_bytes()
        try:
            path.write_bytes(data)
            os.utime(path, ns=(0, time.monotonic_ns()))
            check()
        finally:
            path.write_bytes(whole)

    return run


@pytest.fixture
def lab(own_cache: Path, adapters_root: Path) -> Lab:
    return Lab("tiny", adapters_root)


def test_kept_merges(lab: Lab, adapters_root: Path):
    recipe = MergeRecipe.parse("emotion=0.5,galaxy=0.5", "tiny")
    lab.save_merge(recipe, None, "mine", "none")
    located = lab.locate(lab.photo(EXAMPLES / "hubble_spiral.jpg"))

    def check() -> None:
        with bounded():
            later = Lab("tiny", adapters_root)
            assert later.merge(recipe).heads
            for merge in later.merger.saved.values():
                model = later.merge(merge.recipe)
                model.answer(located, model.features(located))

    assert fuzz("kept merges", mutated(own_folder("tiny") / "mine"), in_place(check)) > 3


def test_compositions(lab: Lab):
    task = TASKS["galaxy"]
    card = CompositionCard(
        task=task.to_json(),
        backbone="tiny",
        fingerprint=lab.backbone.fingerprint,
        adapters="0" * 16,
        shots=5,
        images=20,
        steps=3,
        batch=4,
        seed=0,
        ways={},
        commit=None,
    )
    folder = cache_folder("composed")
    (folder / "composition.json").write_text(card.model_dump_json())
    (folder / "recipe.json").write_text(MergeRecipe.parse("emotion=0.5,galaxy=0.5", "tiny").model_dump_json())
    save_head(make_head(task, lab.backbone.width), folder / "head.safetensors")

    def check() -> None:
        with bounded():
            found = load_composition(folder, lab.backbone)
            assert found.head.task == found.task

    assert fuzz("compositions", mutated(folder), in_place(check)) > 10

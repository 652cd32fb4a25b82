"""One thread merges by looking at images while another answers: neither disturbs the other."""

import ast
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES, random_adapter

import lora_lab
from lora_lab.backbones import Backbone
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging import MergeRecipe, Selection, Setting, Sight, iteris, regmean_pp
from lora_lab.photos import Photo


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


def test_threads_that_begin_at_once_each_get_a_shell_of_their_own(tiny: Backbone):
    for _ in range(20):
        fresh, start = tiny.tuned({}), threading.Barrier(4)
        shells: list[object] = []
        faults: list[BaseException] = []

        def begin(fresh: Backbone = fresh, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                with fresh.holding({}) as module, fresh.holding({}) as again:
                    assert module is again
                    shells.append(module)  # noqa: B023 (all threads have ended before the next round)
            except BaseException as error:  # noqa: BLE001 (told to the test's own thread below)
                faults.append(error)  # noqa: B023

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert len({id(shell) for shell in (*shells, fresh.module)}) == 5


def test_the_shell_of_a_thread_goes_with_it(tiny: Backbone):
    shells: list[weakref.ref] = []

    def look() -> None:
        with tiny.holding({}) as module:
            shells.append(weakref.ref(module))

    for _ in range(20):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    gc.collect()
    assert len(shells) == 20
    assert not any(shell() for shell in shells)


def test_a_merge_with_images_leaves_the_answers_of_what_ships_alone():
    """As two people meet on one server: IterIS on the shipped adapters beside predictions of the same lab."""
    lab = Lab()
    names = ("age_class", "emotion")
    photo = Photo.read(EXAMPLES / "astronaut.jpg")
    chosen = MergeRecipe.parse("age_class=1,emotion=0.5", lab.backbone.name)
    alone = answers(lab, photo, chosen)
    size = lab.backbone.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    sight = Sight(lab.serving, dict.fromkeys(names, pixels), {name: lab.adapter(name, 16).head for name in names})
    selection = Selection(names, [lab.adapter(name, 16).factors for name in names], [], sight)
    setting = Setting((1.0, 0.5), iteris.METHOD.turned({"images": 8}))
    over, faults = threading.Event(), list[BaseException]()

    def merge() -> None:
        try:
            iteris.METHOD.merge(selection, setting)
        except BaseException as error:  # noqa: BLE001 (told to the test's own thread below)
            faults.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=merge)
    thread.start()
    told = [answers(lab, photo, chosen)]
    while not over.is_set():
        told.append(answers(lab, photo, chosen))
    thread.join()
    assert not faults
    assert all(one == alone for one in told)


def answers(lab: Lab, photo: Photo, recipe: MergeRecipe) -> dict:
    """All that is said of a photo, without the times."""
    return {name: value for name, value in lab.predict(photo, recipe).to_json().items() if name != "milliseconds"}

"""The page in a browser, with the adapters that come with LoRA Lab, as a visitor meets it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, COMMAND, move, opened, shown, upload
from conftest import EXAMPLES, PORTRAIT
from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with opened(address) as page:
        yield page


def landmarks(answer: dict) -> np.ndarray:
    return np.array(answer["faces"][0]["predictions"]["landmarks"]["points"])


def predict(recipe: dict, path: Path) -> dict:
    path.write_text(json.dumps(recipe))
    command = [*COMMAND, "predict", str(PORTRAIT), "--recipe", str(path), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def assert_alike(one: object, two: object) -> None:
    """The same words, and the same numbers but for rounding."""
    if isinstance(one, dict) and isinstance(two, dict):
        assert one.keys() == two.keys()
        for name in one:
            assert_alike(one[name], two[name])
    elif isinstance(one, list) and isinstance(two, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_alike(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(two, abs=2e-3, rel=1e-4)
    else:
        assert one == two


def test_a_portrait_has_one_face_and_sliders_change_what_is_read(page: Page, tmp_path: Path):
    first = upload(page, PORTRAIT)
    assert len(first["faces"]) == 1
    assert first["recipe"]["method"] == "saved:six"
    assert {a["weight"] for a in first["recipe"]["adapters"]} == {1.0}
    face = page.locator("[data-part=face-1]")
    for task in ("age_class", "age_regression", "emotion", "landmarks"):
        row = face.locator(f"[data-task={task}]")
        merged, alone = row.locator(".ll-merged b").text_content(), row.locator(".ll-alone b").text_content()
        assert merged == first["faces"][0]["predictions"][task]["answer"]
        assert alone
    assert landmarks(first).shape == (68, 2)
    assert "ms" in (page.text_content("#times") or "")

    before = move(page, "landmarks", 0)
    # The kept merge has let go of the sliders, and the menu says so.
    page.wait_for_function("() => document.querySelector('#merge-method input').value === 'RegMean'")
    after = move(page, "landmarks", 1)
    assert before["recipe"]["method"] == after["recipe"]["method"] == "regmean"
    assert np.linalg.norm(landmarks(after) - landmarks(before), axis=1).mean() > 2
    for answer in (before, after):
        command = predict(answer["recipe"], tmp_path / "recipe.json")
        assert_alike(answer["faces"], command["faces"])
        assert_alike(answer["photo"], command["photo"])


def test_the_menu_changes_the_method_and_its_knobs(page: Page, tmp_path: Path):
    upload(page, PORTRAIT)
    choose(page, "TIES")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.method === 'ties'")
    assert "sign" in (page.text_content("#about-method") or "").lower()
    knob = page.locator("#knob-ties-density input[type=number]")
    knob.fill("0.5")
    knob.press("Enter")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.knobs.density === 0.5")
    answer = shown(page)
    assert_alike(answer["faces"], predict(answer["recipe"], tmp_path / "recipe.json")["faces"])
    page.click("#preset input")
    page.get_by_role("option", name="Best of all", exact=True).click()
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.method === 'saved:six'")
    assert not page.locator("#knob-ties-density").is_visible()


def choose(page: Page, title: str) -> None:
    """Take a method from the menu."""
    page.click("#merge-method input")
    page.get_by_role("option", name=title, exact=True).click()


def test_switches_presets_and_a_photo_without_a_face(page: Page):
    answer = upload(page, EXAMPLES / "hubble_spiral.jpg")
    assert answer["faces"] == []
    assert "no face was found" in (page.text_content(".ll-note") or "")
    assert set(answer["photo"]["predictions"]) == {"galaxy", "land_cover"}
    page.click("#on-land_cover input")
    page.wait_for_function("() => !document.querySelector('[data-task=land_cover]')")
    page.click("#preset input")
    page.get_by_role("option", name="All at 1", exact=True).click()
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.length === 6")
    assert page.input_value("#weight-galaxy input[type=number]") == "1"
    assert {a["weight"] for a in shown(page)["recipe"]["adapters"]} == {1.0}


def test_a_file_that_is_no_photo_is_told_on_the_page(page: Page, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image at all")
    page.set_input_files("#photo input[type=file]", str(broken))
    page.get_by_text("is no image that can be read").first.wait_for()

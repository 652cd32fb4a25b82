"""The tab *With photos*: merges on dropped photos, suggested weights, and what the mixer makes of factors by layer."""

import gc
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import numpy as np
import pytest
from browser import CHROMIUM, opened
from conftest import EXAMPLES, PORTRAIT
from PIL import Image
from playwright.sync_api import Page

from lora_lab.errors import DataError, LoraLabError
from lora_lab.findings import Interval
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.nearness import Figure
from lora_lab.recent import Recent
from lora_lab.saved_merges import own_folder
from lora_lab.sights import Pictures
from lora_lab.suggestions import Suggestion
from lora_lab.tasks import TASKS
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.images_panel import MOST_PHOTOS, free_name, merged, methods_of, pictures_of, wished
from lora_lab.ui.mixer import Mixer
from lora_lab.ui.stops import Running, StoppedError
from lora_lab.ui.suggest_view import NOTHING_BETTER, labelled, table_of, task_with

PORTRAITS = [PORTRAIT, EXAMPLES / "grace_hopper.jpg"]
TEXT = "age_class=1,emotion=1,galaxy=1"


def tell(share: float, what: str) -> None:
    assert 0 <= share <= 1
    assert what


def recipe(text: str = TEXT) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny")


@pytest.fixture
def lab(adapters_root: Path, own_cache: Path) -> Lab:
    """A lab of its own, with an empty cache."""
    return Lab("tiny", adapters_root)


def mixer_of(lab: Lab) -> Mixer:
    with gr.Blocks(analytics_enabled=False):
        return Mixer(lab, Expectations(lab))


# Gradio leaves an event loop behind in every page that is not launched; it is collected here, not in the next test.
@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


unlaunched = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def pictures(tiny_lab: Lab) -> Pictures:
    return Pictures.read(tiny_lab.serving, PORTRAITS)


@unlaunched
@pytest.mark.usefixtures("collected")
def test_photos_become_a_merge_that_the_mixer_shows(lab: Lab, pictures: Pictures):
    chosen = wished(recipe("age_class=0.2,emotion=0,galaxy=0.2"), methods_of(lab)[0][1], None, True)
    assert (chosen.method, {a.weight for a in chosen.adapters}) == ("iteris", {1.0})
    kept = merged(lab, chosen, free_name(lab, "", chosen.method), pictures, tell)
    assert kept.method == "saved:iteris-1"
    assert free_name(lab, " ", "iteris") == "iteris-2"
    assert "2 photos, 2 faces" in lab.merger.saved["saved:iteris-1"].card.images
    mixer = mixer_of(lab)
    update = mixer.rows(kept)[mixer.shown.index(mixer.method.name)]
    assert update["value"] == "saved:iteris-1"
    assert "saved:iteris-1" in [name for _, name in update["choices"]]


def test_a_stop_ends_the_work_and_keeps_nothing(lab: Lab, pictures: Pictures):
    running, request, told = Running(), gr.Request(session_hash="one"), []
    other = gr.Request(session_hash="two")

    def progress(share: float, desc: str) -> None:
        told.append(desc)
        running.stop(request)

    chosen = wished(recipe(), "iteris", "linear", True)
    with running.work(other, lambda share, desc: None) as others:
        with running.work(request, progress) as tell, pytest.raises(StoppedError, match="cancelled"):
            merged(lab, chosen, "mine", pictures, tell)
        others(0.5, "goes on, since another session was stopped")
    assert len(told) == 1
    assert lab.merger.saved == {}
    assert not own_folder("tiny").exists()
    with running.work(request, lambda share, desc: None) as tell:
        tell(0.1, "new work is not stopped")


@pytest.mark.parametrize("name", ["../out", "a/b", "-x", "x" * 41, "naïve", "a b", "<b>"])
def test_a_name_that_is_no_folder_is_refused(name: str, lab: Lab):
    with pytest.raises(LoraLabError, match="is no name: take at most 40 letters"):
        free_name(lab, name, "iteris")


def test_what_is_wrong_is_told(lab: Lab, pictures: Pictures, tmp_path: Path):
    merged(lab, wished(recipe(), "nsc", None, False), "mine", pictures, tell)
    (tmp_path / "no.jpg").write_bytes(b"nothing")
    seen: Recent[tuple[str, ...], Pictures] = Recent(1)
    with pytest.raises(LoraLabError, match="a merge named mine already"):
        free_name(lab, "Mine ", "iteris")
    with pytest.raises(LoraLabError, match="every adapter is switched off"):
        wished(None, "iteris", None, True)
    with pytest.raises(LoraLabError, match="there are no photos yet"):
        pictures_of(lab, seen, [], tell)
    with pytest.raises(LoraLabError, match=f"{MOST_PHOTOS} at most"):
        pictures_of(lab, seen, ["a.jpg"] * (MOST_PHOTOS + 1), tell)
    with pytest.raises(DataError, match=r"no\.jpg is no image") as told:
        pictures_of(lab, seen, [str(tmp_path / "no.jpg")], tell)
    assert "\n" not in str(told.value)


def figure(value: float) -> Figure:
    return Figure("accuracy", "own answers", Interval(value), 1 - value / 100)


def test_the_table_escapes_what_people_wrote():
    task = replace(TASKS["galaxy"], title="<script>alert(1)</script>")
    start, found = recipe("galaxy=1"), recipe("galaxy=0.5")
    html = table_of(Suggestion(found, start, {"galaxy": figure(20)}, {"galaxy": figure(60)}), {"galaxy": task})
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.index("<b>20.0</b>") < html.index("<b>60.0</b>")
    assert "% as alone" in html
    assert NOTHING_BETTER not in html
    same = table_of(Suggestion(start, start, {"galaxy": figure(20)}, {"galaxy": figure(20)}), {"galaxy": task})
    assert NOTHING_BETTER in same


def image(red: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (60, 60), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_of_a_zip_name_the_task(lab: Lab, tmp_path: Path):
    labels = TASKS["emotion"].labels[:2]
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for place, label in enumerate(labels):
            for i in range(2):
                archive.writestr(f"{label.upper()}/{i}.png", image(100 * place + i))
    seen = labelled(lab, lab.heads(recipe()), str(tmp_path / "few.zip"))
    assert set(seen.labels) == {"emotion"}
    reds = seen.pixels["emotion"][:, 0].mean((1, 2)).numpy()
    assert (seen.labels["emotion"].numpy() == (reds > np.median(reds))).all()
    assert len(seen.pixels["galaxy"]) == 4
    task, places = task_with(["46-60", "0–15"], [TASKS["emotion"], replace(TASKS["age_class"], labels=("0–15", "46–60"))])
    assert (task.name, places) == ("age_class", [1, 0])
    with pytest.raises(LoraLabError, match="the folders rose are the classes of no task"):
        task_with(["rose"], [TASKS["emotion"]])
    with pytest.raises(LoraLabError, match="there is no zip yet"):
        labelled(lab, lab.heads(recipe()), None)


def values_of(updates: list[Any]) -> list[Any]:
    """What the components hold after updates."""
    return [one.get("value") if isinstance(one, dict) and "__type__" in one else one for one in updates]


@unlaunched
@pytest.mark.usefixtures("collected")
def test_factors_by_layer_stand_in_the_mixer_until_the_method_is_changed(lab: Lab):
    mixer = mixer_of(lab)
    plain = recipe("age_class=0.5,galaxy=1")
    one, two = plain.adapters
    layered = plain.model_copy(update={"adapters": (one.model_copy(update={"layers": (1.0, 0.25)}), two)})
    held = dict(zip(map(id, mixer.shown), values_of(mixer.rows(layered)), strict=True))
    ranks = {id(slot.rank): 16 for slot in mixer.slots}
    values = [ranks.get(id(part), held[id(part)]) for part in mixer.values]
    assert mixer.recipe(values) == layered
    assert "age_class" in held[id(mixer.layers.told)]
    held |= dict(zip(map(id, mixer.layers.parts), mixer.layers.shown({}), strict=True))
    values = [ranks.get(id(part), held[id(part)]) for part in mixer.values]
    assert mixer.recipe(values) == plain
    assert held[id(mixer.layers.told)] == ""


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with opened(address) as page:
        page.get_by_role("tab", name="With photos").click()
        page.wait_for_selector("#photos")
        yield page


@pytest.fixture
def free() -> Iterator[str]:
    """A name for a merge, which is gone afterwards: the page keeps merges in the user's cache."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    shutil.rmtree(own_folder("dinov2-small") / name, ignore_errors=True)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_two_portraits_become_a_merge_and_the_records_suggest_weights(page: Page, free: str):
    for name in ("galaxy", "land_cover", "age_regression", "landmarks"):
        page.get_by_role("tab", name="Merge", exact=True).click()
        page.locator(f"#on-{name} input").uncheck()
    page.get_by_role("tab", name="With photos").click()
    page.set_input_files("#photos input[type=file]", [str(path) for path in PORTRAITS])
    page.get_by_text("2 photos, 2 faces found").wait_for()
    page.locator("#photos-name textarea, #photos-name input").first.fill(free)
    page.locator("#photos-merge").click()
    page.wait_for_function(
        "(name) => document.querySelector('#merge-method input').value.toLowerCase().startsWith(name)", arg=free
    )
    assert page.get_by_role("tab", name="Merge", exact=True).get_attribute("aria-selected") == "true"
    assert page.input_value("#weight-emotion input[type=number]") == "1"
    assert not page.is_checked("#on-galaxy input")

    page.get_by_role("tab", name="With photos").click()
    page.locator("#suggest").click()
    page.wait_for_selector("#suggested [data-suggested=emotion]")
    page.locator("#use-suggested").click()
    # Which method that is, the records say; the kept merge, which knows these weights alone, has let go.
    page.wait_for_function(
        """(name) => {
            const recipe = JSON.parse(document.querySelector(".ll-json")?.textContent || "null")?.recipe;
            return recipe && recipe.method !== "saved:" + name && recipe.adapters.length === 2;
        }""",
        arg=free,
    )
    assert not page.input_value("#merge-method input").lower().startswith(free)

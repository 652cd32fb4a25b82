"""What the photo inputs show: nothing of a file that cannot be read, and all that Pillow reads, whatever browsers know."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, opened, shown, upload
from conftest import PORTRAIT
from PIL import Image
from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
LOADED = "(name) => document.querySelector(`${name} img`)?.naturalWidth > 0"
EMPTY = "(name) => !document.querySelector(`${name} img`)"
INPUTS = {"#photo": "Merge", "#compose-photo": "New task"}


@pytest.fixture
def page(tiny_address: str) -> Iterator[Page]:
    with opened(tiny_address) as page:
        page.wait_for_selector(".ll-part")
        yield page


@pytest.fixture(params=["png", "gif", "jpg", "tif"])
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"broken.{request.param}"
    path.write_bytes(b"GIF89a" + bytes(37) if request.param == "gif" else b"no picture at all\n" * 20)
    return path


@pytest.mark.parametrize("name", INPUTS)
def test_a_file_that_cannot_be_read_is_taken_away_and_told(page: Page, broken: Path, name: str):
    page.get_by_role("tab", name=INPUTS[name], exact=True).click()
    page.set_input_files(f"{name} input[type=file]", str(broken))
    page.wait_for_selector(".toast-body")
    assert f"{broken.name} is no image that can be read" in (page.text_content(".toast-wrap") or "")
    assert page.locator(".toast-body").count() == 1
    page.wait_for_function(EMPTY, arg=name)
    if name == "#photo":
        page.wait_for_function("() => document.querySelector('#answers').textContent.includes('photo')")
        assert page.locator(".ll-part").count() == 0
    # The input takes the next one.
    page.set_input_files(f"{name} input[type=file]", str(PORTRAIT))
    page.wait_for_function(LOADED, arg=name)


@pytest.mark.parametrize("ending", ["tif", "ppm", "tga", "heic"])
def test_a_format_that_browsers_do_not_know_is_shown_and_answered_as_it_is(page: Page, tmp_path: Path, ending: str):
    if ending == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    plain, other = tmp_path / "plain.png", tmp_path / f"other.{ending}"
    with Image.open(PORTRAIT) as image:
        image.convert("RGB").save(other)
    with Image.open(other) as image:
        image.convert("RGB").save(plain)
    wanted = upload(page, plain)
    upload(page, PORTRAIT.parent / "grace_hopper.jpg")
    found = upload(page, other)
    page.wait_for_function(LOADED, arg="#photo")
    assert found["faces"] == wanted["faces"]
    assert shown(page)["faces"] == wanted["faces"]

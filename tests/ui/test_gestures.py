"""A visitor's gestures in a browser: what undo takes back, which numbers are taken, what a preset and a link say of them."""

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, move, move_only, opened, shown
from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SHOWS = """([name, weight]) => Number(document.querySelector(`#weight-${name} input[type=number]`).value) === weight"""
READY = "(name) => !document.querySelector(name).disabled"


@pytest.fixture
def page(tiny_address: str) -> Iterator[Page]:
    with opened(tiny_address) as page:
        page.wait_for_selector(".ll-part")
        yield page


def weight(page: Page, name: str) -> float:
    return float(page.input_value(f"#weight-{name} input[type=number]"))


def drag(page: Page, name: str, shares: list[float]) -> None:
    """Hold a slider, and draw it over places between its ends."""
    box = page.locator(f"#weight-{name} input[type=range]").bounding_box()
    assert box
    page.mouse.move(box["x"] + shares[0] * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in shares[1:]:
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


def press(page: Page, button: str, name: str, weight: float) -> None:
    page.wait_for_function(READY, arg=button)
    page.click(button)
    page.wait_for_function(SHOWS, arg=[name, weight])


def test_a_whole_drag_is_one_step_back_and_forth(page: Page):
    start = weight(page, "emotion")
    page.locator("#weight-emotion").scroll_into_view_if_needed()
    assert page.is_disabled("#undo")
    assert page.is_disabled("#redo")
    drag(page, "emotion", [0.5, 0.6, 0.3, 0.8])
    dragged = weight(page, "emotion")
    assert dragged > 1
    page.wait_for_function(READY, arg="#undo")
    press(page, "#undo", "emotion", start)
    page.wait_for_function("() => document.querySelector('#undo').disabled")
    press(page, "#redo", "emotion", dragged)
    move(page, "emotion", 0.2)
    page.wait_for_function("() => document.querySelector('#redo').disabled")
    press(page, "#undo", "emotion", dragged)


@pytest.mark.parametrize(("typed", "weight_of"), [("99", 2.0), ("-5", -1.0), ("", 0.0)])
def test_a_number_out_of_range_is_shown_in_range_and_answered(page: Page, typed: str, weight_of: float):
    box = page.locator("#weight-emotion input[type=number]")
    box.fill(typed)
    box.press("Tab")
    page.wait_for_function(SHOWS, arg=["emotion", weight_of])
    page.wait_for_function(
        """(weight) => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters
            .some(a => a.name === 'emotion' && a.weight === weight)""",
        arg=weight_of,
    )
    assert page.locator(".toast-wrap .toast-body").count() == 0


def test_the_grids_numbers_are_shown_in_range(page: Page):
    page.get_by_role("tab", name="Grid", exact=True).click()
    page.fill("#grid-high input", "77")
    page.press("#grid-high input", "Tab")
    page.wait_for_function("() => document.querySelector('#grid-high input').value === '2'")


def test_a_preset_that_no_longer_holds_is_custom(page: Page):
    says = "(title) => document.querySelector('#preset input').value === title"
    page.click("#preset input")
    page.get_by_role("option", name="All at 1").click()
    page.wait_for_function(SHOWS, arg=["galaxy", 1])
    page.wait_for_function(says, arg="All at 1")
    move_only(page, "galaxy", 0.5)
    page.wait_for_function(says, arg="Custom")
    press(page, "#undo", "galaxy", 1)
    page.wait_for_function(says, arg="All at 1")
    page.click("#on-emotion input")
    page.wait_for_function(says, arg="Custom")
    page.click("#on-emotion input")
    page.wait_for_function(says, arg="All at 1")
    page.click("#merge-method input")
    page.get_by_role("option", name="TIES", exact=True).click()
    page.wait_for_function(says, arg="Custom")


def test_a_link_keeps_the_weight_of_an_adapter_that_is_off(page: Page):
    move(page, "landmarks", 0.6)
    page.click("#on-landmarks input")
    page.wait_for_function(
        "() => !JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.some(a => a.name === 'landmarks')"
    )
    merge = shown(page)["recipe"]
    page.get_by_role("tab", name="Take away", exact=True).click()
    page.wait_for_function("() => document.querySelector('#link textarea, #link input').value.includes('recipe=')")
    page.wait_for_timeout(500)
    page.goto(page.input_value("#link textarea, #link input"))
    page.wait_for_selector(".ll-part")
    page.wait_for_function(SHOWS, arg=["landmarks", 0.6])
    assert not page.is_checked("#on-landmarks input")
    page.wait_for_function("() => JSON.parse(document.querySelector('.ll-json').textContent).recipe.adapters.length === 5")
    assert shown(page)["recipe"] == merge
    # What the page began with before the link was read is no step to go back to.
    page.wait_for_timeout(500)
    assert page.is_disabled("#undo")
    move(page, "emotion", 0.3)
    page.wait_for_function(READY, arg="#undo")


def test_two_presses_at_once_go_two_steps_back_and_forth(page: Page):
    for weight in (0.2, 0.4, 0.6):
        move(page, "emotion", weight)
    page.wait_for_function(READY, arg="#undo")
    page.dblclick("#undo")
    page.wait_for_function(SHOWS, arg=["emotion", 0.2])
    page.wait_for_function(READY, arg="#redo")
    page.dblclick("#redo")
    page.wait_for_function(SHOWS, arg=["emotion", 0.6])

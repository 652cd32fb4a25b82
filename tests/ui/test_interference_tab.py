"""The tab *Interference* in a browser: measures, a click that loads a merge, the forecast, and files to take away."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, move_only, opened
from playwright.sync_api import Page

from lora_lab.findings import METRIC, RETENTION, Findings, Interval, Merge
from lora_lab.forecast import findings_in
from lora_lab.records import RECORDS, TRAININGS, RecordFile

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PAIR = Merge(("age_class", "landmarks"))
CELL = '#pairs [data-merge="age_class:r16=1.0,landmarks:r16=1.0"]'


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with opened(address) as page:
        page.get_by_role("tab", name="Interference").click()
        page.wait_for_selector(CELL)
        yield page


def recorded(task: str) -> Interval:
    found = Findings(RecordFile().read(), "dinov2-small").score(task, PAIR, METRIC)
    assert found is not None
    return found


def choose(page: Page, name: str, option: str) -> None:
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def basis(page: Page, task: str) -> str:
    return page.locator(f"[data-expected={task}] .ll-basis").inner_text()


def test_a_click_on_a_cell_loads_its_merge_and_says_that_it_was_measured(page: Page):
    choose(page, "measure", "Metric")
    shown = f"{recorded('age_class').value:.1f}"
    page.wait_for_function("([cell, text]) => document.querySelector(cell)?.textContent.includes(text)", arg=[CELL, shown])
    assert str(recorded("age_class")) in (page.locator(CELL).first.locator("title").text_content() or "")
    page.locator(CELL).first.click()
    page.wait_for_function("() => document.querySelectorAll('[data-expected]').length === 2")
    assert page.get_by_role("tab", name="Merge").get_attribute("aria-selected") == "true"
    for name in ("age_class", "landmarks"):
        assert page.input_value(f"#weight-{name} input[type=number]") == "1"
        assert page.is_checked(f"#on-{name} input")
        assert basis(page, name) == "measured"
        assert f"{recorded(name).value:.1f}" in page.locator(f"[data-expected={name}]").inner_text()
    assert not page.is_checked("#on-emotion input")

    move_only(page, "landmarks", 0.33)
    page.wait_for_function("() => document.querySelector('[data-expected=age_class] .ll-basis').textContent === 'forecast'")
    move_only(page, "landmarks", -0.5)
    page.wait_for_function("() => document.querySelector('[data-expected=age_class] .ll-basis').textContent === 'not known'")


def test_the_papers_figures_and_larger_sets(page: Page):
    page.get_by_label("The paper's tables").check()
    page.wait_for_function("(cell) => document.querySelector(cell)?.textContent.includes('10.3')", arg=CELL)
    page.locator("#size").get_by_label("3").check()
    page.wait_for_function("() => document.querySelectorAll('#sets .ll-cell').length === 20 * 5")
    page.locator("#sets [data-merge]").first.click()
    page.wait_for_function("() => document.querySelectorAll('[data-expected]').length === 3")


def test_other_methods_and_shorter_training_are_shown(page: Page):
    everything = findings_in(RECORDS.parent, "dinov2-small")
    kept = everything.score("age_class", Merge(PAIR.names, 16, "tsv_m"), RETENTION)
    assert kept
    choose(page, "method", "TSV-M")
    page.wait_for_function("(text) => document.querySelector('#pairs svg').textContent.includes(text)", arg=f"{kept.value:.1f}")
    page.locator("#pairs [data-merge*=tsv_m]").first.click()
    page.wait_for_function("() => document.querySelector('#merge-method input').value === 'TSV-M'")
    page.get_by_role("tab", name="Interference").click()
    page.locator("#training").get_by_label("short").check()
    short = findings_in(TRAININGS["short"], "dinov2-small").score("age_class", PAIR, RETENTION)
    assert short
    page.wait_for_function(
        "(text) => document.querySelector('#pairs svg').textContent.includes(text)", arg=f"{short.value:.1f}"
    )
    assert page.input_value("#method input") == "Exact sum, weights 1", "TSV-M was not measured there"
    assert page.locator("#pairs [data-merge]").count() == 0, "nothing of it can be loaded"
    assert page.locator(".toast-body").count() == 0
    page.get_by_text("Stronger alone, or better merged").click()
    page.wait_for_selector("#frontier .scatterlayer .point")
    page.wait_for_selector("#costs .scatterlayer .point")


def test_figures_and_a_picture_can_be_taken_away(page: Page, tmp_path: Path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Picture (PNG)").click()
    download.value.save_as(tmp_path / "pairs.png")
    assert (tmp_path / "pairs.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "pairs.png").stat().st_size > 20_000
    with page.expect_download() as download:
        page.locator("#csv").click()
    download.value.save_as(tmp_path / "pairs.csv")
    table = pd.read_csv(tmp_path / "pairs.csv")
    row = table[(table.task == "age_class") & (table.adapters == "age_class+landmarks")]
    kept = 100 * recorded("age_class").value
    assert len(row) == 1
    alone = Findings(RecordFile().read(), "dinov2-small").score("age_class", Merge(("age_class",)), METRIC)
    assert alone is not None
    assert float(row.value.iloc[0]) == pytest.approx(kept / alone.value, rel=1e-4)


def test_charts_are_drawn(page: Page):
    page.get_by_text("A pair's weights").click()
    page.wait_for_selector("#contour-0 .contourlayer")
    page.wait_for_selector("#contour-1 .contourlayer")
    page.get_by_text("From the weights alone").click()
    page.wait_for_selector("#layers .heatmaplayer")
    page.wait_for_selector("#foretold .scatterlayer .point")
    assert page.locator("#foretold .scatterlayer .point").count() == 30
    assert "over 30 directed pairs" in page.locator("#foretells").inner_text()

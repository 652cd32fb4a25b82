"""What stands under the sliders, and that nothing is said of adapters that were not measured."""

import gc
import shutil
from pathlib import Path

import pytest

from lora_lab.cards import PRETRAINED
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.ui import build
from lora_lab.ui.expectations import Expectations
from lora_lab.ui.interference_panel import NO_RECORDS


@pytest.fixture
def some_adapters(tmp_path: Path) -> Path:
    """Two of the adapters that come with LoRA Lab, in a folder of their own."""
    for name in ("emotion", "galaxy"):
        shutil.copytree(PRETRAINED / "dinov2-small" / name, tmp_path / "dinov2-small" / name)
    return tmp_path


def test_expected_scores_are_told_with_their_bounds():
    expectations = Expectations(Lab())
    lines = expectations.lines(MergeRecipe.parse("emotion=1,galaxy=0.7", "dinov2-small"))
    assert set(lines) == {"emotion", "galaxy"}
    for name, line in lines.items():
        assert f'data-expected="{name}"' in line
        assert ">forecast</span>" in line
        assert "% macro F1" in line
        assert "% of alone" in line
    assert expectations.lines(None) == {}


def test_nothing_is_said_of_other_adapters(tiny_lab: Lab, some_adapters: Path):
    lab = Lab(adapters=some_adapters)
    for other in (tiny_lab, lab):
        expectations = Expectations(other)
        assert expectations.findings is None
        assert expectations.lines(other.uniform()) == {}


# Gradio leaves an event loop behind in every page that is not launched; it is collected here, not in the next test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_opens_without_records(some_adapters: Path):
    page = build(Lab(adapters=some_adapters))
    texts = [getattr(block, "value", None) for block in page.blocks.values()]
    del page
    gc.collect()
    assert NO_RECORDS.strip() in [text.strip() for text in texts if isinstance(text, str)]

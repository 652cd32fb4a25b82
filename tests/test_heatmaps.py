"""Heatmaps and charts: each figure with its interval, the colour of what is kept, and the merge that a click loads."""

import re
from typing import Any

import pandas as pd

from lora_lab.findings import MEASURES, Merge
from lora_lab.heatmaps import pair_merges, pairs_svg, sets_svg, table
from lora_lab.matrix import Cell, matrix_svg
from lora_lab.merging import MergeRecipe
from lora_lab.paper import Paper
from lora_lab.plots import colour_of, layer_map, weight_contour
from lora_lab.ui.common import as_csv


def test_cells_say_their_figure_and_their_merge():
    svg = matrix_svg("a <title>", ["one", "two"], ["x"], [[Cell("61.0", 61.0, "kept: 61 (55–67)", "emotion:r16=1.0")], [None]])
    assert svg.count('class="ll-cell"') == 1
    assert 'data-merge="emotion:r16=1.0"' in svg
    assert "<title>kept: 61 (55–67)</title>" in svg
    assert colour_of(61.0)[0] in svg
    assert "a &lt;title&gt;" in svg


def test_colours_go_from_dark_to_light_and_text_can_be_read():
    def brightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    steps = [colour_of(percent) for percent in range(0, 101, 5)]
    fills = [brightness(fill) for fill, _ in steps]
    assert fills == sorted(fills)
    assert all(abs(brightness(fill) - brightness(ink)) > 80 for fill, ink in steps)
    assert colour_of(-20) == colour_of(0)
    assert colour_of(130) == colour_of(100)


def test_the_papers_pairs_load_our_merge():
    svg = pairs_svg(Paper(), 16, "exact", MEASURES["retention"])
    assert len(re.findall('class="ll-cell"', svg)) == 36
    merges = set(re.findall('data-merge="([^"]+)"', svg))
    assert "age_class:r16=1.0,land_cover:r16=1.0" in merges
    for text in merges:
        assert MergeRecipe.parse(text, "tiny").adapters
    assert ">10.3</text>" in svg  # 7.6 of 73.7


def test_tables_are_csv():
    paper = Paper()
    frame = table(paper, pair_merges(paper, 64, "exact"), MEASURES["metric"])
    written = pd.read_csv(as_csv(frame, "figures"))
    assert list(written.columns) == ["task", "adapters", "rank", "method", "measure", "value", "low", "high"]
    assert len(written) == 6 + 30


def test_larger_sets_come_best_first():
    paper = Paper()
    merges = [Merge(("fire_risk", "galaxy", third)) for third in ("landmarks", "age_class")]
    svg = sets_svg(paper, merges, MEASURES["retention"])
    assert svg.index("galaxy + age group") < svg.index("galaxy + landmarks")


def test_figures_of_plotly():
    frame = pd.DataFrame(
        [{"task": "a", "partner": "b", "layer": layer, "value": layer / 10} for layer in (0, 1, 10, 2) for _ in range(2)]
    )
    heat: Any = layer_map(frame, "title").data[0]
    assert list(heat.x) == ["layer 1", "layer 2", "layer 3", "layer 11"]
    assert [round(float(z), 3) for z in heat.z[0]] == [0.0, 0.1, 0.2, 1.0]
    grid = pd.DataFrame([{"x": x, "y": y, "value": 50 + x - y} for x in (0.0, 1.0) for y in (0.0, 1.0)])
    figure: Any = weight_contour(grid, ("one", "two"), "title", (0.5, 0.25))
    field = figure.data[0]
    assert [round(float(field.z[i][j]), 6) for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [50, 51, 49, 50]
    assert (field.x[-1], field.y[-1]) == (1, 1)
    assert (figure.data[2].x[0], figure.data[2].y[0]) == (0.5, 0.25)

"""Numbers to plotly figures. A colour means one thing everywhere: how much is kept, dark for nothing, light for all.

Its scale is cividis, which people who confuse red and green read as others do. What is not a share kept is purple.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale, unlabel_rgb
from scipy.interpolate import LinearNDInterpolator

if TYPE_CHECKING:
    import pandas as pd

SCALE = "Cividis"
# For what is not a share kept.
OTHER_SCALE = "Purples"
MARK = "#d62728"
FINE = 31
GROUPS = ("#e69f00", "#56779e")
"""Colours of groups that are compared, which people who confuse red and green tell apart."""

JOINED: dict[str, Any] = {"width": 1, "color": "rgba(120, 120, 120, 0.4)"}
UNNAMED: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
BELOW = {"orientation": "h", "y": -0.2}
FONT = {"family": "system-ui, sans-serif", "size": 13}


def colour_of(percent: float) -> tuple[str, str]:
    """The colour of a share kept, 0–100 and beyond them the ends, and the one in which text on it can be read."""
    rgb = sample_colorscale(SCALE, [min(max(percent / 100, 0.0), 1.0)])[0]
    red, green, blue = unlabel_rgb(rgb)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 120
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}", "#101010" if bright else "#ffffff"


def layer_map(frame: "pd.DataFrame", title: str) -> go.Figure:
    """A measure of the weights by layer and directed pair; columns task, partner, layer, value, in the order of the rows."""
    table = frame.assign(pair=frame.task + " ← " + frame.partner).pivot_table("value", "pair", "layer", "mean", sort=False)
    table = table[sorted(table.columns)]
    heat = go.Heatmap(
        z=table.to_numpy(),
        x=[f"layer {int(layer) + 1}" for layer in table.columns],
        y=list(table.index),
        colorscale=OTHER_SCALE,
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    )
    return _laid_out(go.Figure(heat), title, height=120 + 19 * len(table)).update_yaxes(autorange="reversed", tickfont_size=11)


def harm_scatter(x: Sequence[float], harm: Sequence[float], names: Sequence[str], titles: tuple[str, str]) -> go.Figure:
    """Measured interference over a measure of the weights, a dot for each directed pair."""
    dots = go.Scatter(
        x=list(x),
        y=list(harm),
        text=list(names),
        mode="markers",
        marker={
            "size": 10,
            "color": list(harm),
            "colorscale": SCALE,
            "reversescale": True,
            "line": {"width": 1, "color": "#333"},
        },
        hovertemplate="%{text}<br>%{x:.3f}: %{y:.1f}<extra></extra>",
    )
    figure = _laid_out(go.Figure(dots), f"{titles[1]} over {titles[0].lower()}", height=380)
    return figure.update_xaxes(title=titles[0]).update_yaxes(title=titles[1])


Points = Mapping[str, Mapping[str, tuple[float, float]]]


def frontier_scatter(points: Points, titles: tuple[str, str]) -> go.Figure:
    """Scores alone (x) and merged (y) by group and, within it, by method; a grey line joins a method's groups."""
    figure = go.Figure()
    for method in dict.fromkeys(name for of in points.values() for name in of):
        line = [of[method] for of in points.values() if method in of]
        figure.add_scatter(x=[x for x, _ in line], y=[y for _, y in line], line=JOINED, **UNNAMED)
    for (group, of), colour in zip(points.items(), GROUPS, strict=False):
        figure.add_scatter(
            x=[x for x, _ in of.values()],
            y=[y for _, y in of.values()],
            text=list(of),
            name=group,
            mode="markers",
            marker={"size": 9, "color": colour, "line": {"width": 1, "color": "#333"}},
            hovertemplate="%{text}<br>%{x:.1f} alone, %{y:.1f} merged<extra></extra>",
        )
    alone = [x for of in points.values() for x, _ in of.values()]
    ends = [min(alone), max(alone)] if alone else []
    figure.add_scatter(x=ends, y=ends, line={"dash": "dash", "color": "#888"}, **UNNAMED)
    figure = _laid_out(figure, f"{titles[0]}, and {titles[1]}", height=420).update_layout(legend=BELOW)
    return figure.update_xaxes(title=titles[0]).update_yaxes(title=titles[1])


def cost_scatter(
    groups: Mapping[str, Sequence[tuple[float, float, str]]], front: Sequence[tuple[float, float]], titles: tuple[str, str]
) -> go.Figure:
    """What merges cost (seconds, on a logarithmic axis) and keep, each with its words, by group; steps along the front."""
    figure = go.Figure()
    for (name, rows), colour in zip(groups.items(), GROUPS, strict=False):
        figure.add_scatter(
            x=[row[0] for row in rows],
            y=[row[1] for row in rows],
            text=[row[2] for row in rows],
            name=name,
            mode="markers",
            marker={"size": 9, "color": colour, "line": {"width": 1, "color": "#333"}},
            hovertemplate="%{text}<br>%{x:.2f} s, %{y:.1f} % kept<extra></extra>",
        )
    steps = {"shape": "hv", "color": "#888"}
    figure.add_scatter(x=[x for x, _ in front], y=[y for _, y in front], line=steps, **UNNAMED)
    figure = _laid_out(figure, f"{titles[1]} over {titles[0]}", height=420).update_layout(legend=BELOW)
    return figure.update_xaxes(title=titles[0], type="log").update_yaxes(title=titles[1])


def weight_contour(frame: "pd.DataFrame", axes: tuple[str, str], title: str, now: tuple[float, float] | None) -> go.Figure:
    """What a task keeps over a pair's weights; columns x, y, value (retention, %); `now` is where the sliders stand."""
    ends = [(float(frame[axis].min()), float(frame[axis].max())) for axis in "xy"]
    x, y = (np.linspace(*end, FINE) for end in ends)
    between = LinearNDInterpolator(frame[["x", "y"]].to_numpy(), frame.value.to_numpy())
    field = go.Contour(
        z=between(*np.meshgrid(x, y)),
        x=x,
        y=y,
        colorscale=SCALE,
        zmin=0,
        zmax=100,
        contours={"start": 10, "end": 100, "size": 10, "showlabels": True},
        colorbar={"title": "retention, %"},
        hovertemplate=f"{axes[0]} %{{x:.3g}}, {axes[1]} %{{y:.3g}}: %{{z:.1f}} %<extra></extra>",
    )
    measured = go.Scatter(
        x=frame.x, y=frame.y, mode="markers", marker={"size": 5, "color": "#fff", "line": {"width": 1, "color": "#000"}},
        name="measured", hoverinfo="skip",
    )  # fmt: skip
    figure = go.Figure([field, measured])
    if now:
        cross = {"size": 15, "symbol": "x", "color": MARK, "line": {"width": 1, "color": "#fff"}}
        figure.add_scatter(x=[now[0]], y=[now[1]], mode="markers", marker=cross, name="sliders now")
    figure = _laid_out(figure, title, height=420).update_layout(legend=BELOW)
    return figure.update_xaxes(title=f"weight of {axes[0]}").update_yaxes(title=f"weight of {axes[1]}")


def _laid_out(figure: go.Figure, title: str, height: int) -> go.Figure:
    return figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        font=FONT,
        height=height,
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
        template="plotly_white",
    ).update_xaxes(automargin=True).update_yaxes(automargin=True)  # fmt: skip


def layer_weights(layers: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """The weight of each adapter at each layer, in 0–1, by the adapter's title."""
    heat = go.Heatmap(
        z=list(layers.values()),
        x=[f"layer {number}" for number in range(1, 1 + max(map(len, layers.values())))],
        y=list(layers),
        colorscale=OTHER_SCALE,
        zmin=0,
        colorbar={"title": "weight", "tickformat": ".0%"},
        hovertemplate="%{y}, %{x}: %{z:.1%}<extra></extra>",
    )
    return _laid_out(go.Figure(heat), title, height=120 + 34 * len(layers)).update_yaxes(autorange="reversed")

"""A matrix of figures as SVG: values in coloured cells, more on hover, and each cell names the merge that it is of."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lora_lab.plots import colour_of

CELL_WIDTH, CELL_HEIGHT, HEAD, FOOT = 104, 42, 26, 46
STEPS = 20
EMPTY = "#ececec"


@dataclass(frozen=True)
class Cell:
    """One figure: its text, the share kept in percent that colours it (grey if none), what hover says, and its merge."""

    text: str
    kept: float | None
    hover: str
    merge: str = ""


def matrix_svg(title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell | None]]) -> str:
    """A labelled row for each sequence of cells; none leaves a gap."""
    side = 16 + 7 * max(map(len, rows), default=0)
    width, height = side + CELL_WIDTH * len(columns) + 8, 2 * HEAD + CELL_HEIGHT * len(rows) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="group" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<text x="8" y="18" font-weight="600" fill="#555">{escape(title)}</text>',
    ]
    for i, column in enumerate(columns):
        middle = side + CELL_WIDTH * (i + 0.5)
        parts.append(f'<text x="{middle}" y="{2 * HEAD - 8}" text-anchor="middle" fill="#555">{escape(column)}</text>')
    for i, (row, line) in enumerate(zip(rows, cells, strict=True)):
        top = 2 * HEAD + CELL_HEIGHT * i
        parts.append(f'<text x="{side - 8}" y="{top + 26}" text-anchor="end" fill="#555">{escape(row)}</text>')
        parts += [_cell(cell, side + CELL_WIDTH * j, top) for j, cell in enumerate(line) if cell]
    return "".join([*parts, _legend(side, height - FOOT + 16), "</svg>"])


def _legend(x: float, y: float) -> str:
    steps = "".join(
        f'<rect x="{x + 9 * i}" y="{y}" width="9" height="12" fill="{colour_of(100 * (i + 0.5) / STEPS)[0]}"/>'
        for i in range(STEPS)
    )
    after = x + 9 * STEPS + 8
    return f'{steps}<text x="{after}" y="{y + 11}" fill="#555">kept: 0 to 100 %; grey: not measured, or means nothing</text>'


def _cell(cell: Cell, x: float, y: float) -> str:
    fill, ink = colour_of(cell.kept) if cell.kept is not None else (EMPTY, "#555555")
    acts = f'data-merge="{escape(cell.merge)}" tabindex="0" role="button"' if cell.merge else ""
    return (
        f'<g class="ll-cell" {acts} aria-label="{escape(cell.hover)}"><title>{escape(cell.hover)}</title>'
        f'<rect x="{x + 1}" y="{y + 1}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" rx="3" fill="{fill}"/>'
        f'<text x="{x + CELL_WIDTH / 2}" y="{y + 26}" text-anchor="middle" fill="{ink}">{escape(cell.text)}</text></g>'
    )

"""The card of one adapter: switch, weight, rank and solo, and what there is to know of it."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from lora_lab.adapters import Adapter
from lora_lab.lab import Lab
from lora_lab.lora import norm_of, norms_by_layer
from lora_lab.merging import RecipeAdapter
from lora_lab.merging.recipe import HIGHEST, LOWEST
from lora_lab.recent import Recent
from lora_lab.ui.expectations import score_line
from lora_lab.ui.method_row import DECIMALS
from lora_lab.ui.visitors import asking
from lora_lab.ui.words import _

SEATS = 4096
"""Of how many visitors a spare card remembers whose it is."""
FULL_BAR = 1.0
"""The norm of a layer's change that fills a bar, where none is larger."""


class Slot:
    """The card of one adapter, laid out where it is made; it is switched off where it has no weight to begin with.

    A spare one has no name and is not seen, until it is given that of an adapter that has joined while the page is served.
    """

    def __init__(self, lab: Lab, place: str, name: str | None = None, weight: float | None = None):
        self._fixed, self._seated = name, Recent[str | None, str | None](SEATS)
        self._lab = lab
        self._norms = Recent[Adapter, list[float]](4)
        with gr.Column(elem_classes="ll-card", visible=name is not None) as self.card:
            with gr.Row(elem_classes="ll-slot"):
                self.on = gr.Checkbox(
                    weight is not None, label=_("on"), container=False, scale=0, min_width=52, elem_id=f"on-{place}"
                )
                self.weight = gr.Slider(
                    LOWEST,
                    HIGHEST,
                    round(weight or 0.0, DECIMALS),
                    step=0.01,
                    label=self.title,
                    min_width=120,
                    elem_id=f"weight-{place}",
                )
                self.rank = gr.Dropdown(
                    self._choices,
                    value=self._choices[0][1] if name else None,
                    label=self._rank_label,
                    show_label=False,
                    scale=0,
                    min_width=88,
                    interactive=len(self._choices) > 1,
                    elem_id=f"rank-{place}",
                )
                self.solo = gr.Button(
                    _("Solo"), size="sm", scale=0, min_width=56, elem_id=f"solo-{place}", elem_classes="ll-solo"
                )
            self.about = gr.HTML(self.told(self._choices[0][1]) if name else "", elem_id=f"about-{place}")
            self.here = gr.HTML(elem_id=f"here-{place}")

    @property
    def name(self) -> str | None:
        """The adapter whose card it is; a spare one may be another's for each visitor."""
        return self._fixed or self._seated.get(asking(), lambda: None)

    @name.setter
    def name(self, name: str | None) -> None:
        self._seated.swap(asking(), name)

    @property
    def title(self) -> str:
        """What people call the task."""
        return self._lab.tasks()[self.name].title if self.name else ""

    @property
    def _rank_label(self) -> str:
        return _("rank of {task}").format(task=self.title)

    @property
    def _choices(self) -> list[tuple[str, int]]:
        return [(f"r{rank}", rank) for rank in sorted(self._lab.ranks().get(self.name or "", []))]

    @property
    def parts(self) -> list[Any]:
        """The components that `shown` updates."""
        return [self.card, self.weight, self.rank, self.about]

    def shown(self, rank: int | None) -> list[Any]:
        """Updates of `parts` for the adapter that the card is of now, where it stands at a rank."""
        ranks = self._choices
        if not ranks:
            return [gr.update(visible=False), *(gr.skip() for _ in self.parts[1:])]
        rank = rank if rank in dict(ranks).values() else ranks[0][1]
        menu = gr.update(choices=ranks, value=rank, label=self._rank_label, interactive=len(ranks) > 1)
        return [gr.update(visible=True), gr.update(label=self.title), menu, self.told(rank)]

    def depth(self, one: RecipeAdapter) -> str:
        """A bar for each layer, what the adapter changes there at its weight; a line where factors were learned."""
        adapter = self._lab.adapter(one.name, one.rank)
        norms = self._norms.get(adapter, lambda: norms_by_layer(adapter.factors))
        shares = one.layers or (1.0,) * len(norms)
        return depth_svg([norm * one.weight * share for norm, share in zip(norms, shares, strict=True)], one.layers)

    def told(self, rank: int | None) -> str:
        """What the adapter of a rank is, in a line: its score alone, its norm, and what it was trained on."""
        if self.name is None or rank is None:
            return ""
        adapter = self._lab.adapter(self.name, rank)
        card, norm = adapter.card, norm_of(adapter.factors)
        source, _comma, more = card.data.partition(",")
        terms = escape(f"{more.strip()}. {card.licence}".removeprefix(". "))
        trained = _("{images:,} images of {source}").format(images=card.images_seen, source=escape(source))
        parts = [score_line(card, card.load_task()), f"‖ΔW‖ {norm:.1f}", f'<span title="{terms}">{trained}</span>']
        return f'<p class="ll-about">{" · ".join(filter(None, parts))}</p>'


def depth_svg(changes: Sequence[float], learned: Sequence[float] = ()) -> str:
    """Signed changes by layer as bars, and learned factors as a line from 0 at the middle to 2 at the top."""
    width, middle = 240, 16
    step, most = width / len(changes), max(max(map(abs, changes)), FULL_BAR)
    bars = []
    for place, change in enumerate(changes):
        height = middle * abs(change) / most
        top = middle - height if change > 0 else middle
        told = _("layer {number}: {change:.2f}").format(number=place + 1, change=change)
        title = f"<title>{told}</title>"
        bars.append(f'<rect x="{place * step:.1f}" y="{top:.1f}" width="{step - 2:.1f}" height="{height:.1f}">{title}</rect>')
    heights = (middle - middle * max(-2.0, min(2.0, factor)) / 2 for factor in learned)
    points = " ".join(f"{(place + 0.5) * step:.1f},{height:.1f}" for place, height in enumerate(heights))
    factors = _("factors by layer")
    line = f'<polyline points="{points}"><title>{factors}</title></polyline>' if learned else ""
    label = _("change by layer, from the first to the last; the most is {most:.2f}")
    label = escape(label.format(most=max(map(abs, changes))))
    return (
        f'<svg class="ll-depth" role="img" aria-label="{label}" viewBox="0 0 {width} {2 * middle}">{"".join(bars)}{line}</svg>'
    )

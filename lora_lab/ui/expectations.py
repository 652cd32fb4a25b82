"""What each task is expected to score at the weights that the sliders show, as HTML."""

from collections.abc import Mapping
from functools import cached_property
from html import escape

from lora_lab.cards import AdapterCard
from lora_lab.findings import METRIC, Findings, Merge
from lora_lab.forecast import Expectation, Forecast, findings_of, forecast_of
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.plots import colour_of
from lora_lab.tasks import Task
from lora_lab.ui.words import _

UNITS = {"macro_f1": _("% macro F1"), "rmse": _("years RMSE"), "nme": _("% NME")}
BASES: Mapping[str, str] = {
    "measured": _("measured"),
    "forecast": _("forecast"),
    "not known": _("not known"),
    "labels": _("labels"),
    "own answers": _("own answers"),
}
"""What a figure rests on, as people read it."""

MEANINGS = {
    "measured": _("this merge was measured; the bounds hold 95 % of what other images of this kind would give"),
    "forecast": _("from the merges that were measured; nine in ten lie within the bounds"),
    "not known": _("nothing like it was measured, so nothing is said"),
}


class Expectations:
    """Measured and forecast scores of a lab's adapters, where the records are of these very adapters."""

    def __init__(self, lab: Lab):
        self._lab = lab

    def lines(self, recipe: MergeRecipe | None) -> dict[str, str]:
        """A line for each task of a recipe, by its name."""
        if recipe is None or self.forecast is None:
            return {}
        tasks = self._lab.tasks()
        return {name: self._line(tasks[name], one) for name, one in self.forecast.expect(recipe).items()}

    @cached_property
    def findings(self) -> Findings | None:
        """The records; none where there are none of these adapters."""
        return findings_of(self._lab)

    @cached_property
    def forecast(self) -> Forecast | None:
        """The forecast from these records; none where it was not fitted."""
        return forecast_of(self.findings)

    def _line(self, task: Task, one: Expectation) -> str:
        basis = f'<span class="ll-basis" title="{escape(MEANINGS[one.basis])}">{BASES[one.basis]}</span>'
        if one.score is None or self.findings is None:
            told = _("in this merge: {basis}").format(basis=basis)
            return f'<p class="ll-here" data-expected="{task.name}">{told}</p>'
        alone = self.findings.score(task.name, Merge((task.name,)), METRIC)
        kept = ""
        if alone:
            share = 100 * (one.score.value / alone.value if task.higher_is_better else alone.value / one.score.value)
            title = escape(_("{share:.0f} % of alone").format(share=share))
            kept = f'<i class="ll-kept" style="background:{colour_of(share)[0]}" title="{title}"></i>'
        told = _("in this merge <b>{value:.1f}</b> <small>{low:.1f} to {high:.1f}</small> {unit} {basis}").format(
            value=one.score.value, low=one.score.low, high=one.score.high, unit=UNITS[task.metric], basis=basis
        )
        return f'<p class="ll-here" data-expected="{task.name}">{kept}{told}</p>'


def score_line(card: AdapterCard, task: Task) -> str:
    """The first metric of an adapter alone on val, or nothing where it was not measured."""
    score = card.scores.get("val", {}).get(task.metric)
    if score is None:
        return ""
    title = _("on {images} val images; 95 % of such sets of images would give {low:.1f} to {high:.1f}")
    title = escape(title.format(images=score.n, low=score.low, high=score.high))
    told = _("alone <b>{value:.1f}</b> {unit}").format(value=score.value, unit=UNITS[task.metric])
    return f'<span title="{title}">{told}</span>'

"""What each task is expected to score at the weights that the sliders show, as HTML."""

from functools import cached_property

from lora_lab.cards import AdapterCard
from lora_lab.findings import METRIC, Findings, Merge
from lora_lab.forecast import Expectation, Forecast, findings_of, forecast_of
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.plots import colour_of
from lora_lab.tasks import Task

UNITS = {"macro_f1": "% macro F1", "rmse": "years RMSE", "nme": "% NME"}
MEANINGS = {
    "measured": "this merge was measured; the bounds hold 95 % of what other images of this kind would give",
    "forecast": "from the merges that were measured; nine in ten lie within the bounds",
    "not known": "nothing like it was measured, so nothing is said",
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
        basis = f'<span class="ll-basis" title="{MEANINGS[one.basis]}">{one.basis}</span>'
        if one.score is None or self.findings is None:
            return f'<p class="ll-here" data-expected="{task.name}">in this merge: {basis}</p>'
        alone = self.findings.score(task.name, Merge((task.name,)), METRIC)
        kept = ""
        if alone:
            share = 100 * (one.score.value / alone.value if task.higher_is_better else alone.value / one.score.value)
            kept = f'<i class="ll-kept" style="background:{colour_of(share)[0]}" title="{share:.0f} % of alone"></i>'
        return (
            f'<p class="ll-here" data-expected="{task.name}">{kept}in this merge <b>{one.score.value:.1f}</b> '
            f"<small>{one.score.low:.1f} to {one.score.high:.1f}</small> {UNITS[task.metric]} {basis}</p>"
        )


def score_line(card: AdapterCard, task: Task) -> str:
    """The first metric of an adapter alone on val, or nothing where it was not measured."""
    score = card.scores.get("val", {}).get(task.metric)
    if score is None:
        return ""
    title = f"on {score.n} val images; 95 % of such sets of images would give {score.low:.1f} to {score.high:.1f}"
    return f'<span title="{title}">alone <b>{score.value:.1f}</b> {UNITS[task.metric]}</span>'

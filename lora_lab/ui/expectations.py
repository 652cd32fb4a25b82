"""What each task is expected to score at the weights that the sliders show, as HTML."""

from functools import cached_property
from html import escape

from lora_lab.findings import METRIC, Findings, Merge
from lora_lab.forecast import Expectation, Forecast, findings_of, forecast_of
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.plots import colour_of
from lora_lab.tasks import TASKS, Task

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

    def html(self, recipe: MergeRecipe | None) -> str:
        """A line for each task of a recipe."""
        if recipe is None or self.forecast is None:
            return ""
        tasks = self._lab.tasks()
        lines = [self._line(tasks[name], one) for name, one in self._expected(recipe).items()]
        return f'<section class="ll-expected"><h4>Expected of these weights</h4><table>{"".join(lines)}</table></section>'

    @cached_property
    def findings(self) -> Findings | None:
        """The records; none where there are none of these adapters."""
        return findings_of(self._lab)

    @cached_property
    def forecast(self) -> Forecast | None:
        """The forecast from these records; none where it was not fitted."""
        return forecast_of(self.findings)

    def _expected(self, recipe: MergeRecipe) -> dict[str, Expectation]:
        assert self.forecast, "asked only where there is one"
        return self.forecast.expect(recipe)

    def _line(self, task: Task, one: Expectation) -> str:
        basis = f'<td class="ll-basis" title="{MEANINGS[one.basis]}">{one.basis}</td>'
        if one.score is None or self.findings is None:
            return f'<tr data-expected="{task.name}"><th>{escape(task.title)}</th><td>–</td>{basis}</tr>'
        alone = self.findings.score(task.name, Merge((task.name,)), METRIC)
        kept = ""
        if alone:
            share = 100 * (one.score.value / alone.value if task.higher_is_better else alone.value / one.score.value)
            kept = f'<i class="ll-kept" style="background:{colour_of(share)[0]}" title="{share:.0f} % of alone"></i>'
        unit = UNITS[TASKS[task.name].metric]
        return (
            f'<tr data-expected="{task.name}"><th>{escape(task.title)}</th>'
            f"<td>{kept}<b>{one.score.value:.1f}</b> <small>{one.score.low:.1f} to {one.score.high:.1f}</small> "
            f"<small>{unit}</small></td>{basis}</tr>"
        )

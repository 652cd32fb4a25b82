"""What the paper claims, held against our records: a figure with its interval for each, and a verdict by one rule.

A claim holds here where the whole interval lies on its side of the line, does not hold where the whole interval lies on
the other, and is open in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_lab.findings import RETENTION, Findings, Interval, Merge, combine
from lora_lab.metrics import GAIN
from lora_lab.paper import THEIRS, Paper
from lora_lab.tasks import TASKS

Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """A claim, the figure that decides it, and on which side of which line it has to lie."""

    says: str
    figure: str
    ours: Interval
    theirs: float | None
    line: float = 0.0
    above: bool = True

    @property
    def verdict(self) -> str:
        low, high = self.ours.low, self.ours.high
        assert low is not None, "no claim without an interval"
        assert high is not None, "no claim without an interval"
        if low > self.line:
            return "holds here" if self.above else "does not hold here"
        if high < self.line:
            return "does not hold here" if self.above else "holds here"
        return "open"


def claims(findings: Findings, paper: Paper) -> list[Claim]:
    """All claims."""
    return [*_gains(findings, paper), *_pairs(findings, paper), *_ranks(findings, paper)]


def claims_table(findings: Findings, paper: Paper) -> str:
    """Markdown."""
    lines = ["| claim | figure | here | in the paper | holds if | verdict |", "|---|---|---|---|---|---|"]
    for claim in claims(findings, paper):
        theirs = "–" if claim.theirs is None else f"{claim.theirs:.1f}"
        side = f"{'above' if claim.above else 'below'} {claim.line:.0f}"
        lines.append(f"| {claim.says} | {claim.figure} | {claim.ours.text()} | {theirs} | {side} | {claim.verdict} |")
    return "\n".join(lines)


def _gains(findings: Findings, paper: Paper) -> list[Claim]:
    found = []
    for name in findings.names:
        gain = findings.at(Merge((name,)).recipe(findings.backbone).key, name, GAIN)
        if gain:
            says = f"LoRA beats a head on the frozen backbone: {TASKS[name].title.lower()}"
            unit = {"macro_f1": "points of F1", "rmse": "years of RMSE", "nme": "points of NME"}[TASKS[name].metric]
            found.append(Claim(says, f"better by, {unit}", gain, _paper_gain(paper, name)))
    return found


def _paper_gain(paper: Paper, name: str) -> float | None:
    theirs = THEIRS.get(name, name)
    alone, head = paper.score(theirs, Merge((theirs,)), "metric"), paper.head_only(theirs)
    if alone is None or head is None or name == "age_regression":  # the paper's ages are scaled, in a unit not stated
        return None
    return alone.value - head if TASKS[name].higher_is_better else head - alone.value


def _pairs(findings: Findings, paper: Paper) -> list[Claim]:
    kept = Kept(findings, paper)
    others = [pair for pair in kept.pairs if "landmarks" not in pair]
    strange = [pair for pair in others if _faces(pair) == 1]
    alike = [pair for pair in others if _faces(pair) == 2]
    faces = [pair for pair in strange if TASKS[pair[0]].framing == "face"]
    by_landmarks = [pair for pair in kept.pairs if pair[1] == "landmarks"]
    by_others = [pair for pair in others if pair[0] != "landmarks"]
    to_landmarks = [pair for pair in kept.pairs if pair[0] == "landmarks" and pair[1] != "age_regression"]
    apart, kept_mean = "retention apart, points", "mean retention, %"
    broken, breaker = ("age_class", "age_regression"), ("age_regression", "age_class")
    alike_says = "Adapters of dissimilar images (faces, sky, land) merge better than those of faces, landmarks aside"
    bear_says = "Landmarks bear other partners well, age in years aside"
    return [
        Claim(alike_says, apart, *kept.apart(strange, alike)),
        Claim("Adapters of dissimilar images keep nearly all, landmarks aside", kept_mean, *kept.mean(strange), 95.0),
        Claim("Landmarks break other tasks more than other partners do", apart, *kept.apart(by_others, by_landmarks)),
        Claim(bear_says, kept_mean, *kept.mean(to_landmarks), 80.0),
        Claim("Faces keep nearly all beside sky and land, landmarks aside", kept_mean, *kept.mean(faces), 95.0),
        Claim("Galaxy bears its partners well", kept_mean, *kept.mean([p for p in kept.pairs if p[0] == "galaxy"]), 80.0),
        Claim("Age in years breaks age group", "retention, %", *kept.mean([broken]), 50.0, False),
        Claim("Age group and age in years keep most of each other", kept_mean, *kept.mean([broken, breaker]), 80.0),
        Claim("Age in years bears age group better than the other way round", apart, *kept.apart([breaker], [broken])),
    ]


def _ranks(findings: Findings, paper: Paper) -> list[Claim]:
    low, high = Kept(findings, paper), Kept(findings, paper, rank=64)
    ours = combine([*high.parts(high.pairs, 1.0), *low.parts(low.pairs, -1.0)])
    theirs = high.theirs(high.pairs), low.theirs(low.pairs)
    apart = theirs[0] - theirs[1] if theirs[0] is not None and theirs[1] is not None else None
    return [
        Claim("Adapters of rank 64 disturb each other less than those of rank 16", "mean retention apart, points", ours, apart)
    ]


def _faces(pair: Pair) -> int:
    return sum(TASKS[name].framing == "face" for name in pair)


class Kept:
    """Mean retentions of directed pairs (task, partner) by the exact sum, ours and the paper's."""

    def __init__(self, findings: Findings, paper: Paper, rank: int = 16):
        self._findings, self._paper, self._rank = findings, paper, rank
        self.pairs: list[Pair] = [(i, j) for i in findings.names for j in findings.names if i != j]

    def mean(self, pairs: Sequence[Pair]) -> tuple[Interval, float | None]:
        """Ours with its interval, and the paper's."""
        return combine(self.parts(pairs, 1.0)), self.theirs(pairs)

    def apart(self, one: Sequence[Pair], other: Sequence[Pair]) -> tuple[Interval, float | None]:
        """By how many points one group of pairs keeps more than another."""
        first, second = self.theirs(one), self.theirs(other)
        theirs = first - second if first is not None and second is not None else None
        return combine([*self.parts(one, 1.0), *self.parts(other, -1.0)]), theirs

    def parts(self, pairs: Sequence[Pair], sign: float) -> list[tuple[str, float, Interval]]:
        """What `combine` takes, for the mean of these pairs times a sign."""
        found = [(pair, self._findings.score(pair[0], Merge(pair, self._rank), RETENTION)) for pair in pairs]
        return [(TASKS[pair[0]].folder, sign / len(pairs), one) for pair, one in found if one]

    def theirs(self, pairs: Sequence[Pair]) -> float | None:
        """The mean of the paper's, of the pairs that can be read."""
        named = [tuple(THEIRS.get(name, name) for name in pair) for pair in pairs]
        found = [self._paper.score(pair[0], Merge(pair, self._rank), RETENTION) for pair in named]
        values = [one.value for one in found if one]
        return sum(values) / len(values) if values else None

"""The tables of docs/MERGING.md: what the methods are, from their catalog, and what they cost, from the benchmark's record."""

from collections.abc import Mapping
from itertools import product

from lora_lab.merging import LAWS, MERGE_METHODS
from lora_lab.metrics import MEAN_RETENTION, WORST_RETENTION
from lora_lab.repairs import REPAIRS
from lora_lab.results.markdown import markdown


def methods_table() -> str:
    """Every method with its source, what it needs, and the laws that it keeps."""
    rows = []
    for method in MERGE_METHODS.values():
        laws = ", ".join(law for law in LAWS if law in method.laws) or "–"
        refused = f"; takes no {', '.join(sorted(method.refuses))}" if method.refuses else ""
        rows.append(
            [f"`{method.name}`", method.title, method.family, method.summary, method.needs + refused, laws, method.paper]
        )
    return markdown(["method", "title", "family", "what it does", "needs", "laws", "source"], rows)


def knobs_of_methods_table() -> str:
    """Every knob with its range and its default."""
    rows = [
        [f"`{method.name}`", f"`{knob.name}`", f"{knob.default:g}", f"{knob.low:g} to {knob.high:g}", knob.meaning]
        for method in MERGE_METHODS.values()
        for knob in method.knobs
    ]
    return markdown(["method", "knob", "default", "range", "meaning"], rows)


def laws_table() -> str:
    """What each law says."""
    return markdown(["law", "what it promises"], [[law, meaning] for law, meaning in LAWS.items()])


def repairs_table() -> str:
    """Every repair."""
    return markdown(
        ["repair", "title", "what it does", "needs", "source"],
        [[f"`{one.name}`", one.title, one.summary, one.needs, one.paper] for one in REPAIRS.values()],
    )


def merge_speed_table(record: Mapping) -> str:
    """Milliseconds of a first merge and of a moved slider by what is merged, peft's beside them."""
    subjects = record["subjects"]
    kinds = {"first_ms": "first merge", "move_ms": "a moved slider"}
    head = ["way, ms", *(f"{one['subject']}: {what}" for one in subjects for what in kinds.values())]
    by_place = {(one["subject"], way["way"]): way for one in subjects for way in one["ways"]}
    rows = []
    for name in dict.fromkeys(way["way"] for one in subjects for way in one["ways"]):
        ways = [by_place.get((one["subject"], name), {}) for one in subjects]
        rows.append([f"`{name}`", *(_median(way.get(kind)) for way in ways for kind in kinds)])
    return markdown(head, rows)


def slider_table(record: Mapping) -> str:
    """What a moved slider costs on the page, beside a plain forward of the same crops."""
    kinds = {"forward": "plain forward, ms", "answers": "all answers, ms", "page": "the page's part, ms"}
    head = ["method", "adapters", "crops", *kinds.values(), "answers ÷ forward"]
    rows = [
        [f"`{one['method']}`", str(one["adapters"]), str(one["crops"])]
        + [f"{one[f'{kind}_ms']:.1f}" for kind in kinds]
        + [f"{one['answers_ratio']:.2f}"]
        for one in record["rows"]
    ]
    return markdown(head, rows)


def cut_table(record: Mapping) -> str:
    """What the best merge keeps at smaller ranks, by how the cut was made."""
    by_rank: dict[int, dict[str, Mapping]] = {}
    for row in record["rows"]:
        # What is not cut is the same in either way.
        ways = [row["nearest_in"]] if row["loss"] else ["outputs", "weights"]
        by_rank.setdefault(row["rank"], {}).update(dict.fromkeys(ways, row))
    head = ["rank", "mean retention, %", "worst task, %", "cut by weights alone: mean, %", "worst task, %"]
    columns = list(product(("outputs", "weights"), (MEAN_RETENTION, WORST_RETENTION)))
    rows = [[str(rank), *(_kept(found[way][what]) for way, what in columns)] for rank, found in sorted(by_rank.items())]
    return markdown(head, rows)


def _kept(score: Mapping[str, float]) -> str:
    return f"{score['value']:.1f} ({score['low']:.1f}–{score['high']:.1f})"


def _median(taken: Mapping[str, float] | None) -> str:
    return f"{taken['median']:.1f}" if taken else "–"

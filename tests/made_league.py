"""Records of a league of our own making, with figures that a test can follow."""

from pathlib import Path

from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.metrics import MEAN_RETENTION, WORST_RETENTION
from lora_lab.records import Record, RecordFile, Subject
from lora_lab.standings import TRAINED
from lora_lab.sweeps.league import FINAL, LEAGUE, TRIALS
from lora_lab.sweeps.spelling import spell_method

NAMES = ("galaxy", "land_cover", "emotion")
ORIGIN = {"split": "val", "n": 100, "seed": 0, "seconds": 1.0, "commit": "abc"}


def recipe_of(names: tuple[str, ...] = NAMES, rank: int = 16, **more: object) -> MergeRecipe:
    adapters = tuple(RecipeAdapter(name=name, rank=rank) for name in names)
    return MergeRecipe.model_validate({"backbone": "tiny", "adapters": adapters, **more})


def records_of(recipe: MergeRecipe | str, kept: list[float], **more: object) -> list[Record]:
    """What a sweep writes of a merge, or of what is none, in which the tasks keep so much."""
    names = NAMES if isinstance(recipe, str) else tuple(a.name for a in recipe.adapters)
    subject: Subject = "merge"
    origin: dict = {"recipe": "", "adapters": "", "method": None, **ORIGIN, **more}
    if isinstance(recipe, str):
        subject, origin["recipe"] = ("head_only" if recipe == "head_only" else "joint"), recipe
    else:
        origin |= {"recipe": recipe.key, "adapters": recipe.spelled, "method": spell_method(recipe)}
    figures = [(name, "retention", value) for name, value in zip(names, kept, strict=True)]
    figures += [("all", MEAN_RETENTION, sum(kept) / len(kept)), ("all", WORST_RETENTION, min(kept))]
    figures += [("all", "merge_seconds", 0.25)] if subject == "merge" else []
    return [
        Record(subject=subject, task=task, metric=metric, value=value, low=value - 2, high=value + 1, **origin)
        for task, metric, value in figures
    ]


def write_league(folder: Path) -> None:
    """All files: three adapters, plain and repaired, two pairs, two bounds, and adapters trained to be merged."""
    plain, repaired = recipe_of(), recipe_of(repair="linear")
    pairs = [recipe_of(names) for names in (NAMES[:2], NAMES[1:])]
    league = [
        *records_of(plain, [60, 50, 40]),
        *records_of(repaired, [90, 88, 83]),
        *records_of(recipe_of(rank=64), [70, 60, 50]),
        *records_of("head_only", [30, 20, 10]),
        *records_of("joint_r96", [99, 98, 97]),
        *records_of(pairs[0], [80, 70]),
        *records_of(pairs[1], [66, 54]),
    ]
    RecordFile(folder / LEAGUE).add(league)
    RecordFile(folder / TRAINED / LEAGUE).add(records_of(plain, [95, 94, 93]))
    RecordFile(folder / TRIALS).add(records_of(plain, [61, 51, 41], n=40))
    RecordFile(folder / FINAL).add([*records_of(plain, [59, 49, 39]), *records_of(repaired, [89, 87, 82])])
    RecordFile(folder / FINAL).add(records_of(repaired, [85, 83, 81], split="test"))

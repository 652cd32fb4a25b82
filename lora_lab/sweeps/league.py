"""The league of merge methods: its recipes, stage by stage, where a later stage chooses by the records of earlier ones.

Knobs are chosen on a few val images, methods are compared on more of them, the best go on to all, and the one that wins there
is measured on test. Nothing is chosen on test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

from lora_lab.catalog import Catalog
from lora_lab.errors import NotFoundError
from lora_lab.evaluation import Images
from lora_lab.lab import Lab
from lora_lab.merging import MergeMethod, MergeRecipe, Sight
from lora_lab.metrics import MEAN_RETENTION, MERGE_SECONDS
from lora_lab.recent import Recent
from lora_lab.records import RecordFile
from lora_lab.repairs import REPAIRS
from lora_lab.sights import sight_from_data
from lora_lab.sweeps.plan import PAPER_TRIPLES, WEIGHTINGS, Scope, merges
from lora_lab.sweeps.run import See

if TYPE_CHECKING:
    import pandas as pd

EXACT, UNIFORM, BOUND, SAVED = "exact", "uniform", "bound", "saved"
LOW, HIGH = 16, 64
TRIED, BEST, FINALISTS = 6, 5, 3
TRIAL_IMAGES, IMAGES = 200, 300
SWIFT_SECONDS = 60
"""A merge that takes longer is not made anew for every pair."""

SEEN, SEEN_BY_REPAIRS = 200, 500
"""Training images a task for methods that must look at some; with a repair, both see the larger number."""

TRIALS, LEAGUE, FINAL = "league_knobs.parquet", "league.parquet", "league_final.parquet"


@dataclass(frozen=True)
class Entry:
    """A method at one setting: its knobs, all of them, each weight 1 or 1/K by the name of a weighting, and a repair."""

    method: str
    knobs: tuple[tuple[str, float], ...] = ()
    weighting: str = EXACT
    repair: str | None = None

    @property
    def name(self) -> str:
        """Under which it stands in the league: its method, where the exact sum at 1/K is one of its own, uniform."""
        return UNIFORM if (self.method, self.weighting) == (EXACT, UNIFORM) else self.method

    def recipe(self, scope: Scope, names: Sequence[str], rank: int) -> MergeRecipe:
        """These adapters merged so."""
        plain = scope.recipe(names, rank, [WEIGHTINGS[self.weighting](len(names))] * len(names))
        return plain.model_copy(update={"method": self.method, "knobs": dict(self.knobs), "repair": self.repair})


def settings(method: MergeMethod) -> list[Entry]:
    """The settings of a method that are tried, six at most: its knobs' values in every combination, or one at a time.

    Where the weights' scale has a meaning, two of the six have weights 1/K: the default knobs and the last.
    """
    tried = [[(knob.name, float(value)) for value in knob.tried or (knob.default,)] for knob in method.knobs]
    default = tuple((knob.name, float(knob.default)) for knob in method.knobs)
    every = list(product(*tried))
    if len(every) > TRIED:
        moved = [(*default[:i], value, *default[i + 1 :]) for i, values in enumerate(tried) for value in values]
        every = list(dict.fromkeys((default, *moved)))
    if not method.laws & {"scale", "linear"} or "weights" in method.refuses:
        return [Entry(method.name, knobs) for knobs in every[:TRIED]]
    shared = [Entry(method.name, knobs, UNIFORM) for knobs in dict.fromkeys((default, every[-1]))]
    return [*(Entry(method.name, knobs) for knobs in every[: TRIED - len(shared)]), *shared]


@dataclass(frozen=True)
class League:
    """Who plays: adapters of rank 16, those of them that have rank 64 as well, methods and repairs, and where the records lie.

    `pairs` are the pairs that every method merges, `mended` the kept merges that hold a repair. Settings are chosen by the
    trials in another folder than that of the records where `tried_in` names it.
    """

    scope: Scope
    high: tuple[str, ...]
    pairs: tuple[frozenset[str], ...]
    methods: Mapping[str, MergeMethod]
    repairs: Sequence[str]
    folder: Path
    mended: frozenset[str] = frozenset()
    tried_in: Path | None = None

    def trials(self) -> dict[str, list[Entry]]:
        """The settings of everyone in the league, by name."""
        entries = [entry for method in self.methods.values() for entry in settings(method)]
        names = dict.fromkeys(entry.name for entry in entries)
        # Where the catalog has a uniform sum of its own, the exact sum at 1/K is not played twice.
        return {
            name: [e for e in entries if e.name == name and (name not in self.methods or e.method == name)] for name in names
        }

    def all(self, entry: Entry, rank: int = LOW) -> MergeRecipe:
        """All adapters in one merge."""
        return entry.recipe(self.scope, self.scope.names if rank == LOW else self.high, rank)

    def on(self, entry: Entry, sets: Sequence[frozenset[str]], rank: int = LOW) -> list[MergeRecipe]:
        """Smaller merges of those adapters that there are at this rank."""
        there = self.scope.names if rank == LOW else self.high
        named = [tuple(name for name in there if name in names) for names in sets]
        return [
            entry.recipe(self.scope, names, rank)
            for names, wanted in zip(named, sets, strict=True)
            if len(names) == len(wanted)
        ]

    def chosen(self) -> dict[str, Entry]:
        """The best setting of everyone in the trials. Raises `NotFoundError` before there are any."""
        kept = replace(self, folder=self.tried_in or self.folder).kept(TRIALS)
        measured = {name: [e for e in entries if self.all(e).key in kept] for name, entries in self.trials().items()}
        found = {name: max(of, key=lambda e: kept[self.all(e).key]) for name, of in measured.items() if of}
        if not found:
            raise NotFoundError(
                f"no settings are tried yet in {(self.tried_in or self.folder) / TRIALS}: run the stage knobs first"
            )
        return found

    def ranked(self, entries: Sequence[Entry], file: str = LEAGUE) -> list[Entry]:
        """Those of some that were measured with all adapters and are no bounds, the best first."""
        kept = self.kept(file)
        there = [e for e in entries if self.all(e).key in kept and self.methods[e.method].family != BOUND]
        return sorted(there, key=lambda entry: -kept[self.all(entry).key])

    def best(self) -> list[Entry]:
        """The best methods, without a repair."""
        swift = self.swift()
        return [entry for entry in self.ranked(self.plain()) if entry.method in swift][:BEST]

    def plain(self) -> list[Entry]:
        """Everyone at the best setting, but for what is mended already."""
        return [entry for entry in self.chosen().values() if entry.method not in self.mended]

    def swift(self) -> set[str]:
        """The methods that can be merged anew for many sets: those that never took long, and no merge that was made before."""
        frame: pd.DataFrame = RecordFile(self.folder / LEAGUE).read()
        took = frame[(frame.metric == MERGE_SECONDS) & ~frame.method.str.contains("+", regex=False, na=False)]
        longest = took.value.groupby(took.method.str.split("(").str[0]).max()
        names = longest.index[longest <= SWIFT_SECONDS]
        return {name for name in names if name in self.methods and self.methods[name].family != SAVED}

    def repaired(self) -> list[Entry]:
        """The best methods and the plain sums, with every repair."""
        chosen = self.chosen()
        plain = dict.fromkeys((*self.best(), *(chosen[name] for name in (EXACT, UNIFORM) if name in chosen)))
        return [replace(entry, repair=repair) for entry in plain for repair in self.repairs]

    def finalists(self) -> list[list[Entry]]:
        """The best of each table: without a repair, and with one."""
        mended = [entry for entry in self.chosen().values() if entry.method in self.mended]
        tables = (self.ranked(self.plain()), self.ranked([*mended, *self.repaired()]))
        return [table[:FINALISTS] for table in tables]

    def kept(self, file: str, split: str = "val") -> dict[str, float]:
        """Mean retention by the recipe's key."""
        frame: pd.DataFrame = RecordFile(self.folder / file).read()
        rows = frame[(frame.metric == MEAN_RETENTION) & (frame.split == split)]
        return dict(zip(rows.recipe, rows.value, strict=True))


@dataclass(frozen=True)
class Stage:
    """A part of the league: on at most so many images of a split, into one file; `joint` adds LoRAs trained on all tasks."""

    name: str
    title: str
    recipes: Callable[[League], list[MergeRecipe]]
    file: str = LEAGUE
    split: str = "val"
    limit: int | None = IMAGES
    joint: bool = False


def _knobs(league: League) -> list[MergeRecipe]:
    return [league.all(entry) for entry in chain(*league.trials().values())]


def _methods(league: League) -> list[MergeRecipe]:
    chosen = league.chosen().values()
    loose = [entry for entry in chosen if league.methods[entry.method].family != SAVED]
    return [*(league.all(entry) for entry in chosen), *(r for entry in loose for r in league.on(entry, league.pairs))]


def _best(league: League) -> list[MergeRecipe]:
    recipes: list[MergeRecipe] = []
    for rank, names in ((LOW, league.scope.names), (HIGH, league.high)):
        if len(names) < 2:
            continue
        pairs = [frozenset(a.name for a in recipe.adapters) for recipe in merges(replace(league.scope, names=names), [2])]
        # Set by set, so that the methods can be compared wherever it is cut short.
        for one in dict.fromkeys((frozenset(names), *PAPER_TRIPLES, *pairs)):
            recipes += [r for entry in league.best() for r in league.on(entry, [one], rank)]
    return recipes


def _repaired(league: League) -> list[MergeRecipe]:
    return [league.all(entry) for entry in league.repaired()]


def _repaired_pairs(league: League) -> list[MergeRecipe]:
    return [recipe for entry in league.ranked(league.repaired())[:FINALISTS] for recipe in league.on(entry, league.pairs)]


def _final(league: League) -> list[MergeRecipe]:
    return [league.all(entry) for entry in chain(*league.finalists())]


def _test(league: League) -> list[MergeRecipe]:
    ranked = [league.ranked(table, FINAL) for table in league.finalists()]
    return [league.all(table[0]) for table in ranked if table]


STAGES: Catalog[Stage] = Catalog(
    "stage",
    (
        (stage.name, stage)
        for stage in (
            Stage("knobs", "every setting of every method, all adapters", _knobs, TRIALS, limit=TRIAL_IMAGES),
            Stage("methods", "every method at its best setting, all adapters and the worst pairs", _methods),
            Stage("bounds", "one LoRA trained on all tasks", lambda league: [], joint=True),
            Stage("best", "the best methods on all pairs and the paper's triples, at both ranks", _best),
            Stage("repairs", "the best methods and the plain sums with every repair", _repaired),
            Stage("repaired_pairs", "the best of these on the worst pairs", _repaired_pairs),
            Stage("final", "the best three of each table on all of val", _final, FINAL, limit=None),
            Stage("test", "the best of each table on test", _test, FINAL, "test", None),
        )
    ),
)
"""In the order in which they are measured."""


def league_of(lab: Lab, pairs: Sequence[frozenset[str]], folder: Path) -> League:
    """The league of a lab's adapters, with all methods and repairs that there are. Raises `NotFoundError`."""
    ranks = lab.ranks()
    names = tuple(name for name, there in ranks.items() if LOW in there)
    if len(names) < 2:
        raise NotFoundError(f"no two adapters have rank {LOW}; see `lora-lab adapters` for what there is")
    high = tuple(name for name in names if HIGH in ranks[name])
    mended = frozenset(name for name, kept in lab.merger.saved.items() if kept.card.recipe.repair)
    return League(Scope(lab.backbone.name, names), high, tuple(pairs), dict(lab.merger.methods), tuple(REPAIRS), folder, mended)


def rival(league: League, place: str) -> League:
    """The league of other adapters of the same names, all in one merge, at the settings that serve this one's best.

    Merges that were kept are not theirs. Their records lie in a folder within this one's.
    """
    loose = {name: method for name, method in league.methods.items() if method.family != SAVED}
    return replace(league, pairs=(), methods=loose, folder=league.folder / place, mended=frozenset(), tried_in=league.folder)


def seer(lab: Lab, data: Path | Images) -> See:
    """Gives training images of each task to the methods and repairs that must look at some, always the same."""
    last = Recent(1)
    whole = replace(data, split="train") if isinstance(data, Images) else Images(data, "train")

    def see(recipe: MergeRecipe) -> Sight | None:
        if recipe.repair is None and lab.merger.methods[recipe.method].needs not in ("images", "labels"):
            return None
        images = replace(whole, limit=SEEN_BY_REPAIRS if recipe.repair else SEEN)
        members = tuple((a.name, a.rank) for a in recipe.adapters)
        heads = [lab.adapter(*member).head for member in members]
        return last.get((members, images), lambda: sight_from_data(lab.serving, heads, images))

    return see

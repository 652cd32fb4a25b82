"""From a lab's adapters and a new task to a composition, with each way's score on the held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lora_lab import metrics
from lora_lab.cards import ScoreEntry
from lora_lab.composition.few_shot import NewTask
from lora_lab.composition.lesson import Lesson, Trained
from lora_lab.composition.saved import Composition, CompositionCard, WayResult
from lora_lab.composition.ways import WAYS, timed
from lora_lab.data import Crops
from lora_lab.errors import LoraLabError, MismatchError, NotFoundError
from lora_lab.evaluation import encode_crops, head_outputs
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.merging.base import nobody
from lora_lab.provenance import commit
from lora_lab.tasks import Task
from lora_lab.training import training_copy

LEARNED = "learned"
MOST_STEPS = 300


@dataclass(frozen=True)
class Plan:
    """Which ways are tried, and how long each learns. Learned composition is always among them, since it is what is kept."""

    ways: Sequence[str] = ("head_only", "uniform", LEARNED)
    steps: int = 80
    batch: int = 16
    seed: int = 0

    @property
    def tried(self) -> list[str]:
        """The ways in the order of their catalog. Raises `LoraLabError`."""
        if not 1 <= self.steps <= MOST_STEPS:
            raise LoraLabError(f"{self.steps} steps will not do: take 1 to {MOST_STEPS}")
        wanted = {WAYS[name].name for name in (*self.ways, LEARNED)}
        return [name for name in WAYS if name in wanted]


def members_for(lab: Lab, task: Task, leave_out: Sequence[str] = (), only: MergeRecipe | None = None) -> list[RecipeAdapter]:
    """The adapters to compose: those of `only` or all at their lowest rank, without those that know the task's own images.

    Raises `NotFoundError` for a name that is not there, and `LoraLabError` where none is left.
    """
    known = lab.tasks()
    missing = [name for name in leave_out if name not in known]
    if missing:
        raise NotFoundError(f"no adapter {', '.join(missing)} to leave out; there is {', '.join(lab.ranks())}")
    chosen = (only or lab.uniform()).adapters
    for one in chosen:
        lab.adapter(one.name, one.rank)  # raises for a name that is unknown
    left = [a for a in chosen if a.name not in leave_out and known[a.name].folder != task.folder]
    if not left:
        raise LoraLabError(f"no adapter is left to compose for {task.name}: name others, or leave fewer out")
    return [RecipeAdapter(name=a.name, rank=a.rank) for a in left]


def compose(
    lab: Lab,
    members: Sequence[RecipeAdapter],
    new: NewTask,
    plan: Plan,
    tell: Callable[[float, str], None] = nobody,
) -> Composition:
    """Learn a new task in every way of the plan, and keep the learned composition.

    `tell` is called with the share that is done and a word; what it raises ends the work.
    """
    factors = {a.name: lab.adapter(a.name, a.rank).factors for a in members}
    lesson = Lesson(lab.backbone, factors, new.task, new.crops, plan.seed, plan.steps, plan.batch)
    results: dict[str, WayResult] = {}
    kept: Trained | None = None
    for done, name in enumerate(plan.tried):
        told = _part_of(tell, done, len(plan.tried), WAYS[name].title)
        trained, seconds = timed(WAYS[name], replace(lesson, tell=told))
        results[name] = WayResult(scores=scores_of(trained, new.held_out), seconds=seconds, parameters=trained.parameters)
        kept = trained if name == LEARNED else kept
    assert kept is not None, "learned composition is always tried"
    assert kept.layers is not None, "learned composition has weights"
    rows = kept.layers.tolist()
    adapters = tuple(a.model_copy(update={"layers": tuple(row)}) for a, row in zip(members, rows, strict=True))
    recipe = MergeRecipe(backbone=lab.backbone.name, adapters=adapters, seed=plan.seed)
    return Composition(_card(lab, recipe, lesson, new, results), recipe, kept.head)


def composed(lab: Lab, composition: Composition) -> MergedModel:
    """The model of a composition: its adapters, each weighted at each layer, and its own head alone.

    Raises `NotFoundError` and `MismatchError` where the lab's adapters are not those that it was learned with.
    """
    recipe, card = composition.recipe, composition.card
    if lab.fingerprint(recipe) != card.adapters:
        raise MismatchError(
            f"the adapters of {composition.task.name} have changed since it was learned: learn it again with `lora-lab compose`"
        )
    return replace(lab.merge(recipe), heads={composition.task.name: composition.head})


def scores_of(trained: Trained, held_out: Crops) -> dict[str, ScoreEntry]:
    """The task's metrics on held-out images, in the precision of training, with 95 % intervals."""
    model, head = trained.model, trained.head
    outputs = head_outputs(head, encode_crops(training_copy(model.backbone), held_out, model.deltas))
    scores = metrics.score(head.task, outputs, held_out.targets, held_out.normaliser)
    return {s.metric: ScoreEntry(value=s.value, low=s.low, high=s.high, n=len(held_out)) for s in scores if s.label is None}


def _part_of(tell: Callable[[float, str], None], done: int, count: int, title: str) -> Callable[[float, str], None]:
    return lambda share, what: tell((done + share) / count, f"{title}: {what}")


def _card(lab: Lab, recipe: MergeRecipe, lesson: Lesson, new: NewTask, results: dict[str, WayResult]) -> CompositionCard:
    return CompositionCard(
        task=new.task.to_json(),
        backbone=lab.backbone.name,
        fingerprint=lab.backbone.fingerprint,
        adapters=lab.fingerprint(recipe),
        shots=new.shots,
        images=len(new.crops),
        steps=lesson.steps,
        batch=lesson.size,
        seed=lesson.seed,
        ways=results,
        commit=commit(),
    )

"""What `on_device.py` runs where a GPU is lent: each job goes on from what it finds, and stops in time."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import composition
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab import metrics
from lora_lab.adapters import fingerprint, save_adapter
from lora_lab.backbones import Deltas, Features
from lora_lab.cache import whole_file
from lora_lab.cards import adapter_folder
from lora_lab.data import load_crops, open_dataset
from lora_lab.data.augment import augmentation_for, random_view
from lora_lab.evaluation import Images, Testbed
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter, Selection, Setting, Sight, distillation, iteris
from lora_lab.provenance import commit
from lora_lab.records import RecordFile
from lora_lab.repairs import REPAIRS, Damage, Mend
from lora_lab.saved_merges import MergeCard, SavedMerge
from lora_lab.sights import sight_from_data
from lora_lab.sweeps import PLANS, Scope, Sweep, worst_pairs
from lora_lab.sweeps.league import EXACT, LOW, STAGES, UNIFORM, Entry, league_of, seer
from lora_lab.tasks import TASKS, Head, Task
from lora_lab.training import Run, default_config, finish

RANK, CHUNK = 16, 512
SAVED_EVERY = 30.0
CLOSING = 45.0
"""Seconds that distil keeps for the repair and the scores."""
REPAIR_IMAGES = 2000


@dataclass(frozen=True)
class Place:
    """Where a pack lies, where results go, and on what they are made."""

    home: Path
    out: Path
    backbone: str
    device: str

    @property
    def data(self) -> Path:
        return (self.home / "data").resolve()

    def lab(self, precision: torch.dtype | None = torch.float32) -> Lab:
        """The lab of the packed adapters."""
        return Lab(self.backbone, self.home / "adapters", precision, self.device)


def say(what: str) -> None:
    """For whoever waits."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def together(lab: Lab) -> MergeRecipe:
    """All adapters of rank 16 that have images, each at weight 1."""
    return lab.recipe([RecipeAdapter(name=name, rank=RANK) for name, ranks in lab.ranks().items() if RANK in ranks])


# Distillation


@dataclass
class Course:
    """What distil has learned so far, and in how much of its time."""

    deltas: dict[str, Tensor]
    seconds: float = 0.0
    steps: int = 0
    note: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, place: Place) -> "Course | None":
        """What an earlier part has left."""
        path = place.out / "distil.safetensors"
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            note = file.metadata()
        course = cls(dict(load_file(path)), float(note["seconds"]), int(note["steps"]))
        course.note = json.loads((place.out / "distil.json").read_text())
        return course

    def save(self, place: Place) -> None:
        """For the next part."""
        with whole_file(place.out / "distil.safetensors") as part:
            tensors = {name: delta.detach().half().contiguous() for name, delta in self.deltas.items()}
            save_file(tensors, part, metadata={"seconds": f"{self.seconds}", "steps": f"{self.steps}"})
        with whole_file(place.out / "distil.json") as part:
            part.write_text(json.dumps(self.note, indent=1))


def distil(place: Place, end: float, options: argparse.Namespace) -> None:
    """The six in one, learned while there is time, with a linear repair; both are kept as merges, with scores."""
    lab = place.lab(None)
    if lab.serving.device.type == "cuda":
        distillation.CHUNK = 2 * CHUNK
        lab.serving.module.set_attn_implementation("sdpa")  # type: ignore[operator]
    recipe = together(lab)
    knobs = {"points": options.points, "rate": options.rate, "batch": float(options.batch)}
    recipe = recipe.model_copy(update={"method": "distillation", "knobs": {**knobs, "steps": 1.0}})
    plain = sight_from_data(lab.serving, lab.heads(recipe), Images(place.data, "train", REPAIR_IMAGES))
    say(f"{sum(len(one) for one in plain.pixels.values())} plain images")
    setting = Setting([1.0] * len(recipe.adapters), distillation.METHOD.turned(recipe.knobs))
    members = lab.members(recipe)
    selection = Selection([a.name for a in recipe.adapters], [member.factors for member in members], sight=plain)
    course = Course.load(place) or Course(_begin(selection))
    say("a start is there")
    testbed = Testbed(Images(place.data, "val"), lab.serving.dtype)
    alone = {a.name: _score(testbed, lab.merge(lab.recipe([a]))) for a in recipe.adapters}
    wide = replace(plain, pixels=views(lab, place.data, plain.heads, options.views), labels={})
    lessons = distillation.lessons_of(replace(selection, sight=wide), wide, setting)
    say(f"lessons: {[len(lesson.pixels) for lesson in lessons]}")

    def check() -> None:
        model = MergedModel(lab.serving, lab.serving.place(course.deltas), lab.merger.heads(recipe))
        scores = _score(testbed, model)
        kept = {name: _kept(TASKS[name], scores[name], alone[name][name]) for name in scores}
        course.note.append({"seconds": course.seconds, "steps": course.steps, "scores": scores, "kept": kept})
        say(f"{course.steps} steps: mean {sum(kept.values()) / len(kept):.2f}, {kept}")
        course.save(place)

    check()
    budget = max(0.0, (end - time.monotonic() - CLOSING) * options.share)
    learn(course, wide, lessons, setting, budget, (check, lambda: course.save(place)))
    keep(place, recipe, course)


def _begin(selection: Selection) -> dict[str, Tensor]:
    knobs = {knob.name: knob.default for knob in iteris.METHOD.knobs} | {"images": 256.0}
    return dict(iteris.METHOD.merge(selection, Setting([1.0] * len(selection.names), knobs)).deltas)


@torch.no_grad()
def views(lab: Lab, data: Path, heads: dict[str, Head], most: int) -> dict[str, Tensor]:
    """Each task's images as they are, and after them random views of them, so many in all; tasks share what they shared."""
    found: dict[tuple[str, str], Tensor] = {}
    serving = lab.serving
    for head in heads.values():
        task = head.task
        if (task.folder, task.stored) in found:
            continue
        crops = load_crops(task, data, "train", serving.image_size)
        parts = [torch.from_numpy(crops.centre(serving.image_size).copy()).permute(0, 3, 1, 2).to(serving.device)]
        stored = torch.from_numpy(np.array(crops.pixels)).to(serving.device)
        generator = torch.Generator().manual_seed(0)
        rows = distillation.Rows(len(crops), generator)
        for _ in range(0, max(0, most - len(crops)), CHUNK):
            some = stored[rows.take(CHUNK).to(stored.device)]
            nothing = torch.zeros(len(some), device=some.device)
            seen, _ = random_view(some, nothing, serving.image_size, augmentation_for(task), generator)
            parts.append((seen * 255).round().to(torch.uint8))
        found[task.folder, task.stored] = torch.cat([_normal(lab, part) for part in torch.cat(parts).split(4096)])
    return {name: found[head.task.folder, head.task.stored] for name, head in heads.items()}


def _normal(lab: Lab, pixels: Tensor) -> Tensor:
    return lab.serving.normalise(pixels.float() / 255).to(lab.serving.dtype)


@torch.enable_grad()
def learn(
    course: Course,
    sight: Sight,
    lessons: Sequence[distillation.Lesson],
    setting: Setting,
    budget: float,
    told: tuple[Callable[[], None], Callable[[], None]],
) -> None:
    """As `distillation.descend`, but by the clock: the rate falls along half a cosine over the seconds that there are."""
    check, save = told
    placed = sight.backbone.place(course.deltas)
    learned = {target: delta.float().clone().requires_grad_() for target, delta in placed.items()}
    course.deltas = learned  # type: ignore[assignment]
    fused = sight.backbone.device.type == "cuda"
    optimiser = torch.optim.AdamW(learned.values(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=fused)
    generator = torch.Generator().manual_seed(course.steps)
    orders = [distillation.Rows(len(lesson.pixels), generator) for lesson in lessons]
    begun, saved, checks, before = time.monotonic(), time.monotonic(), 1, course.seconds
    first = course.steps
    while (passed := time.monotonic() - begun) < budget or course.steps == first:
        counts = [distillation.batch_of(lesson, setting) for lesson in lessons]
        rows = [order.take(count).to(sight.backbone.device) for order, count in zip(orders, counts, strict=True)]
        loss = distillation.batch_loss(sight.backbone, learned, lessons, rows)
        warm = min(1.0, (course.steps + 1) / distillation.WARM_UP)
        optimiser.param_groups[0]["lr"] = setting.knobs["rate"] * warm * 0.5 * (1 + math.cos(math.pi * passed / (budget or 1)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
        optimiser.step()
        course.steps += 1
        if course.steps % 20 == 0:
            value = loss.item()  # waits, so that no more steps are asked for than there is time
            if course.steps % 200 == 0:
                say(f"step {course.steps} after {time.monotonic() - begun:.1f} s, loss {value:.4f}")
        course.seconds = before + time.monotonic() - begun
        if time.monotonic() - saved > SAVED_EVERY:
            save()
            saved = time.monotonic()
        if passed > checks * budget / 5:
            checks += 1
            with torch.no_grad():
                check()
    with torch.no_grad():
        course.deltas = {target: delta.detach() for target, delta in learned.items()}
        check()


def keep(place: Place, recipe: MergeRecipe, course: Course) -> None:
    """Write the merge by itself and with its repair, and how both do on val in float32."""
    lab = place.lab()
    members = lab.members(recipe)
    deltas = lab.serving.place(course.deltas)
    sight = sight_from_data(lab.serving, lab.heads(recipe), Images(place.data, "train", REPAIR_IMAGES))
    mends = {member.card.task: _mend(lab, lab.merger.delta_of(member), deltas, member.head, sight) for member in members}
    testbed = Testbed(Images(place.data, "val"))
    single = {a.name: testbed.draw(lab.merge(lab.recipe([a])))[a.name] for a in recipe.adapters}
    figures = []
    for name, repaired in (("six-plain", {}), ("six", mends)):
        model = MergedModel(lab.serving, deltas, lab.merger.heads(recipe), mends=repaired)
        drawn = testbed.draw(model)
        figures.append({"merge": name, **_figures(drawn, single, {n: head.task for n, head in model.heads.items()})})
        say(json.dumps(figures[-1]["kept"]))
        made = recipe.model_copy(
            update={
                "knobs": {**recipe.knobs, "steps": float(min(course.steps, 20_000))},
                "repair": "linear" if repaired else None,
            }
        )
        card = MergeCard(
            name=name,
            title=f"{name.capitalize()}: Distillation{' + linear repair' if repaired else ''}, {len(members)} adapters",
            recipe=made,
            fingerprint=fingerprint(members),
            images=f"random views of training images of every task, without labels, {course.steps} steps on a GPU",
            seconds=round(course.seconds, 1),
            commit=commit(),
        )
        SavedMerge(card, deltas, repaired).save(place.out / name)
    with whole_file(place.out / "distil_scores.json") as part:
        part.write_text(json.dumps(figures, indent=1))


def _mend(lab: Lab, own: Deltas, merged: Deltas, head: Head, sight: Sight) -> Mend:
    pixels = sight.pixels[head.task.name]
    with torch.no_grad():
        parts = [[lab.serving.encode(part, deltas).pooled for part in pixels.split(CHUNK)] for deltas in (merged, own)]
    pooled, alone = (torch.cat(part) for part in parts)
    damage = Damage(Features(pooled, pooled.new_zeros(len(pooled), 0, pooled.shape[1])), alone, head, None)
    return REPAIRS["linear"].fit(damage).to(lab.serving.device)


def _score(testbed: Testbed, model: MergedModel) -> dict[str, dict[str, float]]:
    found = {}
    for name, outputs in testbed.outputs(model).items():
        task = model.heads[name].task
        crops = testbed.crops(task, model.backbone.image_size)
        assert crops is not None
        found[name] = metrics.values(task, outputs, crops.targets, crops.normaliser)
    return found


def _kept(task: Task, now: dict[str, float], before: dict[str, float]) -> float:
    share = now[task.metric] / before[task.metric]
    return round(100 * (share if task.higher_is_better else 1 / share), 2)


def _figures(drawn: Any, single: Any, tasks: dict[str, Task]) -> dict[str, Any]:
    def told(score: metrics.Score) -> list[float]:
        return [round(value, 3) for value in (score.value, score.low, score.high)]

    own = {n: told(metrics.with_interval(t.metric, None, drawn[n][t.metric, None])) for n, t in tasks.items()}
    alone = {n: told(metrics.with_interval(t.metric, None, single[n][t.metric, None])) for n, t in tasks.items()}
    kept = {n: metrics.retention(t, drawn[n], single[n]) for n, t in tasks.items()}
    both = metrics.together([(f"{t.folder}/{t.stored}", kept[n]) for n, t in tasks.items()])
    shares = {n: told(metrics.with_interval("retention", None, one)) for n, one in kept.items()}
    return {"scores": own, "alone": alone, "kept": shares, **{score.metric: told(score) for score in both}}


# Records


def sweep(place: Place, end: float, options: argparse.Namespace) -> None:
    """Every set of adapters by each of some methods, then what the published records hold."""
    lab = place.lab()
    file = RecordFile(place.out / "merges.parquet")
    todo = Sweep(lab, Images(place.data, "val", options.images), file, "bfloat16")
    names = tuple(a.name for a in together(lab).adapters)
    scope = Scope(lab.backbone.name, names)
    stages: list[Callable[[], Iterator[list[MergeRecipe]]]] = [
        lambda: iter([every_set(scope, options.methods.split(","))]),
        lambda: PLANS["published"](scope, file.read),
    ]
    for stage in stages:
        for recipes in stage():
            there = [one for one in recipes if all(a.rank in lab.ranks().get(a.name, ()) for a in one.adapters)]
            if not measured(todo, there, end):
                return


def every_set(scope: Scope, methods: Sequence[str]) -> list[MergeRecipe]:
    """All sets of two or more by every method at its default knobs, method by method."""
    weighting = {name: UNIFORM if name == UNIFORM else EXACT for name in methods}
    entries = [Entry(EXACT if name == UNIFORM else name, (), way) for name, way in weighting.items()]
    sizes = range(2, len(scope.names) + 1)
    return [entry.recipe(scope, names, LOW) for entry in entries for size in sizes for names in scope.sets(size)]


def measured(todo: Sweep, recipes: Sequence[MergeRecipe], end: float, joint: bool = False) -> bool:
    """Measure what is not in the records yet; says whether there was time for all."""
    cells = todo.cells(recipes, joint)
    start, steps = time.monotonic(), todo.run(cells)
    for number, step in enumerate(steps, 1):
        if number % 20 == 0 or number == len(cells):
            say(f"{number} of {len(cells)} models in {time.monotonic() - start:.1f} s: {step.cell.title}")
        if time.monotonic() > end:
            steps.close()  # type: ignore[attr-defined]
            return False
    return True


def league(place: Place, end: float, options: argparse.Namespace) -> None:
    """The league of all methods, stage by stage; it reads the pairs that a sweep has measured."""
    lab = place.lab(None)
    entered = league_of(lab, (), place.out)
    entered = replace(entered, pairs=worst_pairs(entered.scope, RecordFile(place.out / "merges.parquet").read()))
    for stage in STAGES.values():
        if stage.split != "val":
            continue
        todo = Sweep(
            lab,
            Images(place.data, stage.split, stage.limit),
            RecordFile(place.out / stage.file),
            "bfloat16",
            seer(lab, place.data),
            beside=LOW,
        )
        say(stage.title)
        if not measured(todo, stage.recipes(entered), end, stage.joint):
            return


def few_shot(place: Place, end: float, options: argparse.Namespace) -> None:
    """A new task from a few images, in every way."""
    composition.main(place.data, (end - time.monotonic()) / 60, composition.STEPS, place.out / "few_shot.json", place.lab())


def train(place: Place, end: float, options: argparse.Namespace) -> None:
    """An adapter of rank 16 for every task; a run that is cut short goes on with its checkpoint in HOME."""
    lab = place.lab()
    for task in TASKS.values():
        folder = adapter_folder(place.backbone, task.name, f"r{RANK}", place.out)
        if folder.exists() or not (place.data / task.folder).is_dir():
            continue
        config = default_config(task, place.backbone, rank=RANK)
        wide = {"batch": 128, "learning_rate": 2 * config.learning_rate, "pretrain_images": 0, "patience": 99}
        images = max(wide["batch"], round(config.images * options.scale))
        run = Run(
            config.model_copy(update={**wide, "images": images}), [(task, open_dataset(place.data / task.folder))], lab.backbone
        )
        run.load_checkpoint()
        for step in run.steps():
            if step.check is not None:
                say(f"{task.name}: {step.images} images, {step.images_per_second:.0f}/s, {run.checked_by} {step.check:.2f}")
            if time.monotonic() > end:
                run.save_checkpoint()
                return
        for adapter in finish(run):
            save_adapter(adapter, folder)
        run.forget_checkpoint()


def check(place: Place, end: float, options: argparse.Namespace) -> None:
    """How far the device's outputs are from the CPU's in float32, each adapter alone and the exact sum, on a few images."""
    labs = [place.lab(), Lab(place.backbone, place.home / "adapters", device="cpu")]
    recipe = together(labs[0])
    found: dict[str, float] = {}
    testbed = Testbed(Images(place.data, "val", 24))
    for one in (*(labs[0].recipe([a]) for a in recipe.adapters), recipe):
        here, there = (testbed.outputs(lab.merge(one)) for lab in labs)
        found |= {f"{one.title}, {name}": float(np.abs(here[name] - there[name]).max()) for name in here}
        testbed = Testbed(Images(place.data, "val", 24))
    say(f"largest difference {max(found.values()):.2e}: {found}")
    (place.out / "check.json").write_text(json.dumps({"device": str(labs[0].device), "largest_difference": found}, indent=1))


JOBS: dict[str, Callable[[Place, float, argparse.Namespace], None]] = {
    "train": train,
    "sweep": sweep,
    "league": league,
    "distil": distil,
    "few_shot": few_shot,
    "check": check,
}

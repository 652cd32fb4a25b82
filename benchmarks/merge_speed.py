"""What a merge and a moved slider cost, beside peft: `python benchmarks/merge_speed.py` writes the record.

Every method of the catalog that needs no images merges six adapters of 24 modules: ours of rank 16 and of rank 64 on the
default backbone, and random ones of rank 16 at the width of ViT-B. `first_ms` is until the first merge is there, `move_ms` what
one more moved slider costs, all six adapters at work. peft's is `add_weighted_adapter` on a model that holds the same six, in
its faster settings, in float32, which its decompositions need; ours make the last product in the precision that the page
serves in. The deletion of what it added, which the next slider needs, is included. At rank 64 the ranks add up to the
width, and core space has nothing to save. Run it while nothing else does; a number after the command is how often all is timed.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from lora_lab.adapters import load_statistics
from lora_lab.backbones import fast_precision, load_backbone
from lora_lab.backbones.base import KEY_AND_VALUE
from lora_lab.cards import PRETRAINED, adapter_folder, rank_folder
from lora_lab.lab import Lab
from lora_lab.lora import Factors, LoraFactors
from lora_lab.merging import MERGE_METHODS, MergeMethod, Selection, Setting
from lora_lab.merging.core_space import cores
from lora_lab.provenance import commit

RECORD = Path(__file__).parent.parent / "assets" / "benchmarks" / "merge_speed.json"
ROUNDS, MOVES = 3, 5
SERVED = fast_precision()
PEFT = {
    "cat": {"combination_type": "cat"},
    "svd": {"combination_type": "svd", "svd_full_matrices": False},
    "ties_svd": {"combination_type": "ties_svd", "svd_full_matrices": False, "density": 0.2},
}


@dataclass(frozen=True, eq=False)
class Subject:
    """What is merged, and how to make the module that peft is to merge it on."""

    name: str
    selection: Selection
    module: Callable[[], nn.Module]

    def weights(self, move: int) -> list[float]:
        """All at 1, and one slider somewhere else at each move."""
        count = len(self.selection.names)
        return [1.0 - 0.1 * (1 + move % 7) if k == move % count else 1.0 for k in range(count)]


def pretrained(rank: int) -> Subject:
    """Our adapters of this rank on the default backbone."""
    lab = Lab()
    names = list(lab.ranks())
    found = [lab.adapter(name, rank) for name in names]
    folders = [adapter_folder(lab.backbone.name, name, rank_folder(rank), PRETRAINED) for name in names]
    known = [load_statistics(folder) for folder in folders]
    grams = [s.by_target(adapter.factors) for adapter, s in zip(found, known, strict=True) if s]
    selection = Selection(names, [adapter.factors for adapter in found], grams)
    return Subject(f"{lab.backbone.name}, rank {rank}", selection, lambda: load_backbone().module)


def random(width: int, rank: int, count: int = 6) -> Subject:
    """Random factors and inputs on a random model of twelve layers."""

    def module() -> nn.Module:
        return Dinov2Model(Dinov2Config(hidden_size=width, num_attention_heads=width // 64, use_mask_token=False)).eval()

    with torch.device("meta"):
        names = [name for name, _ in module().named_modules() if name.rpartition(".")[2] in KEY_AND_VALUE]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / width**0.5

    factors = [{name: LoraFactors(draw(rank, width), draw(width, rank)) for name in names} for _ in range(count)]
    inputs = [draw(2 * width, width) for _ in range(count)]
    grams = [dict.fromkeys(names, x.T @ x) for x in inputs]
    return Subject(
        f"random, width {width}, rank {rank}", Selection([f"task_{k}" for k in range(count)], factors, grams), module
    )


def timed(work: Callable[[int], object], times: int) -> list[float]:
    """Milliseconds of each call; it is told which one it is."""
    taken = []
    for number in range(times):
        start = time.perf_counter()
        work(number)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def summary(taken: Sequence[float]) -> dict[str, float]:
    return {"min": round(min(taken), 2), "median": round(median(taken), 2)}


def ours(subject: Subject, method: MergeMethod, rounds: int) -> dict:
    """One method, by its knobs' defaults."""
    knobs = method.turned({})
    merge = None

    def first(_: int) -> None:
        nonlocal merge
        merge = method.prepare(subject.selection)
        merge(Setting(subject.weights(-1), knobs, dtype=SERVED))

    from_nothing = timed(first, rounds)
    assert merge
    prepared = merge
    moves = timed(lambda move: prepared(Setting(subject.weights(move), knobs, dtype=SERVED)), rounds * MOVES)
    return {"way": method.name, "title": method.title, "first_ms": summary(from_nothing), "move_ms": summary(moves)}


def peft_model(subject: Subject) -> PeftModel:
    """A model with all adapters, alpha = r."""

    def config(factors: Factors) -> LoraConfig:
        rank = next(iter(factors.values())).rank
        return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(factors))

    names, many = subject.selection.names, subject.selection.factors
    model = PeftModel(subject.module(), config(many[0]), names[0])  # type: ignore[arg-type]
    for name, factors in zip(names[1:], many[1:], strict=True):
        model.add_adapter(name, config(factors))
    for name, factors in zip(names, many, strict=True):
        for target, pair in factors.items():
            layer: Any = model.base_model.model.get_submodule(target)  # type: ignore[union-attr, operator]
            layer.lora_A[name].weight.data = pair.a.clone()
            layer.lora_B[name].weight.data = pair.b.clone()
    return model


def peft(subject: Subject, model: PeftModel, way: str, rounds: int) -> dict:
    """A moved slider is a new adapter, and the old one has to go."""

    def move(number: int) -> None:
        names = list(subject.selection.names)
        model.add_weighted_adapter(names, subject.weights(number), "merged", **PEFT[way])  # type: ignore[operator]
        model.delete_adapter("merged")

    with torch.no_grad():
        taken = timed(move, rounds)
    return {"way": f"peft_{way}", "title": f"peft, {way}", "move_ms": summary(taken)}


def measure(subject: Subject, rounds: int) -> dict:
    """All ways on one subject; peft's `svd` over a method's slider, by the medians, is how many times faster it is."""
    methods = [method for method in MERGE_METHODS.values() if method.needs in ("nothing", "statistics")]
    model = peft_model(subject)
    rows = [peft(subject, model, way, rounds) for way in PEFT]
    del model
    slow = next(row for row in rows if row["way"] == "peft_svd")["move_ms"]["median"]
    own = [ours(subject, method, rounds) for method in methods]
    rows += [{**row, "times_faster_than_peft_svd": round(slow / row["move_ms"]["median"], 1)} for row in own]
    core = next(iter(cores(subject.selection).values()))
    return {"subject": subject.name, "core_space_pays": core.pays, "ways": rows}


def main(rounds: int) -> None:
    """Measure all and write the record."""
    subjects = [measure(subject, rounds) for subject in (pretrained(16), random(768, 16), pretrained(64))]
    machine = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "product": str(SERVED),
        "torch": torch.__version__,
    }
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"subjects": subjects, **machine, "commit": commit()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)

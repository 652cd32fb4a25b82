"""How fast an adapter trains here, beside peft with autocast: `python benchmarks/training_speed.py` writes the record.

Every way trains the same thing from the same start: rank 16 on key and value of the default backbone and the head of the age
groups, AdamW, batches of 32 random crops of 112 × 112 pixels. Each runs in a process of its own, in turns, three times; the
median counts. Run it while nothing else does.
"""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, get_peft_model

from lora_lab.backbones import load_backbone
from lora_lab.lora import new_factors
from lora_lab.provenance import commit
from lora_lab.tasks import TASKS, make_head
from lora_lab.training import training_copy
from lora_lab.training.tuned import SHARED, tuned_factors

RECORD = Path(__file__).parent.parent / "assets" / "benchmarks" / "training_speed.json"
BATCH, RANK, WARM_UP, STEPS, ROUNDS = 32, 16, 3, 12, 3
TITLES = {
    "peft_autocast": "peft, autocast to bfloat16, the library's own attention",
    "peft_autocast_eager": "peft, autocast to bfloat16, attention written out",
    "lora_lab": "LoRA Lab",
}


def peft_step(attention: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A training step as peft's documents show it."""
    module = load_backbone().module
    module.set_attn_implementation(attention)  # type: ignore[operator]
    model = get_peft_model(module, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["k_proj", "v_proj"]))  # type: ignore[arg-type]
    head = make_head(TASKS["age_class"], 384)
    parameters = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            pooled = model(pixels).pooler_output
            logits = head.output(torch.relu(head.hidden(pooled)))
        loss = head.loss(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def own_step() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A training step as `lora_lab.training` takes it."""
    backbone = load_backbone()
    encoder = training_copy(backbone)
    tuned = tuned_factors(encoder, {SHARED: new_factors(backbone, RANK, torch.Generator().manual_seed(0))})
    head = make_head(TASKS["age_class"], 384)
    parameters = [*tuned.tensors.values(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        loss = head.loss(head(tuned.encode(pixels)), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


WAYS = {
    "peft_autocast": lambda: peft_step("sdpa"),
    "peft_autocast_eager": lambda: peft_step("eager"),
    "lora_lab": own_step,
}


def measure(way: str) -> dict[str, float]:
    """Seconds a step, by the median, and the process's peak memory in MiB."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(BATCH, 3, 112, 112, generator=generator)
    labels = torch.randint(0, 6, (BATCH,), generator=generator)
    step = WAYS[way]()
    taken = []
    for number in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step(pixels, labels)
        if number >= WARM_UP:
            taken.append(time.perf_counter() - start)
    return {"seconds": median(taken), "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def main() -> None:
    """Measure every way in turns and write the record."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            done = subprocess.run([sys.executable, __file__, way], capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout))
    ways = []
    for way, rounds in found.items():
        seconds = median(one["seconds"] for one in rounds)
        ways.append(
            {
                "way": way,
                "title": TITLES[way],
                "images_per_second": round(BATCH / seconds, 2),
                "step_ms": round(1e3 * seconds, 1),
                "memory": int(max(one["memory"] for one in rounds)),
            }
        )
    machine = {"machine": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"ways": ways, **machine, "commit": commit()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measure(sys.argv[1])))
    else:
        main()

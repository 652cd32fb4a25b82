"""From a finished run to its adapters."""

from pathlib import Path

import torch

from lora_lab import metrics
from lora_lab.adapters import Adapter
from lora_lab.cards import JOINT, AdapterCard, SeedRun
from lora_lab.data.own import origin_of
from lora_lab.describing import describe
from lora_lab.evaluation import encode_crops, head_outputs
from lora_lab.faces import default_detector
from lora_lab.lora import deltas_of
from lora_lab.provenance import commit
from lora_lab.tasks import TASKS
from lora_lab.training.run import Part, Run
from lora_lab.training.tuned import SHARED, factors_of


def finish(run: Run) -> list[Adapter]:
    """The adapters of a finished run, one a task, as they were at the best check on val."""
    run.restore_best()
    weights = {name: tensor.detach() for name, tensor in run.tuned.tensors.items()}
    tuned = run.backbone.tuned(weights) if run.config.tuning == "full" else None
    adapters = []
    for name, part in zip(run.config.tasks, run.parts, strict=True):
        factors = factors_of(weights, name if run.config.to_merge else SHARED) if run.config.tuning == "lora" else {}
        head = part.head.eval().requires_grad_(False)
        adapter = Adapter(finished_card(run, part), factors, head, tuned=tuned)
        adapters.append(describe(adapter, run.backbone, part.train, part.val))
    return adapters


def seed_run(run: Run) -> SeedRun:
    """The first metric of a finished run on all of val, in float32."""
    run.restore_best()
    part, factors = run.parts[0], factors_of(run.tuned.tensors)
    with torch.no_grad():
        pooled = encode_crops(run.backbone, part.val, deltas_of(factors))
    outputs = head_outputs(part.head, pooled)
    value = metrics.values(part.task, outputs, part.val.targets, part.val.normaliser)[part.task.metric]
    return SeedRun(seed=run.config.seed, images=run.step * run.config.batch, value=round(value, 3))


def _images_seen(run: Run, task: str) -> int:
    config = run.config
    if not config.to_merge:
        return run.step * config.batch
    return sum(task in config.drawn(step) for step in range(run.step)) * (config.batch // len(config.tasks))


def finished_card(run: Run, part: Part) -> AdapterCard:
    """What is known of an adapter before it is measured."""
    config, task, backbone = run.config, part.task, run.backbone
    joint = config.tasks if config.joint else ()
    before = sum(adapter.card.images_seen for adapter in run.start if adapter.card.task == task.name)
    dataset = next(dataset for one, dataset in run.sources if one.name == task.name)
    mapped, (data, licence) = dataset.mapped, origin_of(dataset, task)
    sought = task.stored in ("face", "padded_face")
    return AdapterCard(
        name=task.name,
        task=task.name,
        task_version=task.version,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        image_size=backbone.image_size,
        tuning=config.tuning,
        rank=config.rank,
        alpha=config.rank,
        target_modules=backbone.target_modules if config.tuning == "lora" else (),
        joint=joint,
        factors=str(Path("..", "..", JOINT, f"r{config.rank}")) if joint else ".",
        own_task=None if task.name in TASKS else task.to_json(),
        training=config.model_dump(exclude_none=True) | ({"labels": dict(mapped)} if mapped else {}),
        seed=config.seed,
        images_seen=(before if config.tuning == "lora" and not joint else 0) + _images_seen(run, task.name),
        seconds=round(run.seconds),
        commit=commit(),
        data=data,
        licence=licence,
        detector=default_detector().name if sought else None,
    )

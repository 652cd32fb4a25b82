"""The model card of an exported merge: a README.md with the front matter that model hubs read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_lab.backbones import Backbone
from lora_lab.cards import AdapterCard
from lora_lab.links import snippet
from lora_lab.merging import MergeRecipe
from lora_lab.repairs import REPAIRS

KNOWN_LICENCES = ("mit", "apache-2.0", "cc-by-4.0", "cc0-1.0")
"""Terms that a hub knows under the same name, small letters aside."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What a model card says of a merge.

    `made` is what the deltas were made by: the recipe itself, or the one behind a kept merge, which saw `images`. `title` is
    the method's, `knobs` are all that it has, `cards` those of the adapters in the order of the recipe. `rank` is that of an
    adapter, none for a whole backbone; `loss` the relative Frobenius error, `output_loss` that of outputs on the adapters'
    training inputs. `retention` holds what was measured, by adapter.
    """

    backbone: Backbone
    recipe: MergeRecipe
    made: MergeRecipe
    title: str
    knobs: Mapping[str, float]
    cards: Sequence[AdapterCard]
    rank: int | None
    loss: float = 0.0
    output_loss: float | None = None
    images: str | None = None
    retention: Mapping[str, str] | None = None

    @property
    def repair(self) -> str | None:
        """The title of the repair, where there is one."""
        return REPAIRS[self.made.repair].title if self.made.repair else None

    @property
    def base(self) -> str:
        """The backbone's name, without the path of a folder on somebody's disk."""
        local = Path(self.backbone.name)
        return local.resolve().name if local.is_dir() else self.backbone.name

    @property
    def counted(self) -> str:
        """How many adapters there are, in words."""
        return f"{len(self.cards)} vision LoRA adapters" if len(self.cards) > 1 else "1 vision LoRA adapter"

    @property
    def terms(self) -> list[str]:
        """The licence terms of all that is in the folder, each once."""
        own = [self.backbone.licence] if self.rank is None else []
        return list(dict.fromkeys([*own, *(card.licence for card in self.cards)]))


def model_card(facts: Facts) -> str:
    """The whole card, as Markdown."""
    title = f"# {facts.counted} merged on {facts.base}"
    parts = [_front_matter(facts), title, _what(facts), _made(facts), "## What was merged", _members(facts)]
    parts += ["## How to load it", _adapter_use(facts) if facts.rank else _whole_use(facts), "## Terms", _terms(facts)]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    # JSON strings are YAML strings, whatever signs are in them.
    names = [term.lower() for term in facts.terms]
    known = names[0] if len(names) == 1 and names[0] in KNOWN_LICENCES else None
    lines = [f"license: {known or 'other'}"]
    if not known:
        name = re.sub(r"[^a-z0-9.]+", "-", names[0]).strip("-") if len(names) == 1 else "several-terms"
        lines.append(f"license_name: {json.dumps(name)}")
    lines.append(f"base_model: {json.dumps(facts.base, ensure_ascii=False)}")
    lines.append(f"library_name: {'peft' if facts.rank else 'transformers'}")
    lines.append("pipeline_tag: image-feature-extraction")
    lines += ["tags:", *(f"- {tag}" for tag in ("lora", "merge", "vision", "lora-lab"))]
    return "\n".join(["---", *lines, "---"])


def _what(facts: Facts) -> str:
    if facts.rank:
        return (
            f"One LoRA adapter of rank {facts.rank} in peft's format, made of {facts.counted}. "
            "It changes the encoder alone: the heads that answer are not in this folder."
        )
    return (
        f"The encoder {facts.base} with {facts.counted} merged into its weights, in transformers' format, and in `heads` "
        "the head of each task: `head.safetensors`, `task.json` (what it answers) and `card.json` (where it is from)."
    )


def _made(facts: Facts) -> str:
    made = facts.made
    knobs = ", ".join(f"{name} = {value:g}" for name, value in facts.knobs.items()) or "none"
    lines = [f"- Method: {facts.title} (`{made.method}`); knobs: {knobs}; seed: {made.seed}"]
    if made is not facts.recipe:
        lines.append(f"- Kept as `{facts.recipe.method}`; images that it was made with: {facts.images}")
    if facts.repair:
        lines.append(f"- Repair: {facts.repair}. {_where_mends_are(facts)}")
    if facts.rank:
        lines.append(f"- Lost at rank {facts.rank}: a relative Frobenius error of {facts.loss:.2g} over all target modules")
        if facts.output_loss is not None:
            lines.append(
                f"- The same of what they put out for inputs like the adapters' training images: {facts.output_loss:.2g}"
            )
    lines.append(f"- Backbone: `{facts.base}`, weights with the fingerprint `{facts.backbone.fingerprint[:16]}`")
    return "\n".join([*lines, "- `recipe.json` holds the recipe, by which LoRA Lab makes it again"])


def _where_mends_are(facts: Facts) -> str:
    if facts.rank:
        return (
            "It lies between encoder and heads, so it is **not in this adapter**: without it the heads answer worse than the "
            "merge does. `lora-lab merge --full` writes it."
        )
    return (
        "It is a small map a task between the encoder's features and the head, `mend.safetensors` beside the head, and no "
        "part of the weights: without it the heads answer worse. `open_full` applies it."
    )


def _members(facts: Facts) -> str:
    weights = {adapter.name: adapter for adapter in facts.made.adapters}
    kept = facts.retention or {}
    head = ["adapter", "rank", "weight", "metric", "alone, on val", *(["retention on val, %"] if kept else [])]
    rows = [head, ["---"] * len(head)]
    for card in facts.cards:
        metric = card.load_task().metric
        score = card.scores.get("val", {}).get(metric)
        alone = f"{score.value:.1f} ({score.low:.1f} to {score.high:.1f})" if score else "not measured"
        row = [card.name, str(card.rank), f"{weights[card.name].weight:g}", metric, alone]
        rows.append([*row, *([kept.get(card.name, "not measured")] if kept else [])])
    notes = [
        f"The weight of {adapter.name} is multiplied layer by layer by {', '.join(f'{share:g}' for share in adapter.layers)}."
        for adapter in facts.made.adapters
        if adapter.layers
    ]
    return "\n\n".join([_table(rows), *notes, *([_retention_note(facts)] if kept else [])])


def _retention_note(facts: Facts) -> str:
    left_out = []
    if facts.rank and facts.repair:
        left_out.append("with the repair")
    if facts.rank and facts.loss > 1e-3:
        left_out.append("before the rank was cut")
    measured = f" It was measured {' and '.join(left_out)}." if left_out else ""
    return (
        "Retention is the merge's score as a share of what the adapter scores alone (for errors, the other way round), with "
        f"its 95 % interval, measured with LoRA Lab on n images.{measured}"
    )


def _adapter_use(facts: Facts) -> str:
    load = [
        "from peft import PeftModel",
        "from PIL import Image",
        "",
        "from lora_lab.backbones import load_backbone",
        "",
        f"backbone = load_backbone({facts.base!r})",
        'model = PeftModel.from_pretrained(backbone.module, ".")  # this folder',
        'pixels = backbone.preprocess([Image.open("photo.jpg").convert("RGB")])',
        "pooled = model(pixels).pooler_output",
    ]
    answers = _code([snippet(facts.recipe).rstrip()])
    return f"{_code(load)}\n\nWith LoRA Lab and its adapters, the answers of all heads:\n\n{answers}"


def _whole_use(facts: Facts) -> str:
    bare = ["from transformers import AutoModel", "", 'encoder = AutoModel.from_pretrained(".")  # this folder']
    answers = [
        "from pathlib import Path",
        "",
        "from lora_lab.exports import open_full",
        "from lora_lab.photos import Photo",
        "",
        'model = open_full(Path("."))  # this folder',
        'print(model.predict(Photo.read(Path("photo.jpg")).image))',
    ]
    return f"The encoder alone:\n\n{_code(bare)}\n\nThe answers of all heads, with LoRA Lab:\n\n{_code(answers)}"


def _terms(facts: Facts) -> str:
    rows = [["part", "made from", "terms"], ["---"] * 3, [f"backbone {facts.base}", "", facts.backbone.licence]]
    rows += [[f"adapter {card.name}", card.data, card.licence] for card in facts.cards]
    return f"{_table(rows)}\n\nWhat is merged is under all of these terms at once, so the strictest decides."


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(' '.join(cell.replace('|', '¦').split()) for cell in row)} |" for row in rows)


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])

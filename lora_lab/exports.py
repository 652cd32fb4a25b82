"""A merge as people take it away: an adapter for peft, or a whole backbone with its heads, and a model card beside it."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lora_lab.adapters import HEAD, Adapter, load_card_head, uncalibrated
from lora_lab.backbones import Backbone, Deltas, load_backbone
from lora_lab.cache import whole_file, whole_folder
from lora_lab.cards import read_card, write_card
from lora_lab.errors import DataError, LoraLabError
from lora_lab.findings import Interval
from lora_lab.gram import balanced
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.lora import Factors, cholesky, concatenate, scaled_by_layer, split
from lora_lab.merger import is_plain
from lora_lab.merging import MERGE_METHODS, Merged, MergeRecipe, Sight
from lora_lab.merging.base import Grams
from lora_lab.metrics import RETENTION
from lora_lab.model_card import Facts, model_card
from lora_lab.peft_files import save_peft
from lora_lab.records import RECORDS, RecordFile
from lora_lab.repairs import REPAIRS, Mend
from lora_lab.sweeps.league import FINAL, LEAGUE, TRIALS
from lora_lab.tasks import save_head

HEADS, TASK, MEND = "heads", "task.json", "mend.safetensors"
CARD, RECIPE = "README.md", "recipe.json"
WRITTEN = ("adapter_config.json", "config.json", HEADS, CARD, RECIPE)
MEASURED = (FINAL, RECORDS.name, LEAGUE, TRIALS)
"""Files of records, those on most images first."""


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, the rank of the adapter (none for a whole backbone), and what was lost on the way.

    `loss` is the Frobenius norm of what is missing over that of the deltas, all target modules together; `output_loss` the same
    of what they put out for inputs like those that the adapters were trained on, where it was cut to a rank and their
    statistics are known.
    """

    folder: Path
    rank: int | None
    loss: float
    output_loss: float | None = None


def export_adapter(
    lab: Lab,
    recipe: MergeRecipe,
    folder: Path,
    sight: Sight | None = None,
    rank: int | None = None,
    records: Path = RECORDS.parent,
) -> Exported:
    """Write a merge as one adapter that peft loads, with its recipe and a model card.

    The exact sum is the factors side by side; what another method makes is split into factors again, nothing lost. With `rank`
    it is the nearest adapter of at most that rank: nearest in what it puts out for the adapters' training inputs where their
    statistics are known, else in its weights. What a repair mends lies in no adapter. Raises `LoraLabError` where the folder
    holds an export already, all weights are 0, or the recipe is no merge.
    """
    if rank is not None and rank < 1:
        raise LoraLabError(f"an adapter cannot have the rank {rank}: take 1 or more")
    _check_free(folder)
    members = lab.members(recipe)
    merged = _merged(lab, recipe, sight)
    if not merged.deltas:
        raise LoraLabError("all weights are 0, so there is nothing to write: give an adapter a weight")
    plain, grams = recipe.method == "exact" and rank is None, grams_of(members) if rank else None
    factors = _side_by_side(recipe, members) if plain else split(merged.deltas, rank, grams)
    felt = relative_error(merged.deltas, factors, grams) if grams else None
    done = Exported(folder, max(pair.rank for pair in factors.values()), relative_error(merged.deltas, factors), felt)
    with whole_folder(folder) as part:
        save_peft(factors, part, lab.backbone.name)
        _describe(lab, recipe, replace(done, folder=part), records)
    return done


def export_full(
    lab: Lab, recipe: MergeRecipe, folder: Path, sight: Sight | None = None, records: Path = RECORDS.parent
) -> Exported:
    """Write the whole backbone with a merge in its weights, as transformers keeps models, and the heads with their mends.

    `open_full` reads it. Raises `LoraLabError` where the folder holds an export already, or the recipe is no merge.
    """
    _check_free(folder)
    model = lab.merge(recipe, sight)
    deltas = _merged(lab, recipe, sight).deltas
    plain = lab.backbone.on(torch.device("cpu"))
    backbone = plain.tuned({f"{target}.weight": plain.weight(target) + delta for target, delta in deltas.items()})
    own = lab.merger.calibration(recipe)
    done = Exported(folder, None, 0.0)
    with whole_folder(folder) as part:
        backbone.module.save_pretrained(str(part))  # type: ignore[operator]
        (part / "preprocessor_config.json").write_text(json.dumps(_preprocessing(lab.backbone), indent=1) + "\n")
        for member in lab.members(recipe):
            fit = own.get(member.name, member.card.calibration)
            member = replace(member, card=member.card.model_copy(update={"calibration": fit}))
            _save_head(member, model.mends.get(member.card.task), _made(lab, recipe).repair, part / HEADS / member.name)
        _describe(lab, recipe, replace(done, folder=part), records)
    return done


def open_full(folder: Path) -> MergedModel:
    """The model that `export_full` wrote. Raises `NotFoundError` and `DataError`."""
    recipe = MergeRecipe.read(folder / RECIPE)
    places = [folder / HEADS / adapter.name for adapter in recipe.adapters]
    cards = {place: read_card(place) for place in places}
    backbone = replace(load_backbone(str(folder.resolve())), image_size=cards[places[0]].image_size)
    loaded = {card.task: load_card_head(card, backbone.width, place) for place, card in cards.items()}
    # What the cards say of a merge is of its adapters alone, or of a merge that its recipe does not name.
    known = len(loaded) == 1 and recipe.method in MERGE_METHODS
    alone = known and is_plain(recipe, recipe.adapters[0], MERGE_METHODS[recipe.method])
    heads = loaded if alone else {name: uncalibrated(head) for name, head in loaded.items()}
    mends = {card.task: _load_mend(place / MEND) for place, card in cards.items() if (place / MEND).exists()}
    return MergedModel(backbone, {}, heads, mends=mends)


def relative_error(deltas: Deltas, factors: Factors, grams: Grams | None = None) -> float:
    """‖ΔW − B A‖ / ‖ΔW‖ in the Frobenius norm, all target modules together; with Gram matrices, of outputs for such inputs."""
    missing = whole = 0.0
    for target, delta in deltas.items():
        seen = cholesky(grams[target]) if grams else torch.eye(delta.shape[1], dtype=torch.float64)
        missing += float(((delta.double() - factors[target].delta().double()) @ seen).square().sum())
        whole += float((delta.double() @ seen).square().sum())
    return (missing / whole) ** 0.5 if whole else 0.0


def grams_of(members: Sequence[Adapter]) -> Grams | None:
    """Gram matrices of all adapters' training inputs together, each as heavy as the others; none where one's are not known."""
    known = [member.statistics.by_target(member.factors) for member in members if member.statistics]
    if len(known) < len(members):
        return None
    targets = {target for grams in known for target in grams}
    return {t: torch.stack([balanced(g[t]) for g in known if t in g]).sum(0) for t in targets}


def zipped(folder: Path) -> Path:
    """A zip of a folder beside it, in place of one there; weights do not shrink, so nothing is packed. Raises `DataError`."""
    folder = folder.resolve()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise DataError(f"{folder} holds nothing to zip: write a merge into it first")
    archive = folder.parent / f"{folder.name}.zip"
    with whole_file(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as out:
        for path in files:
            out.write(path, Path(folder.name) / path.relative_to(folder))
    return archive


def recorded_retention(lab: Lab, recipe: MergeRecipe, records: Path = RECORDS.parent) -> dict[str, str]:
    """What the records hold of each task of this very recipe, on val, of these very adapters; nothing where they hold none."""
    fingerprint = lab.fingerprint(recipe)
    for file in MEASURED:
        frame = RecordFile(records / file).read()
        same = (frame.recipe == recipe.key) & (frame.fingerprint == fingerprint) & (frame.split == "val")
        rows = frame[same & (frame.metric == RETENTION)]
        if len(rows):
            columns = zip(rows.task, rows.value, rows.low, rows.high, rows.n, strict=True)
            return {str(task): f"{Interval(*figures)}, n = {n}" for task, *figures, n in columns}
    return {}


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise LoraLabError(f"{folder} is a file: name a folder")
    there = next((name for name in WRITTEN if (folder / name).exists()), None)
    if there:
        raise LoraLabError(f"{folder} holds {there} already: name another folder")


def _merged(lab: Lab, recipe: MergeRecipe, sight: Sight | None) -> Merged:
    merged = lab.merger.merged(recipe, sight)
    merged = replace(merged, deltas={target: delta.cpu() for target, delta in merged.deltas.items()})
    if merged.own:
        raise LoraLabError(f"{lab.merger.methods[recipe.method].title} is a bound and no merge, so there is nothing to write")
    if not all(delta.isfinite().all() for delta in merged.deltas.values()):
        raise LoraLabError("the merge has values that are not finite, so nothing is written: take smaller weights")
    return merged


def _side_by_side(recipe: MergeRecipe, members: Sequence[Adapter]) -> Factors:
    pairs = zip(members, recipe.adapters, strict=True)
    return concatenate([(scaled_by_layer(member.factors, a.layers), a.weight) for member, a in pairs if a.weight])


def _made(lab: Lab, recipe: MergeRecipe) -> MergeRecipe:
    kept = lab.merger.saved.get(recipe.method)
    return kept.card.recipe if kept else recipe


def _describe(lab: Lab, recipe: MergeRecipe, done: Exported, records: Path) -> None:
    made, kept = _made(lab, recipe), lab.merger.saved.get(recipe.method)
    title, knobs = _method(lab, made)
    facts = Facts(
        backbone=lab.backbone,
        recipe=recipe,
        made=made,
        title=title,
        knobs=knobs,
        cards=[member.card for member in lab.members(recipe)],
        rank=done.rank,
        loss=done.loss,
        output_loss=done.output_loss,
        images=kept.card.images if kept else None,
        retention=recorded_retention(lab, recipe, records),
    )
    (done.folder / RECIPE).write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (done.folder / CARD).write_text(model_card(facts), encoding="utf-8")


def _method(lab: Lab, made: MergeRecipe) -> tuple[str, Mapping[str, float]]:
    # What a kept merge was made from may itself have been kept, and be gone by now.
    if made.method not in lab.merger.methods:
        return made.method, made.knobs
    method = lab.merger.methods[made.method]
    return method.title, method.turned(made.knobs)


def _preprocessing(backbone: Backbone) -> dict:
    """What transformers' image processor does to a crop, so that it gives what `Backbone.preprocess` gives."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": backbone.image_size, "width": backbone.image_size},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
    }


def _save_head(member: Adapter, mend: Mend | None, repair: str | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_head(member.head, folder / HEAD)
    write_card(member.card, folder)
    task = json.dumps(member.head.task.to_json(), indent=1, ensure_ascii=False)
    (folder / TASK).write_text(task + "\n", encoding="utf-8")
    if mend is not None and repair is not None:
        save_file(mend.state_dict(), folder / MEND, metadata={"repair": repair})


def _load_mend(path: Path) -> Mend:
    try:
        with safe_open(path, "pt") as file:
            repair = file.metadata()["repair"]
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no repair that can be read: write the merge anew") from error
    mend = REPAIRS[repair].mend()
    mend.keep(**tensors)
    return mend

"""How honest the answers are: pictures of another kind, confidence and bounds of merges, and where a merge errs more.

`python benchmarks/honesty.py DATA [gate calibration groups]` measures all parts, or those that are named, and writes them into
the record. `gate` also writes the domains that come with LoRA Lab, fitted on train with their thresholds from val;
`calibration` writes what it fits on val onto the cards of the merges that come with LoRA Lab. It alone looks at test: for the
coverage of the bounds on age, by which nothing is chosen. Some minutes on one core.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from altered import matched, shrunk, varied
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lora_lab.backbones import fast_precision
from lora_lab.calibration import calibrate, calibration_slope, cross_fitted, debiased_error
from lora_lab.cards import Calibration
from lora_lab.data import Crops, load_crops
from lora_lab.domains import Domains, domain_of
from lora_lab.evaluation import batches, encode_crops
from lora_lab.inference import MergedModel
from lora_lab.lab import Lab
from lora_lab.merging import RecipeAdapter
from lora_lab.metrics import draw_counts
from lora_lab.photos import open_photo
from lora_lab.provenance import commit
from lora_lab.saved_merges import CARD, SAVED, SavedMerge, write_merge_card
from lora_lab.tasks import TASKS, Task

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "assets" / "benchmarks" / "honesty.json"
STRANGERS = ROOT / "assets" / "strangers"
AGE = TASKS["age_regression"]
# One task for each folder of data, with the number of images to fit a domain on and to judge.
KINDS = {
    "age_regression": (400, 120),
    "emotion": (400, 120),
    "landmarks": (300, 100),
    "galaxy": (500, 250),
    "land_cover": (500, 250),
}
VARIED = {"age_regression": 150, "emotion": 150, "landmarks": 100, "galaxy": 500, "land_cover": 500}
SLOPE_DRAWS = 300
SMALL = (56, 28, 14)
SHRUNK = 400
Encode = Callable[[Crops], torch.Tensor]


def main(data: Path, parts: Sequence[str]) -> None:
    """Measure the parts in the precision of the page."""
    lab = Lab(precision=fast_precision())
    makers = {"gate": gate, "calibration": calibration, "groups": groups}
    for part in parts or makers:
        found = {**makers[part](lab, data), "commit": commit()}
        record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        record = {name: found if name == part else record.get(name) for name in makers if name == part or name in record}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def gate(lab: Lab, data: Path) -> dict[str, Any]:
    """Fit the domains, save them, and measure how well they tell each other's pictures and strangers apart."""
    backbone = lab.serving

    def encode(crops: Crops) -> torch.Tensor:
        return encode_crops(backbone, crops, None)

    learned, own, levelled = (
        {name: torch.cat(list(some)) for name, some in one.items()} for one in _domain_features(encode, lab, data)
    )
    Domains.fit(learned, own, backbone.fingerprint).save()
    kept = Domains.read()
    paths = sorted(STRANGERS.glob("*.jpg"))
    with torch.no_grad():
        strange = backbone.encode(backbone.preprocess([open_photo(path) for path in paths])).pooled
    rows = []
    for name, one in kept.domains.items():
        through = int((kept.scores(strange)[name] >= one.threshold).sum())
        interval = binomtest(through, len(paths)).proportion_ci(method="exact")
        rows.append(
            {
                "domain": name,
                "n": len(own[name]),
                "others": sum(len(other) for at, other in own.items() if at != name),
                "passed": _percent(kept.scores(own[name])[name] >= one.threshold),
                "auroc": _auroc(kept, own, name),
                "auroc_matched": _auroc(kept, levelled, name),
                "passed_matched": _percent(kept.scores(levelled[name])[name] >= one.threshold),
                "auroc_strangers": _auroc(kept, {name: own[name], "": strange}, name),
                "strangers_through": through,
                "strangers_low": round(100 * interval.low, 1),
                "strangers_high": round(100 * interval.high, 1),
            }
        )
    return {"domains": rows, "strangers": len(paths)}


def _domain_features(encode: Encode, lab: Lab, data: Path) -> tuple[dict[str, list], dict[str, list], dict[str, list]]:
    # By domain: of train images as they are and varied, of val images as they are, and of the same matched.
    learned: dict[str, list] = {}
    own: dict[str, list] = {}
    levelled: dict[str, list] = {}
    rng = np.random.default_rng(0)
    for name, (most, judged) in KINDS.items():
        task = TASKS[name]
        domain = domain_of(task) or task.folder
        train, val = (_some(task, data, *of, lab) for of in (("train", most), ("val", judged)))
        least = 0.5 if task.framing == "square" else 0.85
        few = train.part(np.sort(np.random.default_rng(1).permutation(len(train))[: VARIED[name]]))
        twins = np.stack([varied(one, rng, least) for one in few.centre(lab.backbone.image_size)])
        learned.setdefault(domain, []).extend((encode(train), encode(replace(few, pixels=twins))))
        own.setdefault(domain, []).append(encode(val))
        alike = np.stack([matched(one) for one in val.centre(lab.backbone.image_size)])
        levelled.setdefault(domain, []).append(encode(replace(val, pixels=alike)))
    return learned, own, levelled


def _some(task: Task, data: Path, split: str, most: int, lab: Lab) -> Crops:
    crops = load_crops(task, data, split, lab.backbone.image_size)
    return crops.part(np.sort(np.random.default_rng(0).permutation(len(crops))[:most]))


def _auroc(kept: Domains, features: Mapping[str, torch.Tensor], name: str) -> float:
    rest = torch.cat([other for at, other in features.items() if at != name])
    truth = [1] * len(features[name]) + [0] * len(rest)
    return round(float(roc_auc_score(truth, kept.scores(torch.cat([features[name], rest]))[name].numpy())), 4)


def _percent(hits: torch.Tensor) -> float:
    return round(100 * float(hits.float().mean()), 1)


def calibration(lab: Lab, data: Path) -> dict[str, Any]:
    """Fit temperatures and bounds of the merges that come with LoRA Lab, and measure what they promise."""
    merges = {path.parent: SavedMerge.load(path.parent) for path in sorted((SAVED / lab.backbone.name).glob(f"*/{CARD}"))}
    models = {merge.card.name: lab.merge(merge.recipe) for merge in merges.values()}
    rows: list[dict[str, Any]] = []
    found: dict[str, dict[str, Calibration]] = {name: {} for name in models}
    for names in _by_folder(task for task in TASKS.values() if task.kind != "points"):
        crops = load_crops(TASKS[names[0]], data, "val", lab.backbone.image_size)
        for (merge, name), outputs in _outputs(models, names, crops).items():
            targets = load_crops(TASKS[name], data, "val", lab.backbone.image_size).targets
            fit = calibrate(TASKS[name], outputs, targets)
            assert fit is not None, "points were left out"
            found[merge][name] = fit
            if TASKS[name].kind == "classes":
                alone = outputs / lab.adapter(name, 16).head.temperature
                rows.append({"merge": merge, "task": name, "n": len(targets), **_reliability(alone, outputs, targets)})
    for folder, merge in merges.items():
        write_merge_card(merge.card.model_copy(update={"calibration": found[merge.card.name]}), folder)
    return {"classes": rows, "bounds": _coverage(lab, data, models, {name: fits[AGE.name] for name, fits in found.items()})}


def _reliability(before: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    # Before: as sure as the adapter alone may be. After: each half of the images at the temperature of the other.
    counts = np.concatenate([np.ones((1, len(targets)), np.float32), draw_counts(len(targets), 0, SLOPE_DRAWS)])
    found: dict[str, Any] = {}
    for when, logits in (("before", before), ("after", cross_fitted(outputs, targets))):
        slopes = calibration_slope(logits, targets, counts)
        low, high = np.nanpercentile(slopes[1:], (2.5, 97.5))
        found[f"slope_{when}"] = [round(float(value), 3) for value in (slopes[0], low, high)]
        found[f"error_{when}"] = round(debiased_error(logits, targets), 2)
    return found


def _coverage(lab: Lab, data: Path, models: Mapping[str, MergedModel], fits: Mapping[str, Calibration]) -> list[dict[str, Any]]:
    # The truth of test images within the bounds: of the adapter alone, of each merge, and of each merge with the bounds of the
    # adapter alone, as it would be without its own.
    crops = load_crops(AGE, data, "test", lab.backbone.image_size)
    adapter = lab.adapter(AGE.name, 16)
    alone = lab.merge(lab.recipe([RecipeAdapter(name=AGE.name, rank=16)]))
    card = adapter.card.calibration
    assert card is not None, "the shipped adapter has bounds"
    rows = []
    for (name, _), outputs in _outputs({"": alone, **models}, [AGE.name], crops).items():
        errors = crops.targets - _years(outputs)
        for of, fit in (("adapter", card), *([("merge", fits[name])] if name else [])):
            inside = (errors >= fit.low) & (errors <= fit.high)
            interval = binomtest(int(inside.sum()), len(inside)).proportion_ci(method="exact")
            covered = [round(100 * float(value), 1) for value in (inside.mean(), interval.low, interval.high)]
            rows.append(
                {"model": name, "bounds_of": of, "low": fit.low, "high": fit.high, "covered": covered, "n": len(inside)}
            )
    return rows


def groups(lab: Lab, data: Path) -> dict[str, Any]:
    """Errors of the best merge on val by what can be told of an image."""
    model, size = lab.merge(lab.best()), lab.backbone.image_size
    rows: list[dict[str, Any]] = []
    for task in (AGE, TASKS["emotion"]):
        crops = load_crops(task, data, "val", size)
        errors = _errors(task, model, crops)
        for by, group, chosen in _groupings(task, crops, size):
            rows.append({"task": task.name, "by": by, "group": group, **_mean(task, errors[chosen])})
        few = crops.part(np.sort(np.random.default_rng(0).permutation(len(crops))[:SHRUNK]))
        same = np.sort(np.random.default_rng(0).permutation(len(crops))[:SHRUNK])
        rows.append({"task": task.name, "by": "size", "group": str(size), **_mean(task, errors[same])})
        for small in SMALL:
            smaller = np.stack([shrunk(one, small) for one in few.centre(size)])
            found = _errors(task, model, replace(few, pixels=smaller))
            rows.append({"task": task.name, "by": "size", "group": str(small), **_mean(task, found)})
    return {"merge": lab.best().method, "rows": rows}


def _errors(task: Task, model: MergedModel, crops: Crops) -> np.ndarray:
    # Years too many for a number, 1 for a wrong class.
    outputs = _outputs({"": model}, [task.name], crops)["", task.name]
    if task.kind == "number":
        return _years(outputs) - crops.targets
    return (outputs.argmax(1) != crops.targets).astype(float)


def _groupings(task: Task, crops: Crops, size: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """What the images are divided by, the name of a group, and its rows."""
    everything = np.ones(len(crops), bool)
    yield "all", "all", everything
    if task is AGE:
        ages = TASKS["age_class"]
        place = np.searchsorted(ages.bins, crops.targets, side="right") - 1
        yield from (("age", label, place == at) for at, label in enumerate(ages.labels))
    grey = np.asarray(crops.centre(size), np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    measures = {"sharpness": laplacian.var((1, 2)), "brightness": grey.mean((1, 2))}
    for by, values in measures.items():
        quarter = np.searchsorted(np.quantile(values, (0.25, 0.5, 0.75)), values)
        for at, name in enumerate(("lowest", "second", "third", "highest")):
            yield by, name, quarter == at


def _mean(task: Task, errors: np.ndarray) -> dict[str, Any]:
    # The mean size of the errors and, of a number, which have a sign, the mean error; each with its interval.
    counts = draw_counts(len(errors), 0)
    found: dict[str, Any] = {"n": len(errors)}
    for name, values in {"error": np.abs(errors), **({"bias": errors} if task.kind == "number" else {})}.items():
        low, high = np.percentile(counts @ values / len(values), (2.5, 97.5))
        found[name] = [round(float(value), 3) for value in (values.mean(), low, high)]
    return found


def _years(outputs: np.ndarray) -> np.ndarray:
    return outputs[:, 0] * AGE.scale + AGE.offset


def _by_folder(tasks: Iterator[Task]) -> list[list[str]]:
    shared: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        shared.setdefault((task.folder, task.stored), []).append(task.name)
    return list(shared.values())


@torch.no_grad()
def _outputs(models: Mapping[str, MergedModel], names: Sequence[str], crops: Crops) -> dict[tuple[str, str], np.ndarray]:
    """Outputs of these heads by model and head; models with equal deltas share a forward."""
    parts: dict[tuple[str, str], list[np.ndarray]] = {(model, name): [] for model in models for name in names}
    twins: list[list[str]] = []
    for key, model in models.items():
        group = next((group for group in twins if _equal(models[group[0]], model)), None)
        twins.append([key]) if group is None else group.append(key)
    backbone = next(iter(models.values())).backbone
    for pixels in batches(backbone, crops):
        for group in twins:
            features = backbone.encode(pixels, models[group[0]].deltas)
            for key in group:
                for name in names:
                    parts[key, name].append(models[key].outputs(name, features).float().numpy())
    return {place: np.concatenate(some) for place, some in parts.items()}


def _equal(one: MergedModel, other: MergedModel) -> bool:
    return one.deltas.keys() == other.deltas.keys() and all(torch.equal(one.deltas[t], other.deltas[t]) for t in one.deltas)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

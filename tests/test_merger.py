"""From recipes to models: every method through the lab, images, repairs, and merges that are kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES, PORTRAIT

from lora_lab.adapters import save_adapter
from lora_lab.cards import Calibration, read_card, write_card
from lora_lab.errors import DataError, LoraLabError, MismatchError, NotFoundError
from lora_lab.lab import Lab
from lora_lab.lora import LoraFactors
from lora_lab.merging import MERGE_METHODS, MergeRecipe, Sight
from lora_lab.photos import Photo
from lora_lab.saved_merges import SavedMerge, merge_cards, own_folder, write_merge_card
from lora_lab.sights import open_sight
from lora_lab.statistics import Statistics
from lora_lab.tasks import TASKS

FREE = [method.name for method in MERGE_METHODS.values() if method.needs == "nothing"]
KEPT = "age_class=1,emotion=0.5,galaxy=1"


@pytest.fixture
def lab(adapters_root: Path, own_cache: Path) -> Lab:
    """A lab of its own, with an empty cache."""
    return Lab("tiny", adapters_root)


def recipe(text: str = KEPT, **fields: object) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny").model_copy(update=fields)


def pixels(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def sight(lab: Lab) -> Sight:
    heads = {name: lab.adapter(name, 16).head for name in TASKS}
    return Sight(lab.serving, {name: pixels(12) for name in TASKS}, heads)


@pytest.mark.parametrize("method", FREE)
def test_all_weights_0_are_the_base_bit_for_bit(method: str, lab: Lab):
    deltas = lab.merger.merged(recipe("age_class=0,emotion=0", method=method)).deltas
    assert dict(deltas) == {}


@pytest.mark.parametrize("method", FREE)
def test_weight_0_takes_an_adapter_out(method: str, lab: Lab):
    without = lab.merger.merged(recipe("age_class=1,emotion=0.5", method=method)).deltas
    at_0 = lab.merger.merged(recipe("age_class=1,galaxy=0,emotion=0.5", method=method)).deltas
    assert all(torch.equal(without[t], at_0[t]) for t in without)


def test_a_bound_reads_no_photos(lab: Lab):
    bound = next(method.name for method in MERGE_METHODS.values() if method.family == "bound")
    with pytest.raises(LoraLabError, match="a bound and no merge: it takes a forward for each task"):
        lab.merge(recipe(method=bound)).features(lab.locate(lab.photo(PORTRAIT)))


def test_factors_by_layer_scale_the_weight_there(lab: Lab):
    plain = recipe("age_class=0.5")
    (one,) = plain.adapters
    layered = plain.model_copy(update={"adapters": (one.model_copy(update={"layers": (1.0, 0.0)}),)})
    whole, part = lab.merge(plain).deltas, lab.merge(layered).deltas
    first, second = lab.backbone.target_modules[0], lab.backbone.target_modules[-1]
    assert torch.equal(part[first], whole[first])
    assert not part[second].any()
    assert layered.key != plain.key
    with pytest.raises(LoraLabError, match="3 factors for 2 layers"):
        lab.merge(plain.model_copy(update={"adapters": (one.model_copy(update={"layers": (1.0, 0.0, 1.0)}),)}))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "tie"}, "did you mean 'ties'"),
        ({"method": "iteris"}, "IterIS needs images: name some with --images"),
        ({"repair": "linear"}, "Linear repair needs images"),
        ({"repair": "magic"}, "no repair named 'magic'"),
        ({"method": "svd", "knobs": {"rank": 0.0}}, "rank = 0 is not in"),
        ({"method": "regmean"}, "no statistics beside|needs statistics"),
    ],
)
def test_what_cannot_be_is_one_line(fields: dict, told: str, lab: Lab):
    with pytest.raises(LoraLabError, match=told) as raised:
        lab.merge(recipe(**fields))
    assert "\n" not in str(raised.value)


def test_a_repair_mends_each_head(lab: Lab):
    model = lab.merge(recipe(repair="linear"), sight(lab))
    assert set(model.mends) == {"age_class", "emotion", "galaxy"}
    features = lab.backbone.encode(pixels(12), model.deltas)
    own = lab.backbone.encode(pixels(12), lab.merge(recipe("emotion=1")).deltas)
    plain = model.heads["emotion"](features)
    wanted = model.heads["emotion"](own)
    assert (model.outputs("emotion", features) - wanted).abs().mean() < 0.5 * (plain - wanted).abs().mean()


@pytest.mark.parametrize("fields", [{"method": "iteris", "repair": "patches"}, {"method": "exact", "repair": "surgery"}])
def test_a_kept_merge_comes_back_without_images(fields: dict, lab: Lab, adapters_root: Path):
    chosen = recipe(**fields)
    expected = lab.merge(chosen, sight(lab))
    kept = lab.save_merge(chosen, sight(lab), "mine", "12 pictures of noise")
    assert kept.method == "saved:mine"
    fresh = Lab("tiny", adapters_root)
    found = fresh.merge(MergeRecipe.model_validate_json(kept.model_dump_json()))
    for name in ("age_class", "emotion", "galaxy"):
        outputs = [m.outputs(name, m.backbone.encode(pixels(), m.deltas)) for m in (expected, found)]
        # Half precision on disk.
        torch.testing.assert_close(outputs[0], outputs[1], atol=0.05, rtol=0.02)
    card = SavedMerge.load(own_folder("tiny") / "mine").card
    assert card.recipe == chosen
    assert card.images == "12 pictures of noise"
    assert card.fingerprint == fresh.fingerprint(chosen)


def test_a_broken_merge_is_left_out_and_the_others_stay(lab: Lab, adapters_root: Path, caplog: pytest.LogCaptureFixture):
    for name in ("whole", "torn"):
        lab.save_merge(recipe(method="exact"), None, name, "none")
    (own_folder("tiny") / "torn" / "merge.safetensors").write_bytes(b"torn")
    fresh = Lab("tiny", adapters_root)
    assert "saved:whole" in fresh.merger.methods
    assert "saved:torn" not in fresh.merger.methods
    assert "torn holds no merge that can be read" in caplog.text
    assert set(merge_cards("tiny")) >= {"whole", "torn"}
    (own_folder("tiny") / "torn" / "merge.json").write_text("{")
    assert "torn" not in merge_cards("tiny")


def test_weights_do_not_move_a_kept_merge(lab: Lab):
    kept = lab.save_merge(recipe(method="iteris"), sight(lab), "mine", "noise")
    at_rest = lab.merge(kept).deltas

    def at(**weights: float) -> MergeRecipe:
        adapters = tuple(a.model_copy(update={"weight": weights.get(a.name, a.weight)}) for a in kept.adapters)
        return kept.model_copy(update={"adapters": adapters})

    assert "weights" in lab.merger.methods[kept.method].refuses
    assert all(torch.equal(delta, at_rest[t]) for t, delta in lab.merge(at(emotion=0.0, galaxy=-1.0)).deltas.items())
    assert dict(lab.merge(at(age_class=0.0, emotion=0.0, galaxy=0.0)).deltas) == {}
    with pytest.raises(MismatchError, match="not landmarks:r16: take another method"):
        lab.merge(recipe("age_class=1,landmarks=1", method="saved:mine"))
    assert lab.merger.saved[kept.method].is_at(kept)
    assert not lab.merger.saved[kept.method].is_at(at(emotion=0.4))


def test_best_is_the_kept_merge_of_these_adapters(lab: Lab, adapters_root: Path):
    assert lab.best() == lab.uniform()
    kept = lab.save_merge(recipe(method="iteris"), sight(lab), "mine", "noise")
    assert Lab("tiny", adapters_root).best() == kept
    mine = lab.merger.saved["saved:mine"]
    lab.merger.saved = {"saved:mine": replace(mine, card=mine.card.model_copy(update={"fingerprint": "of others"}))}
    assert lab.best() == lab.uniform()


def calibrated(lab: Lab, chosen: MergeRecipe) -> dict[str, bool]:
    return {name: head.calibrated for name, head in lab.merge(chosen).heads.items()}


def test_a_kept_merge_of_other_adapters_is_refused_and_the_page_opens_without_it(lab: Lab, tmp_path: Path):
    shutil.copytree(lab.adapters_root, tmp_path / "adapters")
    own = Lab("tiny", tmp_path / "adapters")
    lowest = {name: min(ranks) for name, ranks in own.ranks().items()}
    kept = own.save_merge(recipe(",".join(f"{name}:r{rank}=1" for name, rank in lowest.items())), None, "mine", "none")
    assert own.best() == kept
    old = own.adapter("emotion", lowest["emotion"])
    other = {target: LoraFactors(pair.a, -pair.b) for target, pair in old.factors.items()}
    save_adapter(replace(old, factors=other), own.folder("emotion", old.card.variant))
    with pytest.raises(MismatchError, match="was made of other adapters than those that have their names now"):
        own.merge(kept)
    assert own.best() == own.uniform()


def test_an_adapter_alone_at_weight_1_is_as_sure_as_its_card_has_it(lab: Lab, tmp_path: Path):
    shutil.copytree(lab.adapters_root, tmp_path / "adapters")
    for name, fit in (("emotion", Calibration(n=50, temperature=2.0)), ("age_regression", Calibration(n=50, low=-3, high=4))):
        folder = tmp_path / "adapters" / "tiny" / name / "r16"
        write_card(read_card(folder).model_copy(update={"calibration": fit}), folder)
    lab = Lab("tiny", tmp_path / "adapters")
    assert calibrated(lab, recipe("emotion=1")) == {"emotion": True}
    assert calibrated(lab, recipe("emotion=1,galaxy=0,age_regression=0")) == {
        "emotion": True,
        "galaxy": False,
        "age_regression": False,
    }
    for text in ("emotion=0.9", "emotion=1,age_regression=1", "emotion=0"):
        assert not any(calibrated(lab, recipe(text)).values())
    assert calibrated(lab, recipe("emotion=1", method="uniform")) == {"emotion": True}
    assert calibrated(lab, recipe("emotion=1", method="ties")) == {"emotion": False}
    assert lab.merge(recipe("emotion=0.9")).heads["emotion"].temperature == 2, "as sure as alone, for want of better"
    # The adapter's own head stays as it was.
    assert lab.adapter("emotion", 16).head.calibrated
    assert not lab.merge(recipe("emotion=0.9")).heads["emotion"].calibrated
    assert lab.merge(recipe("emotion=1")).heads["emotion"].calibrated
    answers = (
        lab.predict(Photo.read(PORTRAIT), recipe("emotion=1,age_regression=0,landmarks=0")).prediction.faces[0].predictions
    )
    assert {name: one.calibrated for name, one in answers.items()} == {
        "emotion": True,
        "age_regression": False,
        "landmarks": None,
    }


def test_a_kept_merge_may_have_a_calibration_of_its_own(lab: Lab, adapters_root: Path):
    kept = lab.save_merge(recipe("emotion=1,age_regression=1,galaxy=1"), None, "mine", "none")
    assert not any(calibrated(lab, kept).values())
    folder = own_folder("tiny") / "mine"
    fits = {"emotion": Calibration(n=50, temperature=3.0), "age_regression": Calibration(n=50, low=-5, high=6)}
    write_merge_card(SavedMerge.load(folder).card.model_copy(update={"calibration": fits}), folder)
    fresh = Lab("tiny", adapters_root)
    assert calibrated(fresh, kept) == {"emotion": True, "age_regression": True, "galaxy": False}
    heads = fresh.merge(kept).heads
    assert (heads["emotion"].temperature, heads["age_regression"].interval) == (3.0, (-5.0, 6.0))
    assert fresh.adapter("emotion", 16).head.temperature == 1.0
    idle = tuple(a.model_copy(update={"weight": 0.0}) for a in kept.adapters)
    assert not any(calibrated(fresh, kept.model_copy(update={"adapters": idle})).values())


def test_cards_from_before_calibration_load(lab: Lab):
    lab.save_merge(recipe(), None, "mine", "none")
    path = own_folder("tiny") / "mine" / "merge.json"
    fields = json.loads(path.read_text())
    del fields["calibration"]
    path.write_text(json.dumps(fields))
    assert merge_cards("tiny")["mine"].calibration == {}


def test_a_name_that_leaves_the_folder_is_refused(lab: Lab):
    with pytest.raises(LoraLabError, match="is no name: take at most 40 letters"):
        lab.save_merge(recipe(method="iteris"), sight(lab), "../mine", "noise")


def test_photos_are_seen_by_their_kind(lab: Lab, tmp_path: Path):
    seen = open_sight(lab.serving, lab.heads(recipe()), EXAMPLES, 10)
    assert seen.pixels["age_class"] is seen.pixels["emotion"]
    assert len(seen.pixels["galaxy"]) == len(list(EXAMPLES.glob("*.jpg")))
    assert len(seen.pixels["age_class"]) > 0
    with pytest.raises(DataError, match="no photos in"):
        open_sight(lab.serving, lab.heads(recipe()), tmp_path, 10)
    (tmp_path / "sky.jpg").write_bytes((EXAMPLES / "hubble_spiral.jpg").read_bytes())
    with pytest.raises(LoraLabError, match=r"no face was found .* age_class, emotion must see some"):
        open_sight(lab.serving, lab.heads(recipe()), tmp_path, 10)


def test_an_unknown_saved_merge_is_told(lab: Lab):
    with pytest.raises(NotFoundError, match="no merge method named 'saved:lost'"):
        lab.merge(recipe(method="saved:lost"))


@pytest.mark.parametrize("method", [m.name for m in MERGE_METHODS.values()])
def test_the_order_in_which_adapters_are_named_moves_no_bit(method: str, lab: Lab, monkeypatch: pytest.MonkeyPatch):
    knobs = {k.name: max(k.low, 2.0) for k in MERGE_METHODS[method].knobs if k.name in ("steps", "trials", "images")}
    looks = sight(lab) if MERGE_METHODS[method].needs in ("images", "labels") else None
    if looks:
        targets = {"classes": torch.zeros(12).long(), "points": torch.zeros(12, 68, 2), "number": torch.full((12,), 30.0)}
        looks = replace(looks, labels={name: targets[task.kind] for name, task in TASKS.items()})
    grams = {target.rpartition(".")[0]: torch.eye(32) + 0.1 for target in lab.backbone.target_modules}
    known = {
        name: replace(lab.adapter(name, 16), statistics=Statistics(grams, torch.eye(3, 32)))
        for name in ("age_class", "emotion", "galaxy")
    }
    monkeypatch.setattr(lab.merger, "_adapter", lambda name, rank: known[name])
    names = [f"{name}={weight}" for name, weight in zip(known, (1, 0.5, 0.7), strict=True)]
    one, other = (
        lab.merger.merged(recipe(",".join(some), method=method, knobs=knobs, seed=3), looks and replace(looks))
        for some in (names, names[::-1])
    )
    assert all(torch.equal(one.deltas[target], other.deltas[target]) for target in one.deltas)
    assert len(one.own) == len(other.own)
    for here, there in zip(one.own, reversed(other.own), strict=True):
        assert all(torch.equal(here[target], there[target]) for target in here)
    if one.layers is not None and other.layers is not None:
        assert torch.equal(one.layers, other.layers.flip(0)), "each adapter keeps its own factors"


def test_a_decomposition_without_an_answer_is_one_line(tiny_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: object) -> None:
        raise torch.linalg.LinAlgError("cholesky: the factorization could not be completed\nmore")

    recipe = MergeRecipe.parse("emotion=1,galaxy=1", "tiny").model_copy(update={"method": "ties"})
    monkeypatch.setattr(tiny_lab.merger, "_merged", failing)
    with pytest.raises(LoraLabError, match="TIES finds no answer for these adapters") as caught:
        tiny_lab.merger.merged(recipe)
    assert "\n" not in str(caught.value)

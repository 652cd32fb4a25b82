"""Every set of the adapters that ship comes out as one adapter that agrees with what peft itself makes of them."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from lora_lab.cli import app, merge
from lora_lab.exports import export_adapter, open_full
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe, RecipeAdapter
from lora_lab.photos import Photo
from lora_lab.ui.api import Endpoints

NAMES = ("age_class", "age_regression", "emotion", "galaxy", "land_cover", "landmarks")
SETS = [chosen for size in range(1, len(NAMES) + 1) for chosen in combinations(NAMES, size)]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def peft_model(lab: Lab) -> Any:
    folders = {name: str(lab.folder(name, "r16")) for name in NAMES}
    model = PeftModel.from_pretrained(lab.backbone.tuned({}).module, folders[NAMES[0]], adapter_name=NAMES[0])  # type: ignore[arg-type]
    for name in NAMES[1:]:
        model.load_adapter(folders[name], adapter_name=name)
    return model


@pytest.fixture
def run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    # One lab serves all calls: to load the backbone each time would take longer than all exports together.
    monkeypatch.setitem(merge.__wrapped__.__globals__, "open_lab", lambda *_: lab)  # type: ignore[attr-defined]
    return lambda *words: CliRunner().invoke(app, ["merge", *map(str, words)])


def peft_deltas(model: Any, names: Sequence[str], weights: Sequence[float]) -> dict[str, Tensor]:
    """ΔW by target module as `add_weighted_adapter` concatenates them."""
    model.add_weighted_adapter(list(names), list(weights), "merged", combination_type="cat")
    try:
        layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
        return {name.removeprefix("base_model.model."): layer.get_delta_weight("merged") for name, layer in layers.items()}
    finally:
        model.delete_adapter("merged")


def written_deltas(folder: Path) -> dict[str, Tensor]:
    """ΔW by target module of an exported adapter, whose alpha is its rank."""
    tensors = load_file(folder / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {
        name.removeprefix("base_model.model."): tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        for name in names
    }


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for target, delta in expected.items():
        torch.testing.assert_close(found[target], delta, rtol=0, atol=1e-4)


def test_each_of_all_63_sets_is_written_by_the_command_and_is_what_peft_makes(run: Callable, peft_model: Any, tmp_path: Path):
    assert len(SETS) == 63
    for chosen in SETS:
        folder = tmp_path / "-".join(chosen)
        result = run(folder, "--adapters", ",".join(f"{name}=1" for name in chosen))
        assert result.exit_code == 0, (chosen, result.output)
        agree(written_deltas(folder), peft_deltas(peft_model, chosen, [1.0] * len(chosen)))
    assert {path.name for path in tmp_path.iterdir()} == {"-".join(chosen) for chosen in SETS}  # and nothing half-written


def test_singles_and_pairs_are_written_by_the_api(lab: Lab, peft_model: Any, tmp_path: Path):
    import zipfile

    for chosen in SETS[:21]:
        weights = [1.0, 0.5][: len(chosen)]
        text = ",".join(f"{name}={weight}" for name, weight in zip(chosen, weights, strict=True))
        summary, archive = Endpoints(lab).merge(text, export=True)
        assert summary["norm"] > 0
        assert archive is not None
        folder = tmp_path / "-".join(chosen)
        with zipfile.ZipFile(archive["path"]) as file:
            file.extractall(folder)
        agree(written_deltas(folder / "adapter"), peft_deltas(peft_model, chosen, weights))


def test_the_encoder_with_an_export_sees_what_it_sees_here(run: Callable, lab: Lab, tmp_path: Path):
    folder = tmp_path / "out"
    assert run(folder, "--adapters", "age_class=1,emotion=0.5").exit_code == 0
    pixels = torch.randn(2, 3, lab.backbone.image_size, lab.backbone.image_size, generator=torch.Generator().manual_seed(0))
    peft = PeftModel.from_pretrained(lab.backbone.tuned({}).module, str(folder))  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = peft(pixels).pooler_output
        ours = lab.backbone.encode(pixels, lab.merger.merged(MergeRecipe.read(folder / "recipe.json")).deltas).pooled
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("emotion:r64=1,landmarks=-0.5", "exact"),
        ("emotion:r64=1,age_class:r64=1", "exact"),
        ("emotion=1,galaxy=1", "regmean"),
        ("emotion=1,galaxy=1,land_cover=0.3", "ties"),
    ],
)
@pytest.mark.parametrize("rank", [None, 16])
def test_other_ranks_weights_and_methods(text: str, method: str, rank: int | None, lab: Lab, tmp_path: Path):
    recipe = MergeRecipe.parse(text, "dinov2-small").model_copy(update={"method": method})
    done = export_adapter(lab, recipe, tmp_path / "out", rank=rank)
    merged = lab.merger.merged(recipe).deltas
    if rank is None:
        assert done.loss < 1e-4
        agree(written_deltas(done.folder), dict(merged))
    else:
        assert done.rank == 16
        assert done.output_loss is not None
        assert 0 < done.output_loss < done.loss < 1


def test_the_best_merge_is_cut_to_a_rank_and_taken_whole(lab: Lab, tmp_path: Path):
    best = lab.best()
    cut = export_adapter(lab, best, tmp_path / "cut", rank=16)
    assert cut.output_loss is not None
    assert 0 < cut.output_loss < cut.loss < 1
    result = CliRunner().invoke(app, ["merge", str(tmp_path / "full"), "--full"])
    assert result.exit_code == 0, result.output
    portrait = Photo.read(Path("assets/examples/astronaut.jpg")).image
    assert open_full(tmp_path / "full").predict(portrait).faces[0].predictions["emotion"].answer == "happy"


def test_factors_per_layer_are_written(lab: Lab, tmp_path: Path):
    shares = tuple(0.1 * place for place in range(12))
    recipe = lab.recipe([RecipeAdapter(name="emotion", layers=shares), RecipeAdapter(name="galaxy", weight=0.5)])
    done = export_adapter(lab, recipe, tmp_path / "out")
    agree(written_deltas(done.folder), dict(lab.merger.merged(recipe).deltas))


def test_every_statistic_that_ships_is_positive_semidefinite(lab: Lab):
    for card in lab.cards():
        statistics = lab.adapter(card.name, card.rank).statistics if card.mergeable else None
        for gram in statistics.grams.values() if statistics else ():
            assert float(torch.linalg.eigvalsh(gram.double())[0]) >= -1e-6 * float(gram.diagonal().max())

"""Adapters that people bring join the others, answer as in peft, and go again."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PORTRAIT, random_adapter
from made_adapters import FACTORS, by_peft, files_of, write_paints, zipped
from peft import PeftModel
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from lora_lab import cards
from lora_lab.adapters import save_adapter
from lora_lab.backbones import Backbone
from lora_lab.cli import app
from lora_lab.composition.zipped import read_zip
from lora_lab.errors import LoraLabError, NotFoundError
from lora_lab.lab import Lab
from lora_lab.lora import deltas_of
from lora_lab.merging import MergeRecipe
from lora_lab.own_adapters import Offer, add, forget, sources
from lora_lab.statistics import collect
from lora_lab.tasks import TASKS
from lora_lab.ui.own_panel import added
from lora_lab.ui.stops import STOPPED, StoppedError


@pytest.fixture
def lab(own_cache: Path) -> Lab:
    """A lab that has no adapters but the user's own."""
    return Lab("tiny")


@pytest.fixture(scope="module")
def made(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_peft(tiny, tmp_path_factory.mktemp("made") / "mine")


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paints(tmp_path_factory.mktemp("paints") / "paints.zip")


@pytest.fixture
def whole(tiny: Backbone, tmp_path: Path) -> Path:
    """An adapter with everything that LoRA Lab writes of it."""
    save_adapter(random_adapter(tiny, "galaxy", 4, 1), tmp_path / "whole")
    return tmp_path / "whole"


def some_pixels(backbone: Backbone) -> torch.Tensor:
    size = backbone.image_size
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layer.0.attention.k_proj": 2}, "alpha_pattern": {"v_proj": 1, "layer.0.attention.k_proj": 9}},
        {"target_modules": ["v_proj"], "lora_dropout": 0.1, "init_lora_weights": "gaussian"},
    ],
)
def test_features_and_answers_are_as_in_peft(options: dict, lab: Lab, tiny: Backbone, paints: Path, tmp_path: Path):
    folder = by_peft(tiny, tmp_path / "theirs", **options)
    tensors = {name: torch.randn_like(tensor) * 0.2 for name, tensor in load_file(folder / FACTORS).items()}
    save_file(tensors, folder / FACTORS)
    card = add(lab, Offer(str(folder), "mine", paints))
    adapter, pixels = lab.adapter("mine", card.rank), some_pixels(tiny)
    ours = tiny.encode(pixels, deltas_of(adapter.factors)).pooled
    theirs = PeftModel.from_pretrained(tiny.to(torch.float32).module, str(folder))
    with torch.no_grad():
        torch.testing.assert_close(ours, theirs(pixels).pooler_output, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, tiny.encode(pixels).pooled, atol=1e-2)


def test_a_head_is_trained_on_the_adapters_features_and_scored_on_other_images(lab: Lab, made: Path, paints: Path):
    told: list[float] = []
    card = add(lab, Offer(str(made), "paints", paints), lambda share, what: told.append(share))
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    adapter = lab.adapter("paints", 4)
    task = adapter.head.task
    assert (task.name, task.title, task.labels, task.framing) == ("paints", "Paints", ("green", "red"), "square")
    score = card.scores["val"]["accuracy"]
    assert (score.n, score.value) == (6, 100.0)
    assert card.training["head_images"] == 24
    assert (card.calibration, card.gate) == (None, None)
    assert adapter.statistics is not None
    fitting = {target.rpartition(".")[0] for target in adapter.factors}
    assert set(adapter.statistics.grams) == fitting
    answer = lab.predict(lab.photo(PORTRAIT), MergeRecipe.parse("paints:r4=1", "tiny")).prediction.photo.predictions["paints"]
    assert set(answer.probabilities or ()) == {"green", "red"}


def test_statistics_are_those_of_the_adapters_own_inputs(lab: Lab, tiny: Backbone, made: Path, paints: Path):
    add(lab, Offer(str(made), "paints", paints))
    adapter = lab.adapter("paints", 4)
    assert adapter.statistics is not None
    _, crops = read_zip(paints, 56)
    plain = collect(tiny, {}, adapter.head.task, crops)
    own = collect(tiny, deltas_of(adapter.factors), adapter.head.task, crops)
    last = "encoder.layer.1.attention"
    kept = adapter.statistics.grams[last]
    assert (kept - own.grams[last]).norm() < 0.5 * (kept - plain.grams[last]).norm()


@pytest.mark.parametrize("top", ["", "mine/"])
def test_a_zip_is_as_good_as_a_folder(top: str, lab: Lab, made: Path, paints: Path, tmp_path: Path):
    archive = zipped(tmp_path / "mine.zip", {**files_of(made, top), "__MACOSX/._x": b"x", f"{top}notes.txt": b"mine"})
    add(lab, Offer(str(archive), "one", paints))
    add(lab, Offer(str(made.parent), "other", paints))
    one, other = lab.adapter("one", 4).factors, lab.adapter("other", 4).factors
    assert all(torch.equal(one[target].b, other[target].b) for target in one)
    assert lab.adapter("one", 4).card.training["brought_from"] == "mine.zip"


def test_images_in_folders_will_do(lab: Lab, made: Path, paints: Path, tmp_path: Path):
    with zipfile.ZipFile(paints) as archive:
        archive.extractall(tmp_path / "paints")
    card = add(lab, Offer(str(made), "mine", tmp_path / "paints"))
    assert card.load_task().labels == ("green", "red")
    assert card.scores["val"]["accuracy"].n == 4


def test_a_head_that_came_along_is_kept(lab: Lab, tiny: Backbone, whole: Path):
    card = add(lab, Offer(str(whole), "stars"))
    adapter, given = lab.adapter("stars", 4), random_adapter(tiny, "galaxy", 4, 1)
    for name, tensor in given.head.state_dict().items():
        assert torch.equal(adapter.head.state_dict()[name], tensor)
    assert (card.name, card.task, card.load_task().labels) == ("stars", "stars", TASKS["galaxy"].labels)
    assert lab.tasks()["stars"].title == "Stars"


def test_a_running_lab_sees_what_joins_what_goes_and_what_takes_its_place(
    adapters_root: Path, own_cache: Path, tiny: Backbone, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cards, "PRETRAINED", adapters_root)
    lab = Lab("tiny")
    assert list(lab.ranks()) == list(TASKS)
    add(lab, Offer(str(whole), "stars"))
    assert list(lab.ranks()) == [*TASKS, "stars"]
    assert [a.name for a in lab.uniform().adapters] == [*TASKS, "stars"]
    recipe = MergeRecipe.parse("stars:r4=1,galaxy=0.5", "tiny")
    first, photo = lab.merge(recipe).deltas, lab.photo(PORTRAIT)
    said = lab.alone(photo, "stars", 4)
    assert list(lab.merge(recipe).heads) == ["stars", "galaxy"]
    assert "stars" not in Lab("tiny", adapters_root).tasks()

    forget("tiny", "stars")
    assert "stars" not in lab.tasks()
    with pytest.raises(NotFoundError, match="no adapter named 'stars'"):
        lab.merge(recipe)
    save_adapter(random_adapter(tiny, "galaxy", 4, 2), tmp_path / "other")
    add(lab, Offer(str(tmp_path / "other"), "stars"))
    second = lab.merge(recipe).deltas
    assert not any(torch.allclose(first[target], second[target]) for target in first)
    assert lab.alone(photo, "stars", 4) != said
    assert sorted(path.name for path in (own_cache / "adapters").iterdir()) == ["tiny"]


def test_names_that_are_taken_are_refused(
    adapters_root: Path, own_cache: Path, tiny: Backbone, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(adapters_root, tmp_path / "root")
    theirs = tmp_path / "root" / "tiny" / "trained" / "r16"
    shutil.copytree(tmp_path / "root" / "tiny" / "galaxy" / "r16", theirs)
    card = json.loads((theirs / "card.json").read_text()) | {"name": "trained"}
    (theirs / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(cards, "PRETRAINED", tmp_path / "root")
    lab = Lab("tiny")
    add(lab, Offer(str(whole), "stars"))
    for name, said in {
        "galaxy": "is a task of the catalog",
        "trained": "an adapter named trained already",
        "stars": "lora-lab forget stars",
        "../stars": "cannot name a task",
        "x" * 41: "cannot name a task",
    }.items():
        with pytest.raises(LoraLabError, match=said):
            add(lab, Offer(str(whole), name))
    with pytest.raises(LoraLabError, match="comes with LoRA Lab and stays; of your own there is stars"):
        forget("tiny", "galaxy")
    with pytest.raises(NotFoundError, match="did you mean 'stars'"):
        forget("tiny", "star")
    with pytest.raises(LoraLabError, match="leave out --adapters-root"):
        add(Lab("tiny", adapters_root), Offer(str(whole), "suns"))


def test_the_hub_is_asked_for_these_files_alone(lab: Lab, made: Path, paints: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def listed(self: object, repo: str, files_metadata: bool) -> SimpleNamespace:
        siblings = [SimpleNamespace(rfilename=path.name, size=path.stat().st_size) for path in made.iterdir()]
        return SimpleNamespace(sha="abc", siblings=[*siblings, SimpleNamespace(rfilename="model.bin", size=10**12)])

    def fetched(repo: str, revision: str, allow_patterns: list[str]) -> str:
        asked.update(repo=repo, revision=revision, allow=allow_patterns)
        return str(made)

    monkeypatch.setattr(sources.HfApi, "model_info", listed)
    monkeypatch.setattr(sources, "snapshot_download", fetched)
    card = add(lab, Offer("someone/lora", "mine", paints))
    assert (asked["repo"], asked["revision"]) == ("someone/lora", "abc")
    assert all(name.endswith((".json", ".safetensors")) and "*" not in name for name in asked["allow"])
    assert card.training["brought_from"] == "someone/lora"


def test_a_listener_may_end_the_work_and_nothing_is_kept(lab: Lab, made: Path, paints: Path, own_cache: Path):
    def tell(share: float, what: str) -> None:
        if "the head" in what:
            raise StoppedError("cancelled")

    assert added(lab, (str(made), "mine", str(paints), "square"), tell) == STOPPED
    assert lab.cards() == []
    assert list((own_cache / "adapters").iterdir()) == []


def test_the_page_tells_in_markdown_what_came_of_it(lab: Lab, made: Path, paints: Path):
    def tell(share: float, what: str) -> None:
        assert 0 <= share <= 1

    assert "there is no zip yet" in added(lab, (None, "mine", None, "square"), tell)
    lacking = added(lab, (str(made), "mine", None, "square"), tell)
    assert "**Not added.**" in lacking
    assert "\n- has no head" in lacking
    told = added(lab, (str(made), " Mine ", str(paints), "square"), tell)
    assert "Added **mine** at rank 4, on 4 modules" in told
    assert "All sliders of this page are taken" in told
    assert "| macro_f1 | 100.0 |" in told


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--backbone", "tiny"], env={"COLUMNS": "250"})


@pytest.mark.usefixtures("own_cache")
def test_the_commands_add_list_and_forget(made: Path, paints: Path, adapters_root: Path):
    assert "added mine r4, macro_f1 on 6 images 100.0" in run("add", made, "--name", "mine", "--images", paints).output
    assert json.loads(run("adapters", "--json").stdout)[0]["own"] is True
    assert "you" in run("adapters").output
    assert "mine" not in run("adapters", "--adapters-root", adapters_root).output
    again = run("add", made, "--name", "mine")
    assert (again.exit_code, "lora-lab forget mine" in again.output) == (2, True)
    without = run("add", made, "--name", "other")
    assert (without.exit_code, "has no head" in without.output) == (2, True)
    assert "removed mine" in run("forget", "mine").output
    assert run("adapters").exit_code == 2

"""Which kind of picture a crop is: on made features whose kinds are known, and with the domains that come with LoRA Lab."""

from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES

from lora_lab.backbones import Backbone, load_backbone
from lora_lab.domains import DOMAINS_FILE, Domains, domain_of, nearest
from lora_lab.errors import DataError
from lora_lab.inference import locate
from lora_lab.photos import open_photo
from lora_lab.tasks import TASKS

WIDTH = 12


def cloud(place: int, n: int, seed: int) -> torch.Tensor:
    """Features around a direction of their own, at lengths that say nothing."""
    generator = torch.Generator().manual_seed(100 * place + seed)
    points = torch.eye(WIDTH)[place] + 0.1 * torch.randn(n, WIDTH, generator=generator)
    return points * (1 + 5 * torch.rand(n, 1, generator=generator))


@pytest.fixture(scope="module")
def made() -> Domains:
    names = ("face", "galaxy", "land_cover")
    learned, own = ({name: cloud(place, 400, seed) for place, name in enumerate(names)} for seed in (0, 1))
    return Domains.fit(learned, own, "of made features")


def test_each_kind_is_inside_its_own_domain_alone(made: Domains):
    for place, name in enumerate(made.domains):
        judged = made.judge(cloud(place, 400, 2))
        assert 0.9 <= sum(one[name].inside for one in judged) / 400 <= 0.99
        assert not any(one[other].inside for one in judged for other in made.domains if other != name)
        assert all(nearest(one) == name for one in judged)


def test_strangers_are_inside_none(made: Domains):
    assert not any(one.inside for judged in made.judge(cloud(7, 100, 0)) for one in judged.values())


def test_a_score_falls_by_what_another_domain_is_likelier(made: Domains):
    features = cloud(1, 20, 3)
    unit = features / features.norm(dim=1, keepdim=True)
    scores = made.scores(features)
    torch.testing.assert_close(scores["galaxy"], made.domains["galaxy"].nearness(unit))
    assert (scores["face"] < made.domains["face"].nearness(unit) - 1).all()


def test_two_domains_are_enough():
    pair = Domains.fit({"a": cloud(0, 200, 0), "b": cloud(1, 200, 0)}, {"a": cloud(0, 99, 1), "b": cloud(1, 99, 1)}, "")
    assert [nearest(one) for one in pair.judge(torch.cat([cloud(0, 5, 2), cloud(1, 5, 2)]))] == ["a"] * 5 + ["b"] * 5


def test_what_is_read_judges_as_what_was_saved(made: Domains, tmp_path: Path):
    made.save(tmp_path / "made.safetensors")
    read = Domains.read(tmp_path / "made.safetensors")
    assert (read.fingerprint, list(read.domains)) == ("of made features", ["face", "galaxy", "land_cover"])
    for name, scores in made.scores(cloud(0, 50, 4)).items():
        torch.testing.assert_close(read.scores(cloud(0, 50, 4))[name], scores, atol=0.05, rtol=0.01)
        assert read.domains[name].threshold == made.domains[name].threshold


def test_what_is_no_file_of_domains_is_told(tmp_path: Path):
    (tmp_path / "torn").write_bytes(b"torn")
    with pytest.raises(DataError, match="holds no domains that can be read"):
        Domains.read(tmp_path / "torn")
    with pytest.raises(DataError, match="holds no domains that can be read"):
        Domains.read(tmp_path / "none")


def test_the_domain_of_a_task():
    domains = {name: domain_of(task) for name, task in TASKS.items()}
    faces = dict.fromkeys(("age_class", "age_regression", "emotion", "landmarks"), "face")
    assert domains == faces | {"galaxy": "galaxy", "land_cover": "land_cover"}


def test_no_crop_is_no_judgement(made: Domains):
    assert made.judge(torch.zeros(0, WIDTH)) == []


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("dinov2-small")


def judged(backbone: Backbone, photo: Path) -> list[dict]:
    """Of each face and then of the centre square."""
    located = locate(open_photo(photo), backbone)
    with torch.no_grad():
        return Domains.read().judge(backbone.encode(torch.cat([located.face_pixels, located.square_pixels])).pooled)


def test_the_domains_are_of_the_default_backbone(backbone: Backbone, tiny: Backbone):
    assert Domains.read().fits(backbone)
    assert not Domains.read().fits(tiny)
    assert DOMAINS_FILE.stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["astronaut.jpg", "grace_hopper.jpg"])
def test_a_portrait_is_a_face_and_its_square_no_galaxy(backbone: Backbone, name: str):
    face, square = judged(backbone, EXAMPLES / name)
    assert {domain: one.inside for domain, one in face.items()} == {"face": True, "galaxy": False, "land_cover": False}
    assert not square["galaxy"].inside
    assert not square["land_cover"].inside


def test_a_galaxy_is_nearest_to_galaxies(backbone: Backbone):
    # It is enlarged three times, and so beyond what the training images show of galaxies; but it is nothing else.
    (square,) = judged(backbone, EXAMPLES / "hubble_spiral.jpg")
    assert nearest(square) == "galaxy"
    assert square["galaxy"].score > square["face"].score / 2
    assert not square["face"].inside
    assert not square["land_cover"].inside


def test_strange_pictures_are_neither_faces_nor_galaxies(backbone: Backbone):
    paths = sorted((EXAMPLES.parent / "strangers").glob("*.jpg"))
    sources = (EXAMPLES.parent / "strangers" / "SOURCES.md").read_text(encoding="utf-8")
    assert len(paths) >= 40
    assert all(f"`{path.name}`" in sources for path in paths)
    with torch.no_grad():
        pooled = backbone.encode(backbone.preprocess([open_photo(path) for path in paths])).pooled
    inside = [{name for name, one in judgement.items() if one.inside} for judgement in Domains.read().judge(pooled)]
    assert sum("galaxy" in some for some in inside) == 0
    assert sum("face" in some for some in inside) <= 2
    assert sum("land_cover" in some for some in inside) < len(paths) / 3

"""Many people on one page at once, a long evening of one person, and photos of every kind."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from conftest import EXAMPLES, PORTRAIT
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from visitor import Visitor  # pyright: ignore[reportMissingImports] (beside this file)

from lora_lab.backbones import fast_precision
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.photos import LARGEST_PIXELS, Photo
from lora_lab.tasks import TASKS

PEOPLE, MOVES, TOGETHER = 16, 20, 8
METHODS = ("exact", "ties", "exact", "dare")
PHOTOS = [PORTRAIT, EXAMPLES / "grace_hopper.jpg", EXAMPLES / "hubble_spiral.jpg"]


def timeless(answer: dict) -> dict:
    """An answer as JSON without the times."""
    return {name: value for name, value in json.loads(json.dumps(answer)).items() if name != "milliseconds"}


def evening(url: str, person: int) -> list[tuple[float, float, dict]]:
    """What one person asks and is told, one slider after the other: start, end and answer."""
    draws, told = random.Random(person), []
    with Visitor(url) as visitor:
        visitor.upload(PHOTOS[person % len(PHOTOS)])
        moved: dict = {f"weight-{name}": round(draws.uniform(-0.5, 1), 2) for name in TASKS}
        moved["merge-method"] = METHODS[person % len(METHODS)]
        for _ in range(MOVES):
            start = time.perf_counter()
            answer = visitor.move(moved)
            told.append((start, time.perf_counter(), answer))
            weights = {f"weight-{one['name']}": one["weight"] for one in answer["recipe"]["adapters"]}
            assert weights == {name: visitor.values[name] for name in weights}
            assert len(weights) == len(TASKS)
            moved = {f"weight-{draws.choice(list(TASKS))}": round(draws.uniform(-0.5, 1), 2)}
    return told


def most_together(spans: list[tuple[float, float]]) -> int:
    """How many spans of time there are at most at one moment."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def test_everybody_is_told_what_they_would_be_told_alone(tiny_address: str, adapters_root: Path):
    with ThreadPoolExecutor(PEOPLE) as pool:
        told = list(pool.map(lambda person: evening(tiny_address, person), range(PEOPLE)))
    assert most_together([(start, end) for one in told for start, end, _ in one]) >= TOGETHER
    assert {answer["recipe"]["method"] for one in told for *_, answer in one} == set(METHODS)
    alone = Lab("tiny", adapters_root, fast_precision())
    photos = [Photo.read(path) for path in PHOTOS]
    for person, one in enumerate(told):
        for *_, answer in one:
            recipe = MergeRecipe.model_validate(answer["recipe"])
            again = alone.predict(photos[person % len(photos)], recipe).to_json()
            assert timeless(answer) == timeless(again)


def test_a_thousand_moves_neither_drift_nor_fill_the_memory(adapters_root: Path):
    lab, process, draws = Lab("tiny", adapters_root), psutil.Process(), random.Random(0)
    weights, dragged, before = dict.fromkeys(TASKS, 0.5), "", 0
    for move in range(1000):
        dragged = dragged if move % 10 else draws.choice(list(TASKS))
        weights[dragged] = draws.uniform(-1, 2)
        recipe = MergeRecipe.parse(",".join(f"{name}={weight}" for name, weight in weights.items()), "tiny")
        deltas = lab.merge(recipe).deltas
        if move % 200 == 199:
            fresh = Lab("tiny", adapters_root).merge(recipe).deltas
            assert all(torch.equal(deltas[target], fresh[target]) for target in fresh)
        if move == 299:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 20e6


@pytest.fixture(scope="module")
def client(tiny_address: str) -> Client:
    return Client(tiny_address, verbose=False, analytics_enabled=False)


def predicted(client: Client, content: bytes, name: str, folder: Path) -> dict:
    """What the API says about a file with this content."""
    path = folder / name
    path.write_bytes(content)
    return timeless(client.predict(handle_file(path), "emotion=1,landmarks=0.5,galaxy=1", api_name="/predict"))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def portrait() -> Image.Image:
    with Image.open(PORTRAIT) as image:
        return image.convert("RGB")


def rotated() -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return encoded(portrait().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif), portrait()


def grey() -> tuple[bytes, Image.Image]:
    return encoded(portrait().convert("L"), "PNG"), portrait().convert("L").convert("RGB")


def cmyk() -> tuple[bytes, Image.Image]:
    return encoded(portrait().convert("CMYK"), "TIFF"), portrait().convert("CMYK").convert("RGB")


def animated() -> tuple[bytes, Image.Image]:
    later = [Image.new("RGB", portrait().size, colour) for colour in ("red", "blue")]
    return encoded(portrait(), "WEBP", save_all=True, append_images=later, lossless=True), portrait()


def with_palette() -> tuple[bytes, Image.Image]:
    first = portrait().quantize(64)
    frames = [Image.new("RGB", first.size, "red").quantize(64)]
    return encoded(first, "GIF", save_all=True, append_images=frames), first.convert("RGB")


@pytest.mark.parametrize("make", [rotated, grey, cmyk, animated, with_palette])
def test_an_odd_photo_is_read_as_its_plain_twin(client: Client, make, tmp_path: Path):
    content, twin = make()
    found = predicted(client, content, "odd.img", tmp_path)
    assert len(found["faces"]) == 1
    assert found == predicted(client, encoded(twin, "PNG"), "plain.png", tmp_path)


BROKEN = {
    "cut.jpg": lambda: PORTRAIT.read_bytes()[:20_000],
    "empty.jpg": lambda: b"",
    "notes.jpg": lambda: b"no image at all\n" * 100,
    "drawing.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pages.pdf": lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "huge.png": lambda: encoded(Image.new("1", (20_001, LARGEST_PIXELS // 20_000)), "PNG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_photo_is_told_in_one_line_and_the_page_goes_on(client: Client, name: str, tmp_path: Path):
    faults = "is no image that can be read; try|is empty, so it is no image; copy|has .* pixels, over .*: scale it down"
    with pytest.raises(AppError, match=f"{name} ({faults})") as told:
        predicted(client, BROKEN[name](), name, tmp_path)
    assert "\n" not in str(told.value)
    assert len(predicted(client, PORTRAIT.read_bytes(), "good.jpg", tmp_path)["faces"]) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2000)])
def test_a_photo_of_hardly_any_pixels_is_answered(client: Client, size: tuple[int, int], tmp_path: Path):
    found = predicted(client, encoded(Image.new("RGB", size, "grey"), "PNG"), "small.png", tmp_path)
    assert found["faces"] == []
    assert found["photo"]["predictions"].keys() == {"galaxy"}


def test_a_file_of_too_many_bytes_is_refused_in_one_line(tiny_address: str):
    reply = httpx.post(f"{tiny_address}/gradio_api/upload", files={"files": ("big.jpg", bytes(51 << 20))}, timeout=60)
    assert reply.status_code == 413
    assert "exceeded maximum allowed size" in reply.text
    assert "\n" not in reply.text.strip()

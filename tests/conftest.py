"""Things that many tests need: the tiny backbone, and adapters with random weights for every task."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# What a command prints is as wide as a test says, not as the terminal that runs the tests.
os.environ.pop("COLUMNS", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker keeps to one core, and so do the servers that it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("lora_lab", "checked.checked")

from lora_lab.adapters import Adapter, save_adapter  # noqa: E402
from lora_lab.backbones import Backbone, load_backbone  # noqa: E402
from lora_lab.cache import cache_folder  # noqa: E402
from lora_lab.cards import AdapterCard, adapter_folder, rank_folder  # noqa: E402
from lora_lab.cli import common  # noqa: E402, F401 (its console takes the width of now, where it is made with none)
from lora_lab.lab import Lab  # noqa: E402
from lora_lab.lora import LoraFactors  # noqa: E402
from lora_lab.tasks import TASKS, make_head  # noqa: E402

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
PORTRAIT = EXAMPLES / "astronaut.jpg"


def random_adapter(backbone: Backbone, task: str, rank: int, seed: int) -> Adapter:
    """An adapter that changes the backbone visibly, and a head to go with it."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for target in backbone.target_modules if rank else ():
        rows, columns = backbone.weight(target).shape
        a = torch.randn(rank, columns, generator=generator) / columns**0.5
        b = torch.randn(rows, rank, generator=generator) * 0.1
        factors[target] = LoraFactors(a, b)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make_head(TASKS[task], backbone.width)
    card = AdapterCard(
        name=task,
        task=task,
        task_version=TASKS[task].version,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        image_size=backbone.image_size,
        tuning="lora" if rank else "head_only",
        rank=rank,
        alpha=rank,
        target_modules=backbone.target_modules if rank else (),
        training={},
        seed=seed,
        images_seen=0,
        seconds=0,
        commit=None,
        data="random",
        licence="MIT",
    )
    return Adapter(card, factors, head.eval().requires_grad_(False))


def write_random_adapters(backbone: Backbone, root: Path) -> None:
    """Every task at rank 16, landmarks at rank 4 as well, and the heads alone."""
    for seed, task in enumerate(TASKS):
        for rank in (0, 16, 4) if task == "landmarks" else (0, 16):
            folder = adapter_folder(backbone.name, task, rank_folder(rank), root)
            save_adapter(random_adapter(backbone, task, rank, seed * 10 + rank), folder)


@contextmanager
def cache_apart(folder: Path) -> Iterator[None]:
    """A cache that holds the backbones of the user's cache and nothing else, so that no test sees what another keeps."""
    (folder / "backbones").symlink_to(cache_folder("backbones"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LORA_LAB_CACHE", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stands for the user's cache where one server serves many files of tests."""
    with cache_apart(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stands for the user's cache in one file of tests."""
    with cache_apart(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache in the place of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LORA_LAB_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return load_backbone("tiny")


@pytest.fixture(scope="session")
def adapters_root(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    write_random_adapters(tiny, root)
    return root


@pytest.fixture(scope="session")
def tiny_lab(adapters_root: Path) -> Lab:
    return Lab("tiny", adapters_root)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the page, served once for all tests that open it in a browser."""
    from browser import served  # pyright: ignore[reportMissingImports] (pytest finds it beside the tests of the page)

    with served() as url:
        yield url


@pytest.fixture(scope="session")
def tiny_address(adapters_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page with the tiny backbone and random adapters, and of its tools where MCP is installed."""
    from browser import served  # pyright: ignore[reportMissingImports] (pytest finds it beside the tests of the page)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LORA_LAB_CACHE", str(tmp_path_factory.mktemp("served")))
        tools = ["--mcp"] if find_spec("mcp") else []
        with served("--backbone", "tiny", "--adapters-root", str(adapters_root), *tools) as url:
            yield url

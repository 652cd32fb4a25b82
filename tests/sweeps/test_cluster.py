"""A sweep on a Ray cluster: a machine dies in the midst of it, and nothing is missing or there twice."""

import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path

import pandas as pd
import psutil
import pytest
import ray
from made import write_squares
from ray.cluster_utils import Cluster

from lora_lab.errors import LoraLabError, NotFoundError
from lora_lab.evaluation import Images
from lora_lab.lab import Lab
from lora_lab.merging import RecipeAdapter
from lora_lab.records import RecordFile
from lora_lab.sweeps import Cell, Sweep
from lora_lab.sweeps.cluster import measure_on_cluster

NAMES, WEIGHTS = ("galaxy", "land_cover"), (0.0, 0.4, 0.8, 1.2)
BEFORE = 5
# A dead machine is missed in seconds and not in half a minute; workers are as urgent as the test that waits for them.
HASTE = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3, "worker_niceness": 0}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray makes several machines of one on Linux only")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two machines with one CPU each, on this one, beside one that hands out the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        spare = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        cluster = Cluster(initialize_head=True, head_node_args={**spare, "_system_config": HASTE})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def joined(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with this process in it and a worker on each machine that has done its imports, which take seconds."""
    ray.init(cluster.address, log_to_driver=False)
    warm = ray.remote(num_cpus=1)(import_module)
    ray.get([warm.remote("lora_lab.sweeps.cluster") for _ in cluster.worker_nodes])
    yield cluster
    ray.shutdown()


@pytest.fixture
def sweep(tiny_lab: Lab, tmp_path: Path) -> Sweep:
    for name in NAMES:
        write_squares(tmp_path / "data" / name, val=96)
    return Sweep(tiny_lab, Images(tmp_path / "data", "val"), RecordFile(tmp_path / "records.parquet"), "float32")


def cells_of(sweep: Sweep) -> list[Cell]:
    """A grid of weights for the one pair, and what it is compared to."""
    pairs = [[RecipeAdapter(name=n, weight=w) for n, w in zip(NAMES, at, strict=True)] for at in product(WEIGHTS, WEIGHTS)]
    return sweep.cells([sweep.lab.recipe(pair) for pair in pairs])


def die_at_work(cluster: Cluster) -> bool:
    """Kill a machine whose worker is in the midst of a cell, if there is one; it is frozen first, so that it cannot finish."""
    for node in cluster.worker_nodes:
        for worker in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
            worker.suspend()
            if worker.cmdline()[0] == "ray::_measure":
                cluster.remove_node(node, allow_graceful=False)
                worker.kill()
                return True
            worker.resume()
    return False


def values(file: RecordFile) -> pd.DataFrame:
    frame = file.read().drop(columns="seconds").query("metric != 'merge_seconds'")
    return frame.sort_values(["recipe", "task", "metric", "label"]).reset_index(drop=True)


def test_ray_that_is_not_installed_is_told(sweep: Sweep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LoraLabError, match=r'Ray is not installed.*pip install "lora-lab\[cluster\]"'):
        next(measure_on_cluster(sweep, cells_of(sweep), None))


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1"])
def test_a_cluster_that_cannot_be_joined_is_told(address: str, sweep: Sweep):
    with pytest.raises(LoraLabError, match=f"no Ray cluster could be joined at {address}: ") as told:
        next(measure_on_cluster(sweep, cells_of(sweep), address))
    assert len(str(told.value).splitlines()) == 1


@on_linux
def test_a_cluster_is_joined_and_left(cluster: Cluster, sweep: Sweep):
    assert list(measure_on_cluster(sweep, [], cluster.address)) == []
    assert not ray.is_initialized()


@on_linux
def test_a_mistake_in_a_worker_is_told_as_it_is(joined: Cluster, sweep: Sweep):
    cells = cells_of(sweep)[:1]
    sweep.image_count(cells[0])
    sweep.images.data.rename(sweep.images.data.with_name("elsewhere"))
    with pytest.raises(LoraLabError, match=r"data is not there on .*: every machine needs") as told:
        list(sweep.run(cells, measure_on_cluster(sweep, cells, joined.address)))
    assert type(told.value) is NotFoundError
    assert len(str(told.value).splitlines()) == 1


@on_linux
def test_a_machine_dies_at_work_and_every_cell_is_there_once(joined: Cluster, sweep: Sweep, tiny_lab: Lab, tmp_path: Path):
    cells, died, steps = cells_of(sweep), 0, []
    for step in sweep.run(cells, measure_on_cluster(sweep, cells, joined.address)):
        steps.append(step)
        if not died and len(steps) >= BEFORE and die_at_work(joined):
            died = len(steps)
    assert BEFORE <= died < len(cells)
    assert sorted(step.cell.key for step in steps) == sorted(cell.key for cell in cells)
    assert ray.is_initialized()

    alone = Sweep(tiny_lab, sweep.images, RecordFile(tmp_path / "alone.parquet"), "float32")
    list(alone.run(cells))
    pd.testing.assert_frame_equal(values(sweep.file), values(alone.file))

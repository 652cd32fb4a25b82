"""Measure a sweep's cells on a Ray cluster: what is lost with a process or a machine is measured again on those that stay."""

import logging
import os
import platform
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_lab.errors import DataError, LoraLabError, NotFoundError
from lora_lab.evaluation import Images
from lora_lab.lab import Lab
from lora_lab.records import Record, RecordFile
from lora_lab.sweeps.run import Cell, Sweep

if TYPE_CHECKING:
    from ray import ObjectRef

CPUS = 1
"""What a task takes, and how many threads torch has in it, so that no more threads compute than a machine has CPUs."""

AHEAD = 2
"""Tasks that are handed out for each that can run, so that none waits for this process while it writes the file."""

PATIENCE = 10.0
"""Seconds until a cluster that does not answer is taken for none."""


@dataclass(frozen=True)
class Setup:
    """From what a worker builds the same sweep; its folders are absolute and the same on every machine."""

    backbone: str
    adapters: Path
    images: Images
    precision: str
    device: str = "cpu"


def measure_on_cluster(sweep: Sweep, cells: Sequence[Cell], address: str | None) -> Iterator[tuple[Cell, list[Record]]]:
    """Cells with their records as they are done, each once, for `Sweep.run` to write.

    `address` is "host:port" of a cluster or "auto" for the one that this machine belongs to; where it is none, Ray is
    started here with all CPUs, and stopped at the end. Where this process has joined a cluster already, that one is used
    and kept. A task that dies with its process or its machine is begun again for as long as there is one that can run it.
    Raises `LoraLabError` where Ray is missing or no cluster can be joined, and what a worker raises of these.
    """
    setup = Setup(
        sweep.lab.backbone.name,
        sweep.lab.adapters_root.resolve(),
        replace(sweep.images, data=sweep.images.data.resolve()),
        sweep.precision,
        sweep.lab.device.type,
    )
    with _joined(address):
        import ray

        # A task and no actor, since only a task may run elsewhere when its machine is gone. An error that it raises itself
        # is the user's to mend and comes back the first time.
        task = ray.remote(num_cpus=CPUS, max_retries=-1, retry_exceptions=False)(_measure)
        rest = iter(cells)
        running: dict[ObjectRef, Cell] = {}
        try:
            while True:
                for cell in islice(rest, max(0, _places() - len(running))):
                    running[task.remote(setup, cell, sweep.image_count(cell))] = cell
                if not running:
                    return
                for done in ray.wait(list(running))[0]:
                    yield running.pop(done), _result(done)
        finally:
            for left in running:
                ray.cancel(left)


@contextmanager
def _joined(address: str | None) -> Iterator[None]:
    # Ray reads this when it starts: without it, it tells its makers how it is used.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise LoraLabError('Ray is not installed, which a sweep on a cluster needs: pip install "lora-lab[cluster]"') from error
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address or "")
        # "local" and not none, for which Ray would join any cluster that it finds.
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"joined at {address}" if address else "started here"
        raise LoraLabError(f"no Ray cluster could be {where}: {why}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    # Ray tries for many minutes where nobody answers, and tells on every try.
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _places() -> int:
    # Asked each time, since machines come and go.
    import ray

    return max(1, AHEAD * int(ray.cluster_resources().get("CPU", 0)) // CPUS)


def _result(done: "ObjectRef") -> list[Record]:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, LoraLabError):
            raise error.cause from None
        raise


def _measure(setup: Setup, cell: Cell, count: int) -> list[Record]:
    """A cell's records, in a worker. Raises `DataError` where it has not the `count` images that the others have."""
    sweep = _own_sweep(setup)
    here = sweep.image_count(cell)
    if here != count:
        raise DataError(
            f"{platform.node()} has {here} {setup.images.split} images in {setup.images.data} for what {count} are measured "
            "on elsewhere: copy the same data there"
        )
    return sweep.measure(cell)


@lru_cache(maxsize=1)
def _own_sweep(setup: Setup) -> Sweep:
    # Built once in each process, which then keeps the backbone, the images, and what merges are compared to.
    torch.set_num_threads(CPUS)
    for folder in (setup.adapters, setup.images.data):
        if not folder.is_dir():
            raise NotFoundError(f"{folder} is not there on {platform.node()}: every machine needs the folder under this path")
    unwritten = RecordFile(Path(os.devnull))
    return Sweep(Lab(setup.backbone, setup.adapters, device=setup.device), setup.images, unwritten, setup.precision)

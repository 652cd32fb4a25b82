"""Everything measured anew on one GPU that is lent for minutes: packed here, run there in parts, carried back.

    python benchmarks/on_device.py pack OUT --data DATA --adapters ADAPTERS     # here: slices of at most 60 MB
    python benchmarks/on_device.py unpack HOME SLICE...                         # there
    python benchmarks/on_device.py run HOME OUT distil sweep --minutes 8        # there, again until nothing is left

A pack holds the backbone, adapters, encoded images with the frames that were found in them, and nothing else; a part of a run
goes on where the last one stopped, if HOME or OUT is still there or its files are put back. What comes back lies in OUT, in a
few files below 16 MB each.
"""

import argparse
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lora_lab.backbones import DEFAULT, dinov2_small
from lora_lab.cache import whole_file
from lora_lab.data.crops import crops_path, load_crops, stored_size, task_dataset
from lora_lab.faces import Frame
from lora_lab.photos import open_photo
from lora_lab.tasks import TASKS, Task

SLICE = 60
"""Megabytes."""
SPLITS = ("train", "val")


def sets() -> Iterator[Task]:
    """A task of each set of images, since two may share one."""
    seen: dict[tuple[str, str], Task] = {}
    for task in TASKS.values():
        seen.setdefault((task.folder, task.stored), task)
    yield from seen.values()


def pack(given: argparse.Namespace) -> list[Path]:
    """Write the slices; `most` says how many images of a split there are at most, by folder and split, such as age/train."""
    out, data, adapters, backbone, size = given.out, given.data, given.adapters, given.backbone, given.size
    most = {name: int(count) for name, _, count in (one.partition("=") for one in given.most)}
    size_of_slice = given.slice * 10**6
    out.mkdir(parents=True, exist_ok=True)
    with _Slices(out, size_of_slice) as slices, tarfile.open(fileobj=slices, mode="w|") as tar:  # type: ignore[arg-type]
        if backbone == dinov2_small.NAME:
            tar.add(dinov2_small.weights_path(), f"cache/backbones/{backbone}.safetensors")
        for folder in sorted((adapters / backbone).glob("*/*")):
            tar.add(folder, f"adapters/{backbone}/{folder.parent.name}/{folder.name}")
        for task in sets():
            for split in SPLITS:
                if (data / task.folder / f"{split}.parquet").exists():
                    _pack_split(tar, task, data, split, (size, most.get(f"{task.folder}/{split}")))
    return slices.paths


def _pack_split(tar: tarfile.TarFile, task: Task, data: Path, split: str, how: tuple[int, int | None]) -> None:
    size, most = how
    dataset = task_dataset(task, data)
    load_crops(task, dataset, split, size)  # so that the frames are there
    kept = crops_path(task, dataset.read(split), split, dataset.stored or task.stored, size)
    note = json.loads(kept.with_suffix(".json").read_text())
    table = pq.read_table(data / task.folder / f"{split}.parquet")
    if most is not None and most < len(table):
        rows = np.sort(np.random.default_rng(0).permutation(len(table))[:most])
        note = {name: some and [some[row] for row in rows] for name, some in note.items()}
        table = table.take(pa.array(rows))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=200)
    _put(tar, f"data/{task.folder}/{split}.parquet", buffer.getvalue())
    _put(tar, f"frames/{task.folder}-{split}.json", json.dumps(note).encode())


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


class _Slices(io.RawIOBase):
    """One stream of bytes, cut into files."""

    def __init__(self, folder: Path, size: int):
        self.paths: list[Path] = []
        self._folder, self._size, self._left, self._file = folder, size, 0, io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            if not self._left:
                self._file.close()
                self.paths.append(self._folder / f"slice{len(self.paths)}")
                self._file, self._left = self.paths[-1].open("wb"), self._size  # type: ignore[assignment]
            self._file.write(rest[: self._left])
            taken = min(len(rest), self._left)
            rest, self._left = rest[taken:], self._left - taken
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def unpack(home: Path, slices: Sequence[Path], size: int) -> None:
    """Put a pack together, and cut its images by the frames that came along, with all cores."""
    home.mkdir(parents=True, exist_ok=True)
    whole = home / "pack.tar"
    with whole.open("wb") as file:
        for path in slices:
            file.write(path.read_bytes())
    with tarfile.open(whole) as tar:
        tar.extractall(home, filter="data")
    whole.unlink()
    for task in sets():
        for split in SPLITS:
            if (home / "data" / task.folder / f"{split}.parquet").exists():
                cut(home, task, split, size)


def cut(home: Path, task: Task, split: str, size: int) -> None:
    """Fill the cache with the crops of a split, from its frames."""
    note = json.loads((home / "frames" / f"{task.folder}-{split}.json").read_text())
    dataset = task_dataset(task, home / "data")
    table = dataset.read(split)
    kept = crops_path(task, table, split, dataset.stored or task.stored, size)
    stored = stored_size(size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without holding Python's lock
        pixels = np.stack(list(pool.map(partial(_crop, size, stored), table.images[:], note["frames"])))
    with whole_file(kept.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, pixels)
    kept.with_suffix(".json").write_text(json.dumps(note))


def _crop(size: int, stored: int, data: bytes, frame: Sequence[float]) -> np.ndarray:
    photo: Image.Image = open_photo(data)
    return np.asarray(Frame(*frame).crop(photo, stored, margin=stored / size))


def run(home: Path, out: Path, jobs: Sequence[str], minutes: float, options: argparse.Namespace) -> None:
    """Run jobs one after another until the time is up; each writes what it has as it goes."""
    from device_jobs import JOBS, Place

    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    for name in jobs:
        JOBS[name](Place(home, out, options.backbone, options.device), end, options)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=DEFAULT)
    parser.add_argument("--size", type=int, default=112, help="The backbone's input in pixels.")
    steps = parser.add_subparsers(dest="step", required=True)
    packing = steps.add_parser("pack")
    packing.add_argument("out", type=Path)
    packing.add_argument("--data", type=Path, required=True)
    packing.add_argument("--adapters", type=Path, required=True)
    packing.add_argument("--slice", type=int, default=SLICE, help="Megabytes of a slice.")
    packing.add_argument("--most", action="append", default=[], help="Such as age/train=4000; repeatable.")
    unpacking = steps.add_parser("unpack")
    unpacking.add_argument("home", type=Path)
    unpacking.add_argument("slices", type=Path, nargs="+")
    running = steps.add_parser("run")
    running.add_argument("home", type=Path)
    running.add_argument("out", type=Path)
    running.add_argument("jobs", nargs="+")
    running.add_argument("--minutes", type=float, default=8.0)
    running.add_argument("--device", default="auto")
    running.add_argument("--images", type=int, default=500, help="Images a task of val that a sweep measures on.")
    running.add_argument("--methods", default="exact,uniform", help="Methods that a sweep measures every set by.")
    running.add_argument(
        "--views", type=int, default=60_000, help="Random views of each set of images that distil learns from."
    )
    running.add_argument("--batch", type=int, default=64, help="Images of each set of faces in a step of distil.")
    running.add_argument("--rate", type=float, default=4e-4, help="The highest learning rate of distil.")
    running.add_argument("--points", type=float, default=4.0, help="What points count in distil.")
    running.add_argument("--share", type=float, default=1.0, help="The share of the time that distil may take.")
    running.add_argument("--scale", type=float, default=1.0, help="Times the images that train takes unasked.")
    given = parser.parse_args(arguments)
    if given.step == "pack":
        for path in pack(given):
            sys.stderr.write(f"{path} {path.stat().st_size / 1e6:.1f} MB\n")
        return
    os.environ["LORA_LAB_CACHE"] = str(given.home.resolve() / "cache")
    if given.step == "unpack":
        unpack(given.home, given.slices, given.size)
    else:
        run(given.home, given.out, given.jobs, given.minutes, given)


if __name__ == "__main__":
    main()

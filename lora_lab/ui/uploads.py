"""Where the photos lie that people send, so that none of them outlives what the page promises.

Gradio by itself deletes the files that it remembers. Not among them are those of an upload that broke off, of a photo that came
as text over MCP, and all that a server leaves which was killed.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from filelock import FileLock, Timeout
from gradio.utils import get_upload_folder

from lora_lab.cache import cache_folder
from lora_lab.errors import DataError
from lora_lab.ui.words import _


@contextmanager
def own_folder() -> Iterator[Path]:
    """The folder for all that is sent to this process, gone when it ends; those of processes that were killed go now."""
    root = cache_folder("uploads")
    with FileLock(root / "lock"):
        for folder in (path for path in root.iterdir() if path.is_dir()):
            _remove_if_left(folder)
        own = tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True)
        alive = FileLock(f"{own.name}.lock")
        alive.acquire()
    os.environ["GRADIO_TEMP_DIR"] = own.name
    gr.mcp.DEFAULT_TEMP_DIR = own.name  # read from the environment only once, when gradio was imported
    try:
        with own:
            yield Path(own.name)
    finally:
        alive.release()
        Path(alive.lock_file).unlink(missing_ok=True)


def _remove_if_left(folder: Path) -> None:
    # Whoever still serves from a folder holds its lock.
    lock = FileLock(f"{folder}.lock")
    with suppress(Timeout), lock.acquire(timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def swept(page: gr.Blocks, folder: Path, every: float) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server of a page: what is older than `every` seconds is deleted, and looked for as often."""

    async def sweep_often() -> None:
        while True:
            await asyncio.sleep(every)
            keep = {path for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}
            await asyncio.to_thread(sweep, folder, every, keep)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep_often())
        try:
            yield
        finally:
            sweeping.cancel()

    return lifespan


def sent(path: str) -> Path:
    """A file that was sent to this server; gradio looks at it too, and whoever calls a function by hand may name any path.

    Raises `DataError`.
    """
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()) or not place.is_file():
        raise DataError(_("that file was not sent to this server, or is gone: send it again"))
    return place


def sweep(folder: Path, age: float, keep: Collection[str] = ()) -> None:
    """Delete the files in a folder, at any depth, that nobody has written for `age` seconds, but for those to keep."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and str(path) not in keep and time.time() - path.stat().st_ctime > age:
                path.unlink()

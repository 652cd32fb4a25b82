"""Parts that panels share."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder

from lora_lab.cache import written
from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.photos import read_safely
from lora_lab.tables import write_csv
from lora_lab.ui.boundary import line_of, shown_error

if TYPE_CHECKING:
    import pandas as pd


SHOWN = frozenset({"AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP"})
"""What browsers show, by Pillow's names."""
MERGE_TAB = "merge"
"""The id of the tab *Merge*, whatever it is called in the language of the page."""


@contextmanager
def shown() -> Iterator[None]:
    """Turns whatever goes wrong into one line on the page: what the user can mend, or that the fault is ours."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        # The frame below this one is that of the function which asks.
        inside = error.__traceback__.tb_next if error.__traceback__ else None
        raise shown_error(error, inside.tb_frame.f_code.co_name if inside else __name__) from error


def photo_input(**options: Any) -> gr.Image:
    """An image input that hands over the path of the file as it was sent.

    By itself gradio opens the file first, and answers a broken one with a message that says nothing. Its preprocess is
    replaced on the one component, since a subclass would have gradio write a stub file into this folder.
    """
    image = gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard", "webcam"], **options)
    opened = image.preprocess

    def as_sent(payload: ImageData | None) -> Any:
        return payload.path if payload is not None and payload.path else opened(payload)

    image.preprocess = as_sent
    return image


def on_photo(image: gr.Image, lab: Lab) -> Any:
    """The event that a photo is there and seen, or gone: what belongs to a photo follows it.

    A file that cannot be read is taken away again, with one line that says why; one whose format browsers do not show is
    shown as a PNG of the same pixels.
    """

    def seen(path: str | None) -> Any:
        if path is None:
            return gr.skip()
        try:
            found = lab.photo(Path(path))
        except LoraLabError as error:
            gr.Warning(line_of(str(error)))
            return None
        if read_safely(Path(path), lambda opened: opened.format) in SHOWN:
            return gr.skip()
        copy = fresh_folder() / f"{Path(path).stem}.png"
        with written(copy):
            found.image.save(copy, compress_level=1)
        return str(copy)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 2}
    return image.change(seen, image, image, **quiet)


def as_csv(frame: "pd.DataFrame", name: str) -> str:
    """The path of a CSV file of a table, for a download; the same name takes the place of the one before.

    Raises `LoraLabError` where it cannot be written.
    """
    path = Path(_downloads().name) / f"{name}.csv"
    write_csv(frame, path)
    return str(path)


def fresh_folder() -> Path:
    """A new folder for a file that is handed out, which goes when the photos that were sent go."""
    root = Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=root))


@cache
def _downloads() -> tempfile.TemporaryDirectory:
    # Goes with the process.
    return tempfile.TemporaryDirectory(prefix="lora-lab-")

"""Work that a person may stop: who asked for it, by session."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from lora_lab.errors import LoraLabError
from lora_lab.ui.words import _

STOPPED = _("Stopped, as you asked; nothing was changed or kept.")


class StoppedError(LoraLabError):
    """The person who waited for it has pressed Cancel."""


class Running:
    """What runs for each session, so that it can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: dict[str, list[threading.Event]] = {}

    @contextmanager
    def work(self, request: gr.Request, progress: Callable[..., object]) -> Iterator[Callable[[float, str], None]]:
        """While a session's work lasts: gives what tells its progress, and raises `StoppedError` once a stop was asked for."""
        session, stop = request.session_hash or "", threading.Event()
        with self._lock:
            self._stops.setdefault(session, []).append(stop)

        def tell(share: float, what: str) -> None:
            if stop.is_set():
                raise StoppedError(_("cancelled"))
            progress(share, desc=what)

        try:
            yield tell
        finally:
            with self._lock:
                self._stops[session].remove(stop)
                if not self._stops[session]:
                    del self._stops[session]

    def stop(self, request: gr.Request) -> None:
        """Ask all that runs for a session to end."""
        with self._lock:
            for stop in self._stops.get(request.session_hash or "", ()):
                stop.set()

"""The page in headless Chromium, for tests and for the README's picture."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
COMMAND = [sys.executable, "-c", "from lora_lab.cli import main; main()"]


@contextmanager
def served(*options: str, command: Sequence[str] = COMMAND) -> Iterator[str]:
    """The app on a free port, with the adapters that come with LoRA Lab where no option names others; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*command, "app", "--port", str(port), *options], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """A fresh browser on the page, once its sliders are there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1360, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(url)
        page.wait_for_selector("#weight-landmarks input[type=number]")
        yield page
        browser.close()


def upload(page: Page, photo: Path) -> dict:
    """Choose a file as the photo in the place of the one that is there; gives all answers."""
    page.wait_for_selector("[data-photo]")
    before = page.get_attribute("[data-photo]", "data-photo")
    page.set_input_files("#photo input[type=file]", str(photo))
    page.wait_for_function("(key) => document.querySelector('[data-photo]')?.dataset.photo !== key", arg=before)
    page.wait_for_selector(".ll-part")
    return shown(page)


def shown(page: Page) -> dict:
    """All answers on the page, in full."""
    text = page.text_content(".ll-json")
    assert text is not None
    return json.loads(text)


def move(page: Page, name: str, weight: float, adapter: str = "") -> dict:
    """Type a weight into a slider's box, and wait until the answers are of that weight; no button is pressed.

    `adapter` is the one whose slider it is, where that is not its name.
    """
    move_only(page, name, weight)
    page.wait_for_function(
        """([name, weight]) => {
            const found = document.querySelector(".ll-json");
            const adapters = found ? JSON.parse(found.textContent).recipe.adapters : [];
            return adapters.some(a => a.name === name && Math.abs(a.weight - weight) < 1e-9);
        }""",
        arg=[adapter or name, weight],
    )
    return shown(page)


def move_only(page: Page, name: str, weight: float) -> None:
    """Type a weight into a slider's box."""
    box = page.locator(f"#weight-{name} input[type=number]")
    box.fill(str(weight))
    box.press("Tab")

"""Which state of the code made a figure."""

import subprocess
from functools import cache

from lora_lab.bundled import checkout


@cache
def commit() -> str | None:
    """The commit that is checked out, with a + where files differ from it; none outside a checkout."""
    if not (folder := checkout()):
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None

"""What is freed goes back to the system at once where a program has asked for it."""

import ctypes
import subprocess
import sys

import pytest

HOLES = """
import sys
from pathlib import Path
import numpy as np
from lora_lab.memory import give_back, keep_low
if sys.argv[1] == "low":
    keep_low()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
np.ones(3 << 20, np.uint8)  # which teaches glibc to take blocks of this size from its own heap
before = resident()
blocks = [np.ones(2 << 20, np.uint8) for _ in range(200)]
kept = blocks[::2]
del blocks
print(resident() - before)
give_back()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_holes_between_what_is_kept_go_back():
    taken = {
        how: float(subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True).stdout)
        for how in ("low", "as it is")
    }
    # 100 blocks of 2 MiB are kept.
    assert taken["low"] == pytest.approx(210, abs=20)
    assert taken["as it is"] > 300

"""One way to run a fuzz test: some seconds with the rest of the tests, or as long as LORA_LAB_FUZZ_SECONDS says.

Each test gets that many seconds. How many inputs it tried is printed (`pytest -s`), and added as a line to the file that
LORA_LAB_FUZZ_LOG names, if it names one.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

SECONDS = 3.0
BATCH = 200
MOST = 1000


def fuzz(name: str, inputs: SearchStrategy, check: Callable[..., None], seconds: float = SECONDS) -> int:
    """Call `check` with inputs until the time is over; gives how many there were. What fails is shrunk and raised.

    Without the variable the inputs of a run are the same each time, as far as the time lets them come.
    """
    asked = os.environ.get("LORA_LAB_FUZZ_SECONDS")
    deadline, count, failed = math.inf, 0, False

    def once(one) -> None:
        nonlocal deadline, count, failed
        if not count:
            # The first input may take seconds to draw, since tables are made for it.
            deadline = time.monotonic() + float(asked or seconds)
        # A failure that was found is made smaller even after the time.
        if time.monotonic() > deadline and not failed:
            return
        count += 1
        try:
            check(one)
        except BaseException:
            failed = True
            raise

    quick = settings(
        max_examples=BATCH if asked else MOST,
        deadline=None,
        database=None,
        derandomize=asked is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
    )

    while True:
        quick(given(inputs)(once))()
        if asked is None or time.monotonic() > deadline:
            break
    line = f"{name}: {count} inputs in {float(asked or seconds):.0f} s"
    sys.stdout.write(line + "\n")
    log = os.environ.get("LORA_LAB_FUZZ_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return count

"""The way the threads of a step wait for each other, and how many read files."""

import math
import os

from csvi.machine import usable_cores

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Environment variables that say how threads wait; if the user has set one of them, csvi changes none."""
SPIN = "10000"

_limit: int | None = None


def let_threads_sleep() -> None:
    """Let the threads of OpenMP spin only for a moment when they wait for each other; call it before torch is loaded.

    By default GNU's library lets them spin for milliseconds, in which no other process gets the core: beside other work
    a step then takes many times as long (docs/performance.md). Results do not depend on it.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN


def reading_threads() -> int:
    """Number of threads that read files at once: one a usable core, unless `limit_reading_threads` has set another."""
    return math.ceil(usable_cores()) if _limit is None else _limit


def limit_reading_threads(count: int) -> None:
    """Let this process read files in so many threads, as one of several on this machine."""
    global _limit
    _limit = count

"""Stopping with nothing lost: signals, a time limit, and the agreement of all processes about it."""

import contextlib
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from csvi.errors import CsviError
from csvi.signals import ENDING, handled

log = logging.getLogger(__name__)

MARGIN = 1.5
"""Times the longest so far: other work on the machine, and the end of the process."""

ONE_SIGNAL = 1.0
"""Seconds within which two SIGTERMs are one: `timeout` and SLURM send it to the process and to its group."""


def seconds(text: str) -> float:
    """Parse a duration such as 90s, 30m, 2h or 1h30m.

    Raises:
        CsviError: it is no duration.
    """
    parts = re.findall(r"([0-9]+)([hms])", text)
    total = sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if not total or not re.fullmatch(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?", text):
        raise CsviError(f"{text!r} is no duration: write it as 90s, 30m, 2h or 1h30m")
    return total


class TimeLimit:
    """Tells whether what comes next still fits, if it takes as long as the longest of its kind so far.

    Args:
        until: of `time.monotonic()`; infinite for no limit.
        validation: how long one may take, in steps, before there has been any.
    """

    def __init__(self, until: float = math.inf, validation: float = 0.0):
        self.until, self.validation = until, validation
        self.longest: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Measure the time of a `step`, of `saving` or of a `validation`."""
        start = time.monotonic()
        yield
        self.took(work, time.monotonic() - start)

    def took(self, work: str, duration: float) -> None:
        """Remember the longest, in seconds."""
        self.longest[work] = max(duration, self.longest.get(work, 0.0))

    def fits(self, *works: str) -> bool:
        """Whether there is time for all of these."""
        guess = {"validation": self.validation * self.longest.get("step", 0.0)}
        needed = sum(self.longest.get(work, guess.get(work, 0.0)) for work in works)
        return time.monotonic() + MARGIN * needed < self.until


@dataclass
class Stop:
    """Whether a signal has asked the run to stop; plain, as a signal handler may interrupt another."""

    requested: bool = False
    terminated: float = math.inf
    """`time.monotonic()` of the first SIGTERM."""


@contextlib.contextmanager
def stop_signal() -> Iterator[Stop]:
    """Let SIGINT and the signals of `ENDING` request a stop; a second SIGINT or SIGTERM ends at once."""
    stop = Stop()
    text = "stopping when this step, or this validation, is over (press again to stop at once)"
    saying = threading.Thread(target=log.warning, args=(text,))  # the main one may be in the middle of writing

    def request(number: int, frame: object) -> None:
        now = time.monotonic()
        if number == signal.SIGTERM and now > stop.terminated + ONE_SIGNAL:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        elif number == signal.SIGTERM:
            stop.terminated = min(now, stop.terminated)
        if not stop.requested:
            stop.requested = True
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            saying.start()

    with handled(request, signal.SIGINT, *ENDING) as before:
        yield stop
    if stop.requested:
        saying.join()


def any_process(fabric: Fabric, condition: bool | Tensor) -> bool:
    """Whether a condition holds in any of the processes, so that all leave the loop at the same step."""
    if fabric.world_size == 1:
        return bool(condition)
    return bool(fabric.all_reduce(torch.tensor(float(condition), device=fabric.device), reduce_op="max"))


def works_ahead(left: int, at_once: int, validates: bool, save_first: bool) -> list[str]:
    """List what there must be time for before the run can next be stopped.

    There are `left` steps of the epoch, and an occasion to stop after every `at_once`. A validation saves before it.
    """
    steps = min(left, at_once)
    last = ["saving", "validation"] if validates and steps == left else []
    return [*(["saving"] if save_first else []), *(["step"] * steps), *last, "saving"]

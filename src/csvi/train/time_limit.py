"""Stopping before a cluster's time limit does it."""

import contextlib
import math
import re
import time
from collections.abc import Iterator

from csvi.errors import CsviError

MARGIN = 1.5
"""Times the longest so far: other work on the machine, and the end of the process."""


def seconds(text: str) -> float:
    """Of a duration such as 90s, 30m, 2h or 1h30m.

    Raises:
        CsviError: it is none.
    """
    parts = re.findall(r"([0-9]+)([hms])", text)
    total = sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if not total or not re.fullmatch(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?", text):
        raise CsviError(f"{text!r} is no duration: write it as 90s, 30m, 2h or 1h30m")
    return total


class TimeLimit:
    """Whether what comes next still fits, if it takes as long as the longest of its kind so far.

    Args:
        until: of `time.monotonic()`; infinite for no limit.
        validation: how long one may take, in steps, before there has been any.
    """

    def __init__(self, until: float = math.inf, validation: float = 0.0):
        self.until, self.validation = until, validation
        self.longest: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Take the time of `step`, `saving` or `validation`."""
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

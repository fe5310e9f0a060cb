"""Steps that become several times slower than they were: most often other work on the machine."""

import logging
from collections import deque
from statistics import median

log = logging.getLogger(__name__)

STEPS = 10
"""Steps that are looked at together."""
SLOWER = 3.0
"""Factor from which slower steps are reported."""


class Pace:
    """Compares the last steps with the first ones, and says once what helps when they are much slower."""

    def __init__(self) -> None:
        self.last: deque[float] = deque(maxlen=STEPS)
        self.first: float | None = None
        self.said = False

    def took(self, seconds: float) -> None:
        """Note how long a step took."""
        self.last.append(seconds)
        if len(self.last) < STEPS or self.said:
            return
        now = median(self.last)
        if self.first is None:
            self.first = now
            self.last.clear()
        elif now > SLOWER * self.first:
            self.said = True
            log.warning(
                "a step takes %.2f s, and took %.2f s at first: if other work shares this machine, fewer threads help "
                "(OMP_NUM_THREADS=1), or threads that wait asleep (GOMP_SPINCOUNT=1000; docs/performance.md)",
                now, self.first,
            )  # fmt: skip

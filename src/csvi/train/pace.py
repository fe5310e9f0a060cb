"""Steps that become several times slower than they were, or wait for images, and what helps."""

import logging
from collections import deque
from statistics import median

log = logging.getLogger(__name__)

STEPS = 10
"""Steps that are looked at together."""
SLOWER = 3.0
"""Factor from which slower steps are reported."""
WAITS = 50
"""Steps whose waiting for images is looked at together."""
WAITING = 0.25
"""Share of the time from which waiting is reported."""


class Pace:
    """Says once what helps when the last steps are much slower than the first ones, and when steps wait for images.

    Args:
        workers: loader processes.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers
        self.waits: deque[tuple[float, float]] = deque(maxlen=WAITS)
        self.last: deque[float] = deque(maxlen=STEPS)
        self.first: float | None = None
        self.said = self.said_waiting = False

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

    def waited(self, waited: float, seconds: float) -> None:
        """Note how long a step waited for its images, of the time that it took."""
        self.waits.append((waited, seconds))
        if len(self.waits) < WAITS or self.said_waiting:
            return
        share = sum(waited for waited, _ in self.waits) / sum(seconds for _, seconds in self.waits)
        if share > WAITING:
            self.said_waiting = True
            log.warning(
                "steps wait for images %.0f %% of their time: more loader processes help (--data.workers, now %d), "
                "or a faster disk for --data.cache", 100 * share, self.workers,
            )  # fmt: skip

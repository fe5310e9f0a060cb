"""Each metric as it is defined, for one query.

`csvi.evaluate.metrics` finds the `Ranking` of every query without sorting a gallery, and then calls these same
functions, compiled by numba, so that they are written with numbers and loops alone. To add a metric, write a function
of a `Ranking` and give it a line in `METRICS`: results, their intervals and comparisons of runs then have it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Ranking(NamedTuple):
    """The places of the matches of one query among the gallery images that it sees, the nearest first."""

    positions: Sequence[int]
    """Position of each match among the images, from 1, ascending. A metric is asked only where there is one."""
    first: int
    """Rank of the first match, from 1: among the images or, where the rules say so, among the identities."""
    seen: int
    """Gallery images that the query sees."""


Metric = Callable[[Ranking], float]
"""Value of one query from 0 to 1, of which the mean over the queries is reported."""


def ranking_of(
    query: int, distance: Sequence[float], identity: Sequence[int], unique_identities: bool = False
) -> Ranking:
    """Rank the gallery images that a query sees; a match that ties with a wrong image stands behind it.

    Args:
        query: identity of the query.
        distance: of each gallery image, smaller is nearer.
        identity: of each gallery image.
        unique_identities: count the rank of the first match over identities, each where it occurs first.

    Persons 5, 5, 7, 4 and 7 in this order: images 3 and 5 are right, and of the identities 5, 7, 4 the second.

    >>> ranking_of(7, [0.1, 0.2, 0.3, 0.4, 0.5], [5, 5, 7, 4, 7], unique_identities=True)
    Ranking(positions=[3, 5], first=2, seen=5)
    >>> ranking_of(7, [0.1, 0.1, 0.2], [7, 5, 7])
    Ranking(positions=[2, 3], first=2, seen=3)
    """
    order = sorted(range(len(distance)), key=lambda i: (distance[i], identity[i] == query))
    ranked = [identity[i] for i in order]
    positions = [position for position, person in enumerate(ranked, start=1) if person == query]
    listed = list(dict.fromkeys(ranked)) if unique_identities else ranked
    return Ranking(positions, listed.index(query) + 1 if positions else 0, len(ranked))


def rank_k(k: int) -> Metric:
    """Rank-k, R-k: 1 if the first match has rank k or better, else 0. The means for k = 1, 2, … are the CMC curve.

    >>> [rank_k(k)(Ranking([3, 5], first=2, seen=5)) for k in (1, 2, 3)]
    [0.0, 1.0, 1.0]
    """

    def found(ranking: Ranking) -> float:
        return 1.0 if ranking.first <= k else 0.0

    return found


def average_precision(ranking: Ranking) -> float:
    """AP: mean over the matches of the precision at their positions, the share of matches among the images so far.

    The first match at position 3, the second at 5: (1/3 + 2/5) / 2.

    >>> round(average_precision(Ranking([3, 5], first=2, seen=5)), 4)
    0.3667
    """
    total = 0.0
    for n in range(len(ranking.positions)):
        total += (n + 1) / ranking.positions[n] / len(ranking.positions)
    return total


def inverse_negative_penalty(ranking: Ranking) -> float:
    """INP: share of matches among the images down to the last match (Ye et al., TPAMI 2021).

    Two matches, the last at position 5: 2/5.

    >>> inverse_negative_penalty(Ranking([3, 5], first=2, seen=5))
    0.4
    """
    return len(ranking.positions) / ranking.positions[-1]


def chance(ranking: Ranking) -> float:
    """R1 expected of a random order: share of matches among all images that the query sees.

    >>> chance(Ranking([3, 5], first=2, seen=5))
    0.4
    """
    return len(ranking.positions) / ranking.seen


METRICS: dict[str, Metric] = {
    "R1": rank_k(1),
    "R10": rank_k(10),
    "R20": rank_k(20),
    "mAP": average_precision,
    "mINP": inverse_negative_penalty,
}
"""Name of a metric → its function of one query; every one is computed for every result."""

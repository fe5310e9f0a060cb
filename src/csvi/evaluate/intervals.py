"""Intervals of metrics, by bootstrap over the identities that were asked for.

Queries of one person are alike, so that people, not queries, are what could have been others: a resample draws as many
identities as there are, with replacement, each with all of its queries.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

SAMPLES = 2000
"""Resamples; with another seed the ends of a 95 % interval move by about a fiftieth of its length."""
COVERAGE = 0.95


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation of a sample (n - 1), which is 0 for a single value."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def bootstrap(
    sums: NDArray[np.float64], queries: NDArray[np.number], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile interval of the mean over queries: low and high, (metrics,) each.

    Args:
        sums: (identities, metrics), each metric summed over the queries of each identity.
        queries: (identities,) number of those queries, or their weight; identities without any are left out.
        seed: of the resamples.
    """
    asked = queries > 0
    sums, queries = sums[asked], queries[asked]
    means = np.concatenate([w @ sums / (w @ queries)[:, None] for w in _weights(len(queries), seed)])
    return _interval(means)


def paired_difference(
    sums: tuple[NDArray[np.float64], NDArray[np.float64]],
    queries: tuple[NDArray[np.number], NDArray[np.number]],
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Second minus first mean of the same identities, and its 95 % interval: three arrays (metrics,).

    Both are resampled together, so that identities which are hard for both cancel. Arguments are pairs of those of
    `bootstrap`, in one order of identities; identities that lack queries in either are left out.
    """
    asked = (queries[0] > 0) & (queries[1] > 0)
    (a, b), (n, m) = (both[asked] for both in sums), (both[asked] for both in queries)
    difference = b.sum(0) / m.sum() - a.sum(0) / n.sum()
    resampled = [w @ b / (w @ m)[:, None] - w @ a / (w @ n)[:, None] for w in _weights(len(n), seed)]
    return difference, *_interval(np.concatenate(resampled))


def _weights(identities: int, seed: int, rows: int = 250) -> Iterator[NDArray[np.int64]]:
    """Draw how often each identity is in each resample, some resamples at a time: (rows, identities)."""
    rng = np.random.default_rng(seed)
    for _ in range(SAMPLES // rows):
        yield rng.multinomial(identities, np.full(identities, 1 / identities), size=rows)


def _interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    return low, high

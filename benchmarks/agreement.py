"""Whether one benchmark ranks methods as another does: rank correlations, with intervals by bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from csvi.errors import CsviError
from csvi.evaluate.intervals import COVERAGE, SAMPLES
from csvi.runs.evaluation import Evaluation
from csvi.runs.statistics import check_same_data

FEWEST_METHODS = 3
"""Methods below which there is no order to speak of."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation from -1 to 1."""

    value: float
    low: float
    high: float
    """95 % interval, by bootstrap over the identities of the queries and the seeds of training."""


@dataclass(frozen=True)
class Agreement:
    """How the order of methods on one benchmark agrees with that of published figures on another."""

    protocol: str
    metric: str
    methods: list[str]
    ours: list[float]
    """Mean over the seeds, of each method; a fraction."""
    published: list[float]
    tau: Correlation
    """Kendall's tau-b."""
    rho: Correlation
    """Spearman's rho."""


def agreement(
    runs: Mapping[str, Sequence[Evaluation]],
    published: Mapping[str, float],
    metric: str,
    protocol: str,
    seed: int = 0,
) -> Agreement:
    """Compare the order of methods by a metric with that of published figures.

    A resample draws identities, the same for all methods, and for each method as many of its seeds, both with
    replacement. Published figures are taken as they are, as nobody has published their spread.

    Args:
        runs: method → its evaluations with several seeds, all on the same test data.
        published: method → figure of another benchmark; of these, methods without runs are left out.
        metric: name, such as `R1`.
        protocol: name, such as `all-search single-shot`.
        seed: of the resamples.

    Raises:
        CsviError: fewer than three methods are in both, or evaluations are of different data.
    """
    methods = [method for method in runs if method in published]
    if len(methods) < FEWEST_METHODS:
        raise CsviError(f"{len(methods)} methods have both runs and a published {metric}: three make the first order")
    check_same_data([evaluation for method in methods for evaluation in runs[method]], protocol)
    of_runs = [[e.result(protocol).by_identity for e in runs[method]] for method in methods]
    sums = [np.array([run.sums[metric] for run in of_method]) for of_method in of_runs]  # (seeds, identities) each
    queries = np.array(of_runs[0][0].queries)
    theirs = np.array([published[method] for method in methods])
    ours = np.array([of_method.mean(0).sum() / queries.sum() for of_method in sums])
    rng = np.random.default_rng(seed)
    resampled = np.array([_correlations(_resampled(sums, queries, rng), theirs) for _ in range(SAMPLES)])
    low, high = np.nanquantile(resampled, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    tau, rho = (
        Correlation(float(value), float(least), float(most))
        for value, least, most in zip(_correlations(ours, theirs), low, high, strict=True)
    )
    return Agreement(protocol, metric, methods, ours.tolist(), theirs.tolist(), tau, rho)


def _resampled(
    sums: Sequence[NDArray[np.float64]], queries: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Compute the metric of each method with other identities and other seeds: (methods,)."""
    identities = len(queries)
    weight = rng.multinomial(identities, np.full(identities, 1 / identities))
    total = weight @ queries
    return np.array([(of[rng.integers(len(of), size=len(of))] @ weight).mean() / total for of in sums])


def _correlations(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float]:
    """Compute Kendall's tau-b and Spearman's rho."""
    return kendalltau(ours, theirs).statistic, spearmanr(ours, theirs).statistic

"""Evaluated runs together: means over repetitions, paired differences, and whether they were asked the same."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csvi.errors import CsviError
from csvi.evaluate.intervals import mean_and_std, paired_difference
from csvi.runs.evaluation import Evaluation

FEWEST = 10
"""Identities below which no difference is called certain: resampling so few does not tell what others would give."""
NAMES = ("benchmark", "layout", "synthetic")
"""Attributes of an evaluation that name its data; they decide where nothing is known of the images themselves."""


@dataclass(frozen=True)
class Mean:
    """A metric over several runs; fractions from 0 to 1."""

    mean: float
    std: float
    """Standard deviation of a sample (n - 1)."""
    runs: list[float]


@dataclass(frozen=True)
class Summary:
    """Several models of the same settings: RegDB's ten, or several seeds."""

    models: list[str]
    folds: list[int]
    """Fold of the dataset that each of them was tested on, which is the one that it was trained on."""
    metrics: dict[str, dict[str, Mean]]
    """Protocol → metric → its mean over the runs."""


@dataclass(frozen=True)
class Difference:
    """One metric of two models, or groups of models; fractions from 0 to 1."""

    first: float
    other: float
    difference: float
    """Other minus first."""
    low: float
    high: float
    """95 % interval of the difference, by bootstrap over the identities of the queries, the same for both. What other
    seeds of the training would give is not in it."""
    identities: int
    """Resampled, each once for every fold that it is asked for in."""

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0, and is of enough identities to be one."""
        return self.identities >= FEWEST and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ComparedRun:
    """One run, or group of runs, of a comparison."""

    name: str
    metrics: dict[str, float]
    refinements: list[str]
    """Refinements of this run's ranking; see `Result.refinements`."""
    differences: dict[str, Difference]
    """Metric → its difference to the first run; empty for the first."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side under one protocol."""

    benchmark: str
    synthetic: bool
    protocol: str
    gallery: str
    identities: int
    """Identities asked for."""
    rows: list[ComparedRun]
    unlike: list[str]
    """Settings in which they differ, see `unlike_settings`."""
    unfinished: dict[str, str]
    """Model → how much of its training was done, of those whose training had not ended."""


def summarize(evaluations: Sequence[Evaluation]) -> Summary:
    """Average over runs of the same settings (`differing_settings`).

    Raises:
        CsviError: they were tested on different data or under different protocols, or one is there twice.
    """
    first = evaluations[0]
    _check_each_once(evaluations)
    try:
        check_same_data(evaluations, first.protocols[0].protocol, NAMES)
    except CsviError as error:
        raise CsviError(f"a mean over these runs would mean nothing: {error}") from error

    def asked(evaluation: Evaluation) -> list[object]:
        return [(result.protocol, result.gallery, result.refinements) for result in evaluation.protocols]

    if any(asked(evaluation) != asked(first) for evaluation in evaluations):
        raise CsviError("a mean over these runs would mean nothing: they were tested under different protocols")
    metrics = {
        result.protocol: {
            name: mean_of([e.result(result.protocol).metrics[name].mean for e in evaluations])
            for name in result.metrics
        }
        for result in first.protocols
    }
    return Summary([e.model for e in evaluations], [e.fold for e in evaluations], metrics)


def mean_of(values: Sequence[float]) -> Mean:
    """Average one metric over runs."""
    return Mean(*mean_and_std(values), list(values))


def differing_settings(evaluations: Iterable[Evaluation]) -> list[str]:
    """Names of the settings in which runs differ, beside those in which repetitions of a run may differ.

    Evaluations whose settings are not known have no part in it.
    """
    known = [evaluation.settings for evaluation in evaluations if evaluation.settings]
    names = dict.fromkeys(name for settings in known for name in settings)
    return [name for name in names if len({str(settings.get(name)) for settings in known}) > 1]  # without is as None


def unlike_settings(evaluations: Iterable[Evaluation]) -> list[str]:
    """Names of the settings in which compared runs differ beside the method's name, so that it is not all they show.

    Of different methods those settings count that all have, and `method.weights`: without it, a method begins with
    none. Evaluations whose settings are not known have no part in it.
    """
    known = [{"method.weights": "none", **e.settings} for e in evaluations if e.settings]
    return [
        name
        for name in dict.fromkeys(name for settings in known for name in settings)
        if name != "method.name"
        and len({settings.get(name) for settings in known}) > 1
        and (not name.startswith("method.") or all(name in settings for settings in known))
    ]


def compare_groups(
    groups: Sequence[Sequence[Evaluation]], names: Sequence[str], protocol: str | None = None
) -> Comparison:
    """Compare groups of runs (seeds, folds, or one run each) with the first: how each one's mean differs from its mean.

    Raises:
        CsviError: as `difference_of_groups` does; it names the groups. Or the runs of a group are not of the same
            settings.
    """
    for group in groups:
        _check_repetitions(group)
    first = groups[0][0]
    reference = first.result(protocol)
    rows: list[ComparedRun] = []
    for name, group in zip(names, groups, strict=True):
        try:
            found = difference_of_groups(groups[0], group, reference.protocol)
        except CsviError as error:
            raise CsviError(f"{names[0]} and {name} cannot be compared: {error}") from error
        metrics = {metric: difference.other for metric, difference in found.items()}
        refinements = group[0].result(reference.protocol).refinements
        rows.append(ComparedRun(name, metrics, refinements, found if rows else {}))
    asked = {(e.fold, i) for e in groups[0] for i in e.result(reference.protocol).by_identity.identity}
    everything = [evaluation for group in groups for evaluation in group]
    synthetic = any(evaluation.synthetic for evaluation in everything)
    unlike, unfinished = unlike_settings(everything), {e.model: e.unfinished for e in everything if e.unfinished}
    gallery = reference.gallery
    return Comparison(first.benchmark, synthetic, reference.protocol, gallery, len(asked), rows, unlike, unfinished)


def difference_of_groups(
    first: Sequence[Evaluation], other: Sequence[Evaluation], protocol: str | None = None
) -> dict[str, Difference]:
    """Compute for each metric how the means of two groups of evaluations differ, as of several seeds of two settings.

    An identity is resampled with its queries to all models of both groups. The groups need not be equally large; where
    a dataset has several folds, the share of each must be the same in both. People of different folds are resampled
    apart, although a person may be in several.

    Raises:
        CsviError: not all were asked the same: other data, galleries, identities or queries, or no such protocol.
            Refinements may differ. Or a run is in one of the groups twice.
    """
    for group in (first, other):
        _check_each_once(group)
    name = first[0].result(protocol).protocol
    of_fold = check_same_data([*first, *other], name)
    folds = [Counter(evaluation.fold for evaluation in group) for group in (first, other)]
    if any(folds[0][fold] * len(other) != folds[1][fold] * len(first) for fold in of_fold):
        raise CsviError(f"they were evaluated on different folds, {sorted(folds[0])} and {sorted(folds[1])}")
    results = [evaluation.result(name).by_identity.sums for evaluation in (*first, *other)]
    metrics = [metric for metric in results[0] if all(metric in sums for sums in results)]
    (a, n), (b, m) = (_total(group, name, of_fold, metrics) for group in (first, other))
    values = (a.sum(0) / n.sum(), b.sum(0) / m.sum(), *paired_difference((a, b), (n, m)))
    return {
        metric: Difference(one, two, difference, low, high, len(n))
        for metric, (one, two, difference, low, high) in zip(metrics, np.stack(values, 1).tolist(), strict=True)
    }


def _check_repetitions(evaluations: Sequence[Evaluation]) -> None:
    """Raise `CsviError` if these runs have no mean: their settings differ, or those of some of them are not known."""
    models = ", ".join(evaluation.model for evaluation in evaluations)
    if differing := differing_settings(evaluations):
        raise CsviError(f"no mean over {models}, as their settings differ: {', '.join(differing[:5])}")
    unknown = [evaluation.model for evaluation in evaluations if not evaluation.settings]
    if 0 < len(unknown) < len(evaluations):
        raise CsviError(f"no mean over {models}, as the settings of {unknown[0]} are not known")


def _check_each_once(evaluations: Sequence[Evaluation]) -> None:
    """Raise `CsviError` if a run is among them twice, on the same fold."""
    runs = Counter((str(Path(e.model).resolve()), e.weights, e.fold) for e in evaluations)
    (model, _, _), times = runs.most_common(1)[0]
    if times > 1:
        raise CsviError(f"{model} was given twice: a mean counts every run once")


def check_same_data(evaluations: Sequence[Evaluation], protocol: str, always: Iterable[str] = ()) -> list[int]:
    """Raise `CsviError` unless all were asked the same under a protocol; returns the folds that they are of.

    Attributes in `always` must agree even where the test images are known to be the same.
    """
    first, of_fold = evaluations[0], dict[int, Evaluation]()
    for evaluation in evaluations:
        same_fold = of_fold.setdefault(evaluation.fold, evaluation)
        known = same_fold is not evaluation and bool(same_fold.fingerprint)
        known = known and same_fold.fingerprint == evaluation.fingerprint
        for name in always if known else NAMES:
            _check_equal(name, getattr(first, name), getattr(evaluation, name))
        _check_equal("galleries", first.result(protocol).gallery, evaluation.result(protocol).gallery)
        if same_fold.fingerprint and evaluation.fingerprint and same_fold.fingerprint != evaluation.fingerprint:
            raise CsviError("they were evaluated on other data (the test images differ)")
        one, two = (e.result(protocol).by_identity for e in (same_fold, evaluation))
        if one.identity != two.identity:
            raise CsviError(f"they were evaluated on other data (the identities asked for under {protocol} differ)")
        if one.queries != two.queries:
            raise CsviError(f"they were evaluated on other data (the identities have other queries under {protocol})")
    return list(of_fold)


def _check_equal(name: str, one: object, two: object) -> None:
    if one != two:
        raise CsviError(f"they were evaluated on other data ({name}: {one} and {two})")


def _total(
    group: Sequence[Evaluation], protocol: str, folds: Iterable[int], metrics: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over the evaluations of a group, identities fold by fold: (identities, metrics) and (identities,)."""
    sums, queries = [], []
    for fold in folds:
        found = [evaluation.result(protocol).by_identity for evaluation in group if evaluation.fold == fold]
        sums.append(sum(np.array([of.sums[metric] for metric in metrics]).T for of in found))
        queries.append(sum(np.array(of.queries) for of in found))
    return np.concatenate(sums), np.concatenate(queries)

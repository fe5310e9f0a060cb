"""Evaluated runs against each other, on the same queries: by how much they differ, and how sure that is."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csvi.errors import CsviError
from csvi.evaluate.intervals import paired_difference


@dataclass(frozen=True)
class Difference:
    """One figure of two models, or groups of models; fractions from 0 to 1."""

    first: float
    other: float
    difference: float
    """Other minus first."""
    low: float
    high: float
    """95 % interval of the difference, by bootstrap over the identities of the queries, the same for both. What other
    seeds of the training would give is not in it."""

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """One run of a comparison."""

    name: str
    figures: dict[str, float]
    refinements: list[str]
    """Done to this run's ranking; see `Result.refinements`."""
    differences: dict[str, Difference]
    """Figure → its difference to the first run; empty for the first."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side under one protocol."""

    benchmark: str
    synthetic: bool
    protocol: str
    gallery: str
    identities: int
    """Asked for."""
    rows: list[Row]


def load_evaluation(path: Path) -> dict[str, Any]:
    """What `csvi evaluate` saved.

    Args:
        path: of a run, whose evaluation.json it is, or of such a file.

    Raises:
        CsviError: there is none, or it is none, or it is of a version that saved nothing to compare.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        run = path.parent if path.suffix == ".json" else path
        raise CsviError(f"no {file}: evaluate it first, csvi evaluate {run}")
    try:
        evaluation = json.loads(file.read_text())
        results = evaluation["protocols"]
        known = evaluation.keys() >= {"benchmark", "synthetic"} and bool(results)
        known = known and all(result.keys() >= {"protocol", "gallery"} for result in results)
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise CsviError(f"{file} is no evaluation: give a run folder, or the evaluation.json of one")
    if not all(result.keys() >= {"by_identity", "refinements"} for result in results):
        raise CsviError(
            f"{file} was written by csvi {evaluation.get('version')}, which did not save what each identity "
            "contributes: evaluate the run again"
        )
    return evaluation


def compare_runs(
    evaluations: Sequence[dict[str, Any]], names: Sequence[str], protocol: str | None = None
) -> Comparison:
    """Every run, and how it differs from the first.

    Args:
        evaluations: as `load_evaluation` returns them.
        names: what to call them.
        protocol: by default the first of the first evaluation.

    Raises:
        CsviError: as `difference_of_groups` does; it names the runs.
    """
    first = evaluations[0]
    reference = _result(first, protocol)
    rows: list[Row] = []
    for name, evaluation in zip(names, evaluations, strict=True):
        try:
            found = compare(first, evaluation, reference["protocol"])
        except CsviError as error:
            raise CsviError(f"{names[0]} and {name} cannot be compared: {error}") from error
        figures = {figure: difference.other for figure, difference in found.items()}
        refinements = _result(evaluation, reference["protocol"])["refinements"]
        rows.append(Row(name, figures, refinements, found if rows else {}))
    identities = len(reference["by_identity"]["identity"])
    return Comparison(
        first["benchmark"], first["synthetic"], reference["protocol"], reference["gallery"], identities, rows
    )


def compare(first: dict[str, Any], other: dict[str, Any], protocol: str | None = None) -> dict[str, Difference]:
    """Figure → how two evaluations differ in it; see `difference_of_groups`."""
    return difference_of_groups([first], [other], protocol)


def difference_of_groups(
    first: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], protocol: str | None = None
) -> dict[str, Difference]:
    """Figure → how the means of two groups of evaluations differ in it, as of several seeds of two settings.

    An identity is resampled with its queries to all models of both groups. The groups need not be equally large; where
    a dataset has several splits, the share of each must be the same in both. People of different splits are resampled
    apart, although a person may be in several.

    Args:
        first, other: evaluations as `load_evaluation` returns them.
        protocol: by default the first of the first evaluation.

    Raises:
        CsviError: not all were asked the same: other data, galleries, identities or queries, or no such protocol.
            Refinements may differ.
    """
    reference = first[0]
    name = _result(reference, protocol)["protocol"]
    of_split: dict[int, dict[str, Any]] = {}
    for evaluation in (*first, *other):
        _check_data(reference, evaluation, name)
        _check_queries(of_split.setdefault(_split(evaluation), evaluation), evaluation, name)
    splits = [Counter(map(_split, group)) for group in (first, other)]
    if any(splits[0][split] * len(other) != splits[1][split] * len(first) for split in of_split):
        raise CsviError(f"they were evaluated on different splits, {sorted(splits[0])} and {sorted(splits[1])}")

    (a, n), (b, m) = _total(first, name, of_split), _total(other, name, of_split)
    values = (a.sum(0) / n.sum(), b.sum(0) / m.sum(), *paired_difference((a, b), (n, m)))
    figures = _result(reference, name)["by_identity"]["sums"]
    return {figure: Difference(*map(float, row)) for figure, *row in zip(figures, *values, strict=True)}


def _split(evaluation: dict[str, Any]) -> int:
    return evaluation.get("trial", 1)


def _result(evaluation: dict[str, Any], protocol: str | None) -> dict[str, Any]:
    """What was found under a protocol, by default the first."""
    results = {result["protocol"]: result for result in evaluation["protocols"]}
    protocol = protocol or next(iter(results))
    if protocol not in results:
        raise CsviError(f"not evaluated under {protocol!r}: choose one of {', '.join(results)}")
    return results[protocol]


def _check_data(first: dict[str, Any], other: dict[str, Any], protocol: str) -> None:
    a, b = (_result(evaluation, protocol) for evaluation in (first, other))
    for name, one, two in (
        *((key, first.get(key), other.get(key)) for key in ("benchmark", "dataset", "synthetic")),
        ("galleries", a["gallery"], b["gallery"]),
    ):
        if one != two:
            raise CsviError(f"they were evaluated on other data ({name}: {one} and {two})")


def _check_queries(first: dict[str, Any], other: dict[str, Any], protocol: str) -> None:
    """Of the same split."""
    a, b = (_result(evaluation, protocol)["by_identity"] for evaluation in (first, other))
    prints = first.get("fingerprint"), other.get("fingerprint")
    if None not in prints and prints[0] != prints[1]:
        raise CsviError("they were evaluated on other data (the test images differ)")
    if a["identity"] != b["identity"]:
        raise CsviError(f"they were evaluated on other data (the identities asked for under {protocol} differ)")
    if a["queries"] != b["queries"]:
        raise CsviError(f"they were evaluated on other data (the identities have other queries under {protocol})")


def _total(
    group: Sequence[dict[str, Any]], protocol: str, splits: Iterable[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums over the evaluations of a group, identities split by split: (identities, figures) and (identities,)."""
    sums, queries = [], []
    for split in splits:
        found = [_result(evaluation, protocol)["by_identity"] for evaluation in group if _split(evaluation) == split]
        sums.append(sum(np.array(list(of["sums"].values())).T for of in found))
        queries.append(sum(np.array(of["queries"]) for of in found))
    return np.concatenate(sums), np.concatenate(queries)

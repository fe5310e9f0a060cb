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
from csvi.shell import as_argument

FEWEST = 10
"""Identities below which no difference is called certain: resampling so few does not tell what others would give."""
NAMES = ("benchmark", "dataset", "synthetic")
"""Of an evaluation, what its data are called; decides where nothing is known of the images themselves."""
COMPARED = ("R1", "mAP", "mINP")
"""Figures that every evaluation has."""


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
    identities: int
    """Resampled, each once for every split that it is asked for in."""

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0, and is of enough identities to be one."""
        return self.identities >= FEWEST and (self.low > 0 or self.high < 0)


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
    """What `csvi evaluate` saved, or printed as JSON.

    Args:
        path: of a run, whose evaluation.json it is, or of such a file.

    Raises:
        CsviError: there is none, or it is none, or holds several, or is of a version that saved nothing to compare.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        run = path.parent if path.suffix == ".json" else path
        raise CsviError(f"no {file}: evaluate it first, csvi evaluate {as_argument(run)}")
    try:
        evaluation = json.loads(file.read_text())
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        evaluation = None
    if isinstance(evaluation, dict) and isinstance(evaluation.get("evaluations"), list):
        several = evaluation["evaluations"]
        if len(several) != 1:
            raise CsviError(f"{file} holds {len(several)} evaluations: give a file with one, csvi evaluate --json RUN")
        evaluation = several[0]
    if not _is_evaluation(evaluation):
        raise CsviError(f"{file} is no evaluation: give a run folder, or the evaluation.json of one")
    results = evaluation["protocols"]
    if not all(result.keys() >= {"by_identity", "refinements"} for result in results):
        raise CsviError(
            f"{file} was written by csvi {evaluation.get('version')}, which did not save what each identity "
            "contributes: evaluate the run again"
        )
    if not all(_is_by_identity(result["by_identity"]) and _are(str, result["refinements"]) for result in results):
        raise CsviError(f"{file} is no evaluation: what it says of each identity is damaged, evaluate the run again")
    return evaluation


def _is_evaluation(value: Any) -> bool:
    """Whether it is one, of whatever version."""
    return (
        isinstance(value, dict)
        and _are(str, [value.get("benchmark"), value.get("dataset") or "", value.get("fingerprint") or ""])
        and isinstance(value.get("synthetic"), bool)
        and _are(int, [value.get("trial", 1)])
        and bool(value.get("protocols"))
        and _are(dict, value["protocols"])
        and all(_are(str, [result.get("protocol"), result.get("gallery")]) for result in value["protocols"])
    )


def _is_by_identity(value: Any) -> bool:
    """Whether it is a `ByIdentity`: of each identity a number of queries and a sum of each figure."""
    if not isinstance(value, dict) or not value.keys() >= {"identity", "queries", "sums"}:
        return False
    identity, queries, sums = value["identity"], value["queries"], value["sums"]
    return (
        isinstance(sums, dict)
        and sums.keys() >= set(COMPARED)
        and _are(int, identity)
        and _are(int, queries)
        and all(_are((int, float), of_figure) for of_figure in sums.values())
        and {len(queries), *map(len, sums.values())} == {len(identity)}
        and min(queries, default=0) > 0
        and all(abs(number) < 1e15 for numbers in (queries, *sums.values()) for number in numbers)  # NaN is not
    )


def _are(kind: type | tuple[type, ...], values: Any) -> bool:
    """Whether it is a list of such values; True and False are no numbers."""
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def compare_runs(
    evaluations: Sequence[dict[str, Any]], names: Sequence[str], protocol: str | None = None
) -> Comparison:
    """Every run, and how it differs from the first; see `compare_groups`."""
    return compare_groups([[evaluation] for evaluation in evaluations], names, protocol)


def compare_groups(
    groups: Sequence[Sequence[dict[str, Any]]], names: Sequence[str], protocol: str | None = None
) -> Comparison:
    """Every group of runs, as several seeds or RegDB's ten models, and how its mean differs from that of the first.

    Args:
        groups: of evaluations as `load_evaluation` returns them.
        names: what to call them.
        protocol: by default the first of the first evaluation.

    Raises:
        CsviError: as `difference_of_groups` does; it names the groups.
    """
    first = groups[0][0]
    reference = _result(first, protocol)
    rows: list[Row] = []
    for name, group in zip(names, groups, strict=True):
        try:
            found = difference_of_groups(groups[0], group, reference["protocol"])
        except CsviError as error:
            raise CsviError(f"{names[0]} and {name} cannot be compared: {error}") from error
        figures = {figure: difference.other for figure, difference in found.items()}
        refinements = _result(group[0], reference["protocol"])["refinements"]
        rows.append(Row(name, figures, refinements, found if rows else {}))
    asked = {(_split(e), i) for e in groups[0] for i in _result(e, reference["protocol"])["by_identity"]["identity"]}
    synthetic = any(evaluation["synthetic"] for group in groups for evaluation in group)
    return Comparison(first["benchmark"], synthetic, reference["protocol"], reference["gallery"], len(asked), rows)


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
        of_same_split = of_split.setdefault(_split(evaluation), evaluation)
        known = of_same_split is not evaluation and _same_images(of_same_split, evaluation)
        _check_data(reference, evaluation, name, () if known else NAMES)
        _check_queries(of_same_split, evaluation, name)
    splits = [Counter(map(_split, group)) for group in (first, other)]
    if any(splits[0][split] * len(other) != splits[1][split] * len(first) for split in of_split):
        raise CsviError(f"they were evaluated on different splits, {sorted(splits[0])} and {sorted(splits[1])}")

    results = [_result(evaluation, name)["by_identity"]["sums"] for evaluation in (*first, *other)]
    figures = [figure for figure in results[0] if all(figure in sums for sums in results)]
    (a, n), (b, m) = (_total(group, name, of_split, figures) for group in (first, other))
    values = (a.sum(0) / n.sum(), b.sum(0) / m.sum(), *paired_difference((a, b), (n, m)))
    return {
        figure: Difference(one, two, difference, low, high, len(n))
        for figure, (one, two, difference, low, high) in zip(figures, np.stack(values, 1).tolist(), strict=True)
    }


def _split(evaluation: dict[str, Any]) -> int:
    return evaluation.get("trial", 1)


def _result(evaluation: dict[str, Any], protocol: str | None) -> dict[str, Any]:
    """What was found under a protocol, by default the first."""
    results = {result["protocol"]: result for result in evaluation["protocols"]}
    protocol = protocol or next(iter(results))
    if protocol not in results:
        raise CsviError(f"not evaluated under {protocol!r}: choose one of {', '.join(results)}")
    return results[protocol]


def _same_images(first: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the test images are known to be the same, whatever the dataset is called."""
    return bool(first.get("fingerprint")) and first.get("fingerprint") == other.get("fingerprint")


def _check_data(first: dict[str, Any], other: dict[str, Any], protocol: str, names: Iterable[str]) -> None:
    a, b = (_result(evaluation, protocol) for evaluation in (first, other))
    for name, one, two in (
        *((name, first.get(name), other.get(name)) for name in names),
        ("galleries", a["gallery"], b["gallery"]),
    ):
        if one != two:
            raise CsviError(f"they were evaluated on other data ({name}: {one} and {two})")


def _check_queries(first: dict[str, Any], other: dict[str, Any], protocol: str) -> None:
    """Of the same split."""
    a, b = (_result(evaluation, protocol)["by_identity"] for evaluation in (first, other))
    if first.get("fingerprint") and other.get("fingerprint") and not _same_images(first, other):
        raise CsviError("they were evaluated on other data (the test images differ)")
    if a["identity"] != b["identity"]:
        raise CsviError(f"they were evaluated on other data (the identities asked for under {protocol} differ)")
    if a["queries"] != b["queries"]:
        raise CsviError(f"they were evaluated on other data (the identities have other queries under {protocol})")


def _total(
    group: Sequence[dict[str, Any]], protocol: str, splits: Iterable[int], figures: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums over the evaluations of a group, identities split by split: (identities, figures) and (identities,)."""
    sums, queries = [], []
    for split in splits:
        found = [_result(evaluation, protocol)["by_identity"] for evaluation in group if _split(evaluation) == split]
        sums.append(sum(np.array([of["sums"][figure] for figure in figures]).T for of in found))
        queries.append(sum(np.array(of["queries"]) for of in found))
    return np.concatenate(sums), np.concatenate(queries)

"""How much feedback is worth: searches before and after the first answers are judged, with the truth as the judge.

    python benchmarks/feedback.py RUN [--data.root ROOT] [--judged 5 10 20]

Every infrared test image of a run is searched for among its visible ones. Its first answers are judged, Rocchio's
formula refines the query as `csvi app` does, and both rankings are compared on the images that were not judged.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from common import BenchmarkError, Finding, parser_of, positive, run
from rich.console import Console

from csvi.plain_table import plain_table
from csvi.runs import Options, Run
from csvi.search.feedback import rocchio


@dataclass(frozen=True)
class Worth:
    """Means over the probes that have a right image left, in %."""

    probes: int
    first: tuple[float, float]
    """Probes whose best image is right, before and after."""
    mean_precision: tuple[float, float]
    """mAP before and after."""


def worth(probes: np.ndarray, people: np.ndarray, gallery: np.ndarray, others: np.ndarray, judged: int) -> Worth:
    """Search with each probe, judge, and search again.

    Args:
        probes: (n, dim), of unit length.
        people: (n,), their identities.
        gallery: (m, dim), of unit length.
        others: (m,), their identities.
        judged: images of each ranking that are judged.
    """
    found = []
    for probe, person in zip(probes, people, strict=True):
        ranked = np.argsort(-(gallery @ probe), kind="stable")
        seen, rest = ranked[:judged], ranked[judged:]
        right = others == person
        if right[rest].any():
            query = rocchio(probe, gallery[seen[right[seen]]], gallery[seen[~right[seen]]])
            again = rest[np.argsort(-(gallery[rest] @ query), kind="stable")]
            found.append([(right[order[0]], _average_precision(right[order])) for order in (rest, again)])
    if not found:
        raise BenchmarkError(f"no probe has a right image behind its first {judged}")
    (first, precision), (first_after, precision_after) = 100 * np.mean(found, axis=0)
    return Worth(len(found), (first, first_after), (precision, precision_after))


def _average_precision(right: np.ndarray) -> float:
    return float((np.cumsum(right)[right] / (np.flatnonzero(right) + 1)).mean())


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("run")
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--judged", nargs="+", type=positive, default=[5, 10, 20])
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    opened = Run.open(options.run, Options(root=options.root))
    embeddings = opened.embeddings.numpy()
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    identity = np.array([record.identity for record in opened.benchmark.test])
    infrared = np.array([bool(record.modality) for record in opened.benchmark.test])
    table = plain_table("judged", "probes", "first right (%)", "refined", "mAP (%)", "refined")
    for judged in options.judged:
        found = worth(embeddings[infrared], identity[infrared], embeddings[~infrared], identity[~infrared], judged)
        numbers = [f"{value:.1f}" for value in (*found.first, *found.mean_precision)]
        table.add_row(str(judged), str(found.probes), *numbers)
    console.print(table)
    return []


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))

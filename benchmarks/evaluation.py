"""How fast csvi evaluates: SYSU-MM01's four settings of ten trials, against two ways to write it in NumPy.

    python benchmarks/evaluation.py [--dimensions 3072] [--trials 10] [--full]
    python benchmarks/evaluation.py --large

The embeddings are random, with some of the identity in them, for as many images as SYSU-MM01's test split has; the
galleries are csvi's, for all three. All three start from the embeddings. They are compared in float64, where no two
distances are close enough for rounding to decide; csvi is timed in float32 as well, which is what a network gives.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import BenchmarkError, Finding, machine, parser_of, positive, run
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from csvi.data import find_layout, llcm
from csvi.data.records import ImageRecord
from csvi.data.sysu import MODALITIES, images_per_camera
from csvi.evaluate import Protocol, Trial, evaluate_protocols
from csvi.evaluate.metrics import score_embeddings

RANKS = (1, 10, 20)
METRICS = ("R1", "R10", "R20", "mAP", "mINP")
TOLERANCE = 1e-6
TARGETS = {"whole matrix": 30, "by query": 4}
"""Style → how many times as long as csvi it should take, at least."""
TARGET_SECONDS = 3.0
TARGET_BYTES = 4e9

Metrics = NDArray[np.float64]
"""(settings, trials, 5): one for each of `METRICS`."""


def whole_matrix(
    query: NDArray, gallery: NDArray, who: NDArray, where: NDArray, whom: NDArray, camera: NDArray
) -> list:
    """As most public code goes about it: sort all distances with their indices, then take every step of the definition
    for one query after the other, precision at each position of the ranking included."""
    ranking = np.argsort(-query @ gallery.T, axis=1)
    ranked, matches = whom[ranking], whom[ranking] == who[:, None]
    cmc, precisions, penalties = [], [], []
    for q in range(len(query)):
        keep = ~((where[q] == 3) & (camera[ranking[q]] == 2))
        match = matches[q][keep]
        if not match.any():
            continue
        found = match.cumsum()
        last = np.flatnonzero(match).max()
        penalties.append(found[last] / (last + 1))
        precision = np.array([n / (position + 1) for position, n in enumerate(found)])
        precisions.append((precision * match).sum() / match.sum())
        identities = ranked[q][keep]
        _, first = np.unique(identities, return_index=True)
        curve = (identities[np.sort(first)] == who[q]).cumsum()
        cmc.append([curve[min(r, len(curve)) - 1] for r in RANKS])
    return [*np.mean(cmc, axis=0), np.mean(precisions), np.mean(penalties)]


def by_query(query: NDArray, gallery: NDArray, who: NDArray, where: NDArray, whom: NDArray, camera: NDArray) -> list:
    """As tight as a loop over the queries gets: what is removed is removed before sorting, once for all queries of a
    camera, and no array but the ranking is as long as the gallery."""
    first, precisions, penalties = [], [], []
    for c in np.unique(where):
        seen = camera != 2 if c == 3 else slice(None)
        asking, shown = where == c, whom[seen]
        for identity, distance in zip(who[asking], -query[asking] @ gallery[seen].T, strict=True):
            ranked = shown[np.argsort(distance)]
            position = np.flatnonzero(ranked == identity)
            if not len(position):
                continue
            first.append(len(np.unique(ranked[: position[0]])) + 1)
            rank = np.arange(1, len(position) + 1)
            precisions.append((rank / (position + 1)).mean())
            penalties.append(len(position) / (position[-1] + 1))
    return [*(np.mean(np.array(first) <= r) for r in RANKS), np.mean(precisions), np.mean(penalties)]


def time_style(
    style: Callable[..., list],
    protocols: Sequence[Protocol],
    trials: int,
    embeddings: NDArray,
    records: list[ImageRecord],
) -> tuple[float, Metrics]:
    """Seconds for so many trials of each setting, and the metrics."""
    identity = np.array([record.identity for record in records])
    camera = np.array([record.camera for record in records])

    def of(trial: Trial) -> list:
        q, g = np.array(trial.query), np.array(trial.gallery)
        return style(embeddings[q], embeddings[g], identity[q], camera[q], identity[g], camera[g])

    start = time.perf_counter()
    metrics = np.array([[of(trial) for trial in protocol.trials[:trials]] for protocol in protocols])
    return time.perf_counter() - start, metrics


def time_csvi(
    protocols: Sequence[Protocol], embeddings: torch.Tensor, records: list[ImageRecord], repeats: int = 5
) -> tuple[float, Metrics]:
    """Seconds for all trials, the least of some repeats, and the metrics."""
    evaluate_protocols(protocols[:1], embeddings, records)  # the first call compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        results = evaluate_protocols(protocols, embeddings, records)
        seconds.append(time.perf_counter() - start)
    metrics = np.array([[result.metrics[name].trials for name in METRICS] for result in results])
    return min(seconds), metrics.transpose(0, 2, 1)


def sysu_records(identities: int | None = None) -> list[ImageRecord]:
    """Records of SYSU-MM01's test split, or of its first identities."""
    rows = [row for row in images_per_camera() if row["split"] == "test"][:identities]
    return [
        ImageRecord(f"cam{camera}/{int(row['id']):04d}/{n:04d}.jpg", int(row["id"]), camera, modality)
        for camera, modality in MODALITIES.items()
        for row in rows
        for n in range(1, int(row[f"cam{camera}"]) + 1)
    ]


def draw_embeddings(identity: NDArray, dimensions: int, seed: int = 0) -> NDArray[np.float64]:
    """(images, dimensions) of length 1, about as telling as a weak model's."""
    random = np.random.default_rng(seed)
    names, index = np.unique(identity, return_inverse=True)
    signal = random.normal(size=(len(names), dimensions)) * (10 / dimensions) ** 0.25
    embeddings = signal[index] + random.normal(size=(len(identity), dimensions)) * 1.5
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def compare(dimensions: int, trials: int, full: bool, identities: int | None, console: Console) -> list[Finding]:
    """Measures and prints.

    Raises:
        BenchmarkError: they did not all find the same.
    """
    records = sysu_records(identities)
    protocols = find_layout("sysu").protocols(records, "seeded", Path(), trials)
    embeddings = draw_embeddings(np.array([record.identity for record in records]), dimensions)
    console.print(
        f"SYSU-MM01's counts, {len(protocols)} settings × {trials} trials, {dimensions} dimensions; {machine()}"
    )

    double = torch.from_numpy(embeddings)
    single_seconds, single = time_csvi(protocols, double.float(), records)
    seconds, expected = time_csvi(protocols, double, records)
    table = Table("", "seconds", "× float64", "× float32", "largest difference", "measured on")
    equal = True
    findings = []

    def add(name: str, taken: float, metrics: Metrics, measured: str) -> float:
        difference = float(np.abs(metrics - expected[:, : metrics.shape[1]]).max())
        ratios = f"{taken / seconds:.1f}", f"{taken / single_seconds:.1f}"
        table.add_row(name, f"{taken:.2f}", *ratios, f"{difference:.0e}", measured)
        return difference

    for name, style, measured in (
        ("whole matrix", whole_matrix, trials if full else 1),
        ("by query", by_query, trials),
    ):
        taken, metrics = time_style(style, protocols, measured, embeddings, records)
        taken *= trials / measured
        of = f"{measured} of {trials} trials{', scaled' if measured < trials else ''}"
        equal &= add(name, taken, metrics, of) <= TOLERANCE
        times, least = taken / seconds, TARGETS[name]
        question = f"evaluation in NumPy, {name}, {dimensions} dimensions"
        findings.append(Finding(question, f"{times:.1f} × csvi's time", f"≥ {least} ×", times >= least))
    everything = f"{trials} of {trials} trials, least of 5"
    add("csvi, float64", seconds, expected, everything)
    add("csvi, float32", single_seconds, single, everything)
    console.print(table)
    console.print(f"mean R1 {expected[..., 0].mean():.3f}, mAP {expected[..., 3].mean():.3f}")
    if not equal:
        raise BenchmarkError(f"metrics differ by more than {TOLERANCE:g}")
    question, found = f"all of SYSU-MM01's settings, {trials} trials each", f"{single_seconds:.2f} s"
    return [*findings, Finding(question, found, f"< {TARGET_SECONDS:g} s", single_seconds < TARGET_SECONDS)]


def large(images: int, dimensions: int, console: Console) -> list[Finding]:
    """Scores `images` queries against as many gallery images."""
    console.print(f"{images:,} × {images:,} images, {dimensions} dimensions; {machine()}")
    random = torch.Generator().manual_seed(0)
    identity, camera = torch.arange(images) // 10, torch.arange(images) % 2
    signal = torch.randn(len(identity.unique()), dimensions, generator=random)
    query, gallery = (
        torch.randn(images, dimensions, generator=random).mul_(3).add_(signal[identity]) for _ in range(2)
    )
    start = time.perf_counter()
    score = score_embeddings(query, gallery, identity, identity, camera, camera + 2, rules=llcm.LLCM.rules)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    console.print(
        f"{seconds:.0f} s; the embeddings are {2 * query.nbytes / 1e9:.2f} GB; "
        f"R1 {score.cmc[0]:.3f}, mAP {score.metrics['mAP']:.3f}"
    )
    found, target = f"{peak / 1e9:.2f} GB resident", f"≤ {TARGET_BYTES / 1e9:g} GB"
    return [Finding(f"memory of scoring {images:,} × {images:,} images", found, target, peak <= TARGET_BYTES)]


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--dimensions", type=positive, default=512)
    parser.add_argument("--trials", type=positive, default=10)
    parser.add_argument("--full", action="store_true", help="measure every trial of the slowest style, not one of each")
    parser.add_argument("--quick", action="store_true", help="a few identities only, to see that it runs")
    parser.add_argument(
        "--large", action="store_true", help="100,000 × 100,000 images instead: seconds and peak memory"
    )
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.large:
        return large(1_000 if options.quick else 100_000, options.dimensions, console)
    identities = 25 if options.quick else None
    return compare(options.dimensions, options.trials, options.full, identities, console)


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))

"""How fast a gallery in a file is filled and searched, and what it finds, beside plain FAISS on the same vectors.

    python benchmarks/gallery.py [--images 100000] [--dim 3072]

The vectors are synthetic: people in a space of 96 dimensions, forty images each by six cameras, noise in all
dimensions, of length 1. Probes are new images of the same people, one at a time. Recall is the share of the 20 nearest
images, by exact search among all numbers in 32 bits, that are found. Each row is filled and searched in processes of
its own; memory is what the searching one holds at most, Python and PyTorch included, beside files that are mapped.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import BenchmarkError, Finding, machine, parser_of, positive, run
from rich.console import Console
from rich.table import Table

from csvi.search.features import Features
from csvi.search.fill import Choices, add_features, gallery_for_features
from csvi.search.gallery import open_gallery
from csvi.search.query import Where, search

TOP, CAMERAS, PER_PERSON, LATENT, BLOCK = 20, 6, 40, 96, 5000
CAMERA = "2"
"""The camera of the searches with a condition."""


class Data(NamedTuple):
    """Files of one set of vectors."""

    vectors: Path
    """(images, dim) float32."""
    probes: Path
    """(probes, dim)."""
    cameras: Path
    """(images,) number of the camera."""


class Filled(NamedTuple):
    """How an index was filled."""

    seconds: float
    bytes: int
    """On disk."""


class Searched(NamedTuple):
    """How an index was searched."""

    seconds: list[float]
    """Of each probe."""
    seconds_of_camera: list[float]
    """The same among the images of one camera."""
    found: list[list[int]]
    found_of_camera: list[list[int]]
    memory: int
    """Bytes."""


class Row(NamedTuple):
    """A contestant."""

    name: str
    fill: Callable[[Data, Path, str], Filled]
    search: Callable[[Data, Path, str], Searched]
    index: str
    reduced: bool


def write_data(folder: Path, images: int, dim: int, probes: int) -> Data:
    """Draw the vectors of people, and of probes that show some of them again."""
    random = np.random.default_rng(0)
    people = max(1, images // PER_PERSON)
    basis = random.standard_normal((LATENT, dim), np.float32) / np.sqrt(dim)
    centre = random.standard_normal((people, LATENT), np.float32)
    place = 0.5 * random.standard_normal((CAMERAS, LATENT), np.float32)
    camera = random.integers(CAMERAS, size=images)

    def seen(person: np.ndarray, camera: np.ndarray) -> np.ndarray:
        latent = centre[person] + place[camera] + 0.7 * random.standard_normal((len(person), LATENT), np.float32)
        vectors = latent @ basis + 0.2 * random.standard_normal((len(person), dim), np.float32) / np.sqrt(dim)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    data = Data(*(folder / f"{name}.npy" for name in Data._fields))
    vectors = np.lib.format.open_memmap(data.vectors, "w+", np.float32, (images, dim))
    for start in range(0, images, BLOCK):
        rows = np.arange(start, min(start + BLOCK, images))
        vectors[rows] = seen(rows % people, camera[rows])
    vectors.flush()
    np.save(data.probes, seen(random.integers(people, size=probes), random.integers(CAMERAS, size=probes)))
    np.save(data.cameras, camera)
    return data


def reduce(data: Data, folder: Path, dim: int) -> Data:
    """Reduce vectors to their first principal components, fitted on some of them, as `--dimensions` does."""
    vectors, probes = np.load(data.vectors, mmap_mode="r"), np.load(data.probes)
    sample = vectors[:: max(1, len(vectors) // (2 * dim))]
    mean = sample.mean(0)
    components = np.linalg.svd(sample - mean, full_matrices=False)[2][:dim]

    def reduced(some: np.ndarray) -> np.ndarray:
        small = (some - mean) @ components.T
        return small / np.linalg.norm(small, axis=1, keepdims=True)

    small = Data(folder / "vectors-reduced.npy", folder / "probes-reduced.npy", data.cameras)
    written = np.lib.format.open_memmap(small.vectors, "w+", np.float32, (len(vectors), len(components)))
    for start in range(0, len(vectors), BLOCK):
        written[start : start + BLOCK] = reduced(vectors[start : start + BLOCK])
    written.flush()
    np.save(small.probes, reduced(probes))
    return small


def exact(data: Data, camera: int | None = None) -> list[list[int]]:
    """Find the nearest images of each probe, of all or of one camera, by NumPy, in blocks."""
    vectors, probes = np.load(data.vectors, mmap_mode="r"), np.load(data.probes)
    similar = np.concatenate([vectors[i : i + BLOCK] @ probes.T for i in range(0, len(vectors), BLOCK)])
    if camera is not None:
        similar[np.load(data.cameras) != camera] = -np.inf
    return [np.argsort(-column)[:TOP].tolist() for column in similar.T]


def memory() -> int:
    """Bytes that this process holds, without files that are mapped."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def searched(find: Callable[[np.ndarray, bool], list[int]], data: Data) -> Searched:
    """Search with every probe, among all images and among those of one camera."""
    times: dict[bool, list[float]] = {False: [], True: []}
    found: dict[bool, list[list[int]]] = {False: [], True: []}
    most = memory()
    probes = np.load(data.probes)
    find(probes[0], False)  # what the first one alone pays for
    for probe in probes:
        for of_camera in (False, True):
            start = time.perf_counter()
            found[of_camera].append(find(probe, of_camera))
            times[of_camera].append(time.perf_counter() - start)
            most = max(most, memory())
    return Searched(times[False], times[True], found[False], found[True], most)


def fill_gallery(data: Data, folder: Path, index: str) -> Filled:
    """Fill a gallery in a file."""
    vectors, camera = np.load(data.vectors, mmap_mode="r"), np.load(data.cameras)
    count, dim = vectors.shape
    facts = {"fingerprint": "0" * 16, "name": "synthetic", "dim": dim, "root": "/none"}
    blank = np.full(count, "")
    paths = np.array([f"{row:08d}.jpg" for row in range(count)])
    features = Features(vectors, paths, np.full(count, "visible"), camera.astype(str), blank, blank, facts)
    uri = str(folder / "gallery.db")
    start = time.perf_counter()
    with gallery_for_features(uri, features, Choices(index=index, metric="cosine")) as gallery:  # type: ignore[arg-type]
        if add_features(gallery, features).new != count:
            raise BenchmarkError("images are missing")
    seconds = time.perf_counter() - start
    with open_gallery(uri) as gallery:
        return Filled(seconds, gallery.bytes_on_disk or 0)


def search_gallery(data: Data, folder: Path, index: str) -> Searched:
    """Search it."""
    with open_gallery(str(folder / "gallery.db")) as gallery:

        def find(probe: np.ndarray, of_camera: bool) -> list[int]:
            hits = search(gallery, probe[None], TOP, Where(cameras=[CAMERA]) if of_camera else None)
            return [int(hit.path[:8]) for hit in hits]

        return searched(find, data)


def fill_faiss(data: Data, folder: Path, index: str) -> Filled:
    """Fill an index of FAISS, and write it."""
    import faiss

    vectors = np.load(data.vectors, mmap_mode="r")
    start = time.perf_counter()
    built = faiss.index_factory(vectors.shape[1], index, faiss.METRIC_INNER_PRODUCT)
    if index.startswith("HNSW"):
        built.hnsw.efConstruction = 200
    built.train(np.asarray(vectors[:BLOCK]))
    for row in range(0, len(vectors), BLOCK):
        built.add(np.asarray(vectors[row : row + BLOCK]))
    file = folder / "faiss.index"
    faiss.write_index(built, str(file))
    return Filled(time.perf_counter() - start, file.stat().st_size)


def search_faiss(data: Data, folder: Path, index: str) -> Searched:
    """Search it; the candidates of HNSW are as many as csvi asks for."""
    import faiss

    opened = faiss.read_index(str(folder / "faiss.index"))
    rows = np.flatnonzero(np.load(data.cameras) == int(CAMERA))
    selector = faiss.IDSelectorBatch(rows)

    def find(probe: np.ndarray, of_camera: bool) -> list[int]:
        chosen = {"sel": selector} if of_camera else {}
        if index.startswith("HNSW"):
            options = faiss.SearchParametersHNSW(efSearch=4096 if of_camera else 128, **chosen)
        else:
            options = faiss.SearchParameters(**chosen)
        return [int(row) for row in opened.search(probe[None], TOP, params=options)[1][0] if row >= 0]

    return searched(find, data)


ROWS = [
    Row("csvi, FLAT", fill_gallery, search_gallery, "FLAT", reduced=False),
    Row("FAISS, exact", fill_faiss, search_faiss, "Flat", reduced=False),
    Row("FAISS, exact, 16 bits", fill_faiss, search_faiss, "SQfp16", reduced=False),
    Row("csvi, HNSW", fill_gallery, search_gallery, "HNSW", reduced=False),
    Row("FAISS, HNSW", fill_faiss, search_faiss, "HNSW16,Flat", reduced=False),
    Row("csvi, FLAT, reduced", fill_gallery, search_gallery, "FLAT", reduced=True),
    Row("FAISS, exact, reduced", fill_faiss, search_faiss, "Flat", reduced=True),
    Row("csvi, HNSW, reduced", fill_gallery, search_gallery, "HNSW", reduced=True),
]


def share(found: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> float:
    """Share of the right answers that are found."""
    return sum(len(set(some) & set(these)) for some, these in zip(found, right, strict=True)) / sum(map(len, right))


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.quick:
        options.images, options.dim, options.reduced, options.probes = 600, 48, 12, 5

    def alone(function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in a process of its own, but for a quick look."""
        if options.quick:
            return function(*arguments)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()

    console.print(
        f"{options.images:,} synthetic vectors of {options.dim:,} numbers, {options.probes} probes; {machine()}"
    )
    table = Table("", "numbers", "filled, images/s", "probe, ms: p50", "p99", "camera, ms: p50", "p99", "recall@20",
                  "of camera", "memory, GB", "disk, GB")  # fmt: skip
    results: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        whole = alone(write_data, folder, options.images, options.dim, options.probes)
        small = alone(reduce, whole, folder, options.reduced)
        right, right_of_camera = alone(exact, whole), alone(exact, whole, int(CAMERA))
        for row in ROWS:
            if options.only and not any(word in row.name for word in options.only):
                continue
            data = small if row.reduced else whole
            with tempfile.TemporaryDirectory(dir=folder) as own:
                filled: Filled = alone(row.fill, data, Path(own), row.index)
                found: Searched = alone(row.search, data, Path(own), row.index)
            recall = share(found.found, right), share(found.found_of_camera, right_of_camera)
            times = [
                f"{1e3 * np.percentile(seconds, percent):.1f}"
                for seconds in (found.seconds, found.seconds_of_camera)
                for percent in (50, 99)
            ]
            table.add_row(
                row.name,
                f"{options.reduced if row.reduced else options.dim:,}",
                f"{options.images / filled.seconds:,.0f}",
                *times,
                *(f"{value:.3f}" for value in recall),
                f"{found.memory / 1e9:.2f}",
                f"{filled.bytes / 1e9:.2f}",
            )
            results[row.name] = min(recall), float(np.median(found.seconds))
    console.print(table)
    findings = []
    if "csvi, FLAT" in results:
        recall, seconds = results["csvi, FLAT"]
        findings.append(Finding("exact search finds the nearest", f"{recall:.3f}", "1.000", recall == 1))
        findings.append(Finding("a probe, exact, p50", f"{seconds:.2f} s", "≤ 1 s", seconds <= 1))
    if "csvi, HNSW" in results:
        recall, seconds = results["csvi, HNSW"]
        findings.append(Finding("HNSW finds the nearest, of a camera too", f"{recall:.3f}", "≥ 0.950", recall >= 0.95))
        findings.append(Finding("a probe, HNSW, p50", f"{seconds:.2f} s", "≤ 0.2 s", seconds <= 0.2))
    return findings


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=positive, default=100_000)
    parser.add_argument("--dim", type=positive, default=3072)
    parser.add_argument("--reduced", type=positive, default=768, help="numbers of the rows with reduced vectors")
    parser.add_argument("--probes", type=positive, default=100)
    parser.add_argument("--only", nargs="*", help="words in the names of the rows to measure")
    parser.add_argument("--folder", help="where files are written, some gigabytes; by default a temporary one")
    parser.add_argument("--quick", action="store_true", help="few vectors, to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))

"""Evaluation protocols as data: which images are queries, which are the galleries of each trial, which rules hold.

Protocols are drawn from the records of one split, test or val, and know embeddings only by their row.
`docs/protocols.md` states each of them precisely enough to be written again.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.data.sysu_mm01 import PERMUTATIONS
from csvi.errors import CsviError
from csvi.evaluate.metrics import (
    RULES,
    Ranks,
    Score,
    euclidean,
    index_gallery,
    one_thread,
    rank,
    rows_of_block,
    summarize,
)

SYSU_CAMERAS = {"all-search": (1, 2, 4, 5), "indoor-search": (1, 2)}
"""Mode → cameras of the gallery."""
SYSU_SHOTS = {"single-shot": 1, "multi-shot": 10}
"""Shots → gallery images of each identity and camera."""
REPORTED_RANKS = (1, 10, 20)


@dataclass(frozen=True)
class Protocol:
    """Queries and, for each trial, a gallery; indices into the records that the protocol was made from."""

    name: str
    """`all-search single-shot`"""
    rules: str
    """A key of `RULES`."""
    gallery: Literal["seeded", "official"]
    """`seeded` or `official`: how the galleries were drawn; figures of different draws cannot be compared."""
    query: Sequence[int]
    galleries: Sequence[Sequence[int]]
    """One a trial."""


@dataclass(frozen=True)
class Spread:
    """One figure over the trials."""

    mean: float
    std: float
    """Standard deviation of a sample (n - 1); 0 for a single trial."""
    trials: list[float]


@dataclass(frozen=True)
class Result:
    """What a protocol found; `dataclasses.asdict` makes it ready for JSON. Figures are fractions from 0 to 1."""

    protocol: str
    rules: str
    gallery: Literal["seeded", "official"]
    """`seeded` or `official`: how the galleries were drawn; figures of different draws cannot be compared."""
    queries: int
    valid: int
    """Queries counted: those with something relevant in the gallery; the fewest of all trials."""
    gallery_images: int
    """The fewest of all trials."""
    chance: float
    """R1 of a random ranking, mean over the trials."""
    figures: dict[str, Spread]
    """R1, R10, R20, mAP, mINP."""


def protocols_of(
    benchmark: Benchmark,
    split: Literal["val", "test"] = "test",
    gallery: Literal["seeded", "official"] = "seeded",
    trials: int = 10,
) -> list[Protocol]:
    """The protocols of a benchmark's layout on one of its splits; the first is the one that results are headed by.

    Raises:
        CsviError: as the function of the layout does.
    """
    records = benchmark.test if split == "test" else benchmark.val
    return PROTOCOLS[benchmark.layout](records, gallery, benchmark.root / PERMUTATIONS, trials)


def sysu_protocols(
    records: Sequence[ImageRecord],
    gallery: Literal["seeded", "official"] = "seeded",
    permutations: str | os.PathLike[str] | None = None,
    trials: int = 10,
) -> list[Protocol]:
    """SYSU-MM01's four settings: all-search and indoor-search, each single-shot and multi-shot.

    Every infrared image is a query, in both modes. Of each identity and each visible camera of the mode, a trial's
    gallery holds one image (single-shot) or ten (multi-shot; all where there are fewer). A mode whose cameras saw
    nobody is left out: on SYSU-MM01's val identities all-search remains.

    Args:
        records: images of one split, in any order.
        gallery: `seeded`: trial t draws with seed t, as most public code does. `official`: trial t takes its images
            from row t of the authors' permutations.
        permutations: the authors' rand_perm_cam.mat, needed for `official`.
        trials: galleries a setting; at most ten are official.

    Raises:
        CsviError: no infrared or no visible images; or the permutations are missing, unreadable or of other images.
    """
    query = [i for i, record in enumerate(records) if record.modality == Modality.INFRARED]
    if not query:
        raise CsviError("no infrared images: SYSU-MM01's queries are the images of cameras 3 and 6")
    if gallery not in ("seeded", "official"):
        raise CsviError(f"unknown gallery {gallery!r}: choose seeded or official")
    if trials < 1:
        raise CsviError(f"{trials} trials: at least one is needed")
    visible = _by_identity_and_camera(records)
    if not visible:
        raise CsviError("no visible images: SYSU-MM01's galleries are drawn from cameras 1, 2, 4 and 5")
    rows = _official_rows(permutations, visible, trials) if gallery == "official" else None
    protocols = []
    for mode, cameras in SYSU_CAMERAS.items():
        images = {key: indices for key, indices in visible.items() if key[1] in cameras}
        if not images:  # SYSU-MM01's val identities were never in cameras 1 and 2
            continue
        for shots, count in SYSU_SHOTS.items():
            galleries = [
                _seeded(images, count, trial) if rows is None else _official(images, count, rows, trial)
                for trial in range(trials)
            ]
            protocols.append(Protocol(f"{mode} {shots}", "sysu", gallery, query, galleries))
    return protocols


PROTOCOLS = {"sysu": sysu_protocols}
"""Layout -> its protocols."""


def evaluate_protocol(protocol: Protocol, embeddings: Tensor, records: Sequence[ImageRecord]) -> Result:
    """One protocol; see `evaluate_protocols`."""
    return evaluate_protocols([protocol], embeddings, records)[0]


def evaluate_protocols(
    protocols: Sequence[Protocol], embeddings: Tensor, records: Sequence[ImageRecord]
) -> list[Result]:
    """Ranks the galleries of every trial by Euclidean distance and averages over the trials.

    Protocols with the same queries share one computation of the distances, so give them together.

    Args:
        protocols: made from `records`.
        embeddings: (records, dimensions) floating point, finite; row i is the embedding of record i.
        records: of one split.

    Raises:
        CsviError: embeddings of another shape or not finite, or no query with a match.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(records):
        raise CsviError(
            f"embeddings have shape {tuple(embeddings.shape)}: they must be ({len(records)}, dimensions), "
            "one row for each image"
        )
    if not embeddings.is_floating_point() or not embeddings.isfinite().all():
        raise CsviError("embeddings hold NaN, infinity or something other than floats: has the model diverged?")
    embeddings = embeddings.detach().float() if embeddings.itemsize < 4 else embeddings.detach()
    identity = torch.tensor([record.identity for record in records], device=embeddings.device)
    camera = torch.tensor([record.camera for record in records], device=embeddings.device)
    by_query: dict[tuple[int, ...], list[Protocol]] = {}
    for protocol in protocols:
        by_query.setdefault(tuple(protocol.query), []).append(protocol)
    scores = {
        id(protocol): trials
        for query, group in by_query.items()
        for protocol, trials in zip(group, _score_trials(group, query, embeddings, identity, camera), strict=True)
    }
    return [_result(protocol, scores[id(protocol)]) for protocol in protocols]


def _score_trials(
    protocols: Sequence[Protocol], query: Sequence[int], embeddings: Tensor, identity: Tensor, camera: Tensor
) -> list[list[Score]]:
    """Scores of every trial of protocols that share their queries; distances are computed once, a block at a time."""
    device = embeddings.device
    queries = torch.tensor(query, device=device)
    indices = [[torch.tensor(images, device=device) for images in protocol.galleries] for protocol in protocols]
    pool = torch.cat([images for trials in indices for images in trials]).unique()
    columns = [[torch.searchsorted(pool, images) for images in trials] for trials in indices]
    galleries = [[index_gallery(identity[images], camera[images]) for images in trials] for trials in indices]
    ranks: list[list[list[Ranks]]] = [[[] for _ in trials] for trials in indices]
    rows = rows_of_block(len(pool))
    distances = euclidean(embeddings[queries], embeddings[pool], rows)
    for block, distance in zip(queries.split(rows), distances, strict=True):
        with one_thread():
            for p, protocol in enumerate(protocols):
                for t, gallery in enumerate(galleries[p]):
                    seen = distance.index_select(1, columns[p][t])
                    ranks[p][t].append(rank(seen, identity[block], camera[block], gallery, RULES[protocol.rules]))
    return [
        [
            summarize(blocks, gallery, RULES[protocol.rules])
            for blocks, gallery in zip(ranks[p], galleries[p], strict=True)
        ]
        for p, protocol in enumerate(protocols)
    ]


def _result(protocol: Protocol, trials: Sequence[Score]) -> Result:
    figures = {f"R{r}": [float(score.cmc[min(r, len(score.cmc)) - 1]) for score in trials] for r in REPORTED_RANKS}
    figures["mAP"] = [score.mAP for score in trials]
    figures["mINP"] = [score.mINP for score in trials]
    return Result(
        protocol=protocol.name,
        rules=protocol.rules,
        gallery=protocol.gallery,
        queries=len(protocol.query),
        valid=min(score.valid for score in trials),
        gallery_images=min(len(images) for images in protocol.galleries),
        chance=fmean(score.chance for score in trials),
        figures={name: Spread(fmean(f), stdev(f) if len(f) > 1 else 0.0, f) for name, f in figures.items()},
    )


def _by_identity_and_camera(records: Sequence[ImageRecord]) -> dict[tuple[int, int], list[int]]:
    """(identity, camera) → visible records by path; keys sorted, which is the order that galleries are drawn in."""
    images: dict[tuple[int, int], list[int]] = {}
    visible = (i for i, record in enumerate(records) if record.modality == Modality.VISIBLE)
    for i in sorted(visible, key=lambda i: (records[i].identity, records[i].camera, records[i].path)):
        images.setdefault((records[i].identity, records[i].camera), []).append(i)
    return images


def _seeded(images: dict[tuple[int, int], list[int]], shots: int, trial: int) -> list[int]:
    """One shot by Python's generator, as public code draws; more by NumPy's legacy one, whose stream never changes."""
    if shots == 1:
        choose = random.Random(trial)
        return [choose.choice(indices) for indices in images.values()]
    draw = np.random.RandomState(trial)
    return [
        indices[i]
        for indices in images.values()
        for i in draw.choice(len(indices), min(shots, len(indices)), replace=False)
    ]


def _official(
    images: dict[tuple[int, int], list[int]], shots: int, rows: dict[tuple[int, int], NDArray[np.int64]], trial: int
) -> list[int]:
    return [indices[i - 1] for key, indices in images.items() for i in rows[key][trial, :shots]]


def _official_rows(
    file: str | os.PathLike[str] | None, images: dict[tuple[int, int], list[int]], trials: int
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """(identity, camera) → (at least trials, images) permutations of 1…images, checked against the images there are."""
    if file is None:
        raise CsviError("official galleries need the permutations of SYSU-MM01, exp/rand_perm_cam.mat: give its path")
    file = Path(file).expanduser()
    if not file.is_file():
        raise CsviError(f"no {file}: copy it from SYSU-MM01, or evaluate on seeded galleries")
    try:
        cameras = scipy.io.loadmat(file)["rand_perm_cam"].ravel()
    except Exception as error:  # scipy raises whatever its parser stumbles on
        raise CsviError(f"cannot read rand_perm_cam in {file} ({error}): copy it from SYSU-MM01 again") from error
    rows = {}
    for (identity, camera), indices in images.items():
        try:
            row = np.asarray(cameras[camera - 1].ravel()[identity - 1])
        except (IndexError, AttributeError) as error:
            raise CsviError(
                f"{file} has nothing of identity {identity} in cam{camera}: is it of this dataset?"
            ) from error
        expected = np.arange(1, len(indices) + 1)
        if row.dtype.kind not in "iuf" or row.shape[1:] != expected.shape or (np.sort(row) != expected).any():
            raise CsviError(
                f"{file} holds no permutations of the {len(indices)} images of cam{camera}/{identity:04d}: "
                "are images missing, or is it of another dataset?"
            )
        if len(row) < trials:
            raise CsviError(f"{file} has {len(row)} official trials, not {trials}: ask for {len(row)} at most")
        rows[identity, camera] = row.astype(np.int64)
    return rows

"""CMC, mAP, mINP and further metrics of many queries, under the rules that the field's benchmarks attach to them.

What goes in is how far every query is from every gallery image, and who and where each of them is. No gallery is
sorted: the position of a match is a count (how many others are at most as far), and so is the first occurrence of an
identity. Equal distances have one meaning: a match that ties with a wrong image stands behind it. A model that maps
every image to one point is then the worst there is, not the best. Metrics are defined in `csvi.evaluate.definition`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from csvi.compiled import compiled, kept
from csvi.errors import CsviError, NothingToScoreError
from csvi.evaluate.definition import METRICS, Metric, Ranking, chance
from csvi.evaluate.protocols import DISTRACTOR, NO_RULES, Rules

BLOCK = 2**24
"""Distances computed at a time, where embeddings are given: 64 MB of float32."""
PARTS = 4
"""Parts of its share that a thread ranks one by one, so that no thread waits long for a slower one."""
WORTH_THREADS = 2**16
"""Distances from which on several threads rank them: fewer are ranked before threads have started."""


@dataclass(frozen=True)
class Gallery:
    """A gallery sorted by identity, so that each identity's images are a slice."""

    identities: NDArray[np.int64]
    """(identities,) each once, sorted."""
    start: NDArray[np.int64]
    """(identities + 1,) identity i has the images start[i] … start[i + 1] - 1."""
    camera: NDArray[np.int64]
    """(gallery,) of every image."""
    column: NDArray[np.int64]
    """(gallery,) where every image is found in a row of distances."""


@dataclass(frozen=True)
class Ranks:
    """The metrics of each query. A query without a match in its gallery has 0 everywhere."""

    first: Tensor
    """(queries,) rank of the first match, from 1; among identities or images, as the rules say."""
    chance: Tensor
    """(queries,) float64, R1 expected of a random order."""
    metrics: Mapping[str, Tensor]
    """Key of `METRICS` → (queries,) float64."""

    @classmethod
    def join(cls, blocks: Sequence["Ranks"]) -> "Ranks":
        """One block of queries after the other."""
        return cls(
            torch.cat([block.first for block in blocks]),
            torch.cat([block.chance for block in blocks]),
            {name: torch.cat([block.metrics[name] for block in blocks]) for name in blocks[0].metrics},
        )


@dataclass(frozen=True)
class Score:
    """Means over the queries that have a match in their gallery; fractions from 0 to 1."""

    cmc: Tensor
    """(ranks,) float64, rank 1 first: share of queries whose first match has rank 1, at most 2, …; as many ranks as the
    gallery has identities or, where CMC is not over unique identities, images."""
    metrics: dict[str, float]
    """Each of `METRICS`: R1, R10, R20, mAP, mINP."""
    valid: int
    """Queries counted."""
    chance: float
    """R1 expected of a random ranking."""


def score(
    distance: Tensor | ArrayLike,
    query_identity: Tensor | ArrayLike,
    gallery_identity: Tensor | ArrayLike,
    query_camera: Tensor | ArrayLike | None = None,
    gallery_camera: Tensor | ArrayLike | None = None,
    *,
    rules: Rules = NO_RULES,
) -> Score:
    """Score one gallery, given how far it is from the queries.

    Args:
        distance: (queries, gallery), smaller is nearer; any real type, finite.
        query_identity: (queries,) integers.
        gallery_identity: (gallery,) integers, in the same numbering.
        query_camera: (queries,) integers; needed if the rules remove gallery images by camera.
        gallery_camera: (gallery,) integers; likewise.
        rules: of the dataset, such as `Sysu.rules`; by default no image is removed and CMC is over images.

    Raises:
        CsviError: shapes that do not fit, distances that are not finite, missing cameras, or no query with a match.

    Of the identities 5, 7, 4, ranked in this order, the second is right; of the images the third would be:

    >>> score([[0.1, 0.2, 0.3, 0.4, 0.5]], [7], [5, 5, 7, 4, 7], rules=Rules(unique_identities=True)).cmc.tolist()
    [0.0, 1.0, 1.0]
    """
    values = _numbers(distance, "distance", "queries, gallery")
    labels = query_identity, gallery_identity, query_camera, gallery_camera
    return _score(values.split, values.shape, *labels, rules)


def score_embeddings(
    query: Tensor | ArrayLike,
    gallery: Tensor | ArrayLike,
    query_identity: Tensor | ArrayLike,
    gallery_identity: Tensor | ArrayLike,
    query_camera: Tensor | ArrayLike | None = None,
    gallery_camera: Tensor | ArrayLike | None = None,
    *,
    rules: Rules = NO_RULES,
) -> Score:
    """Score one gallery by Euclidean distance between embeddings, as `score` does, without holding all distances.

    Args:
        query: (queries, dimensions), any real type, finite; distances are computed on its device.
        gallery: (gallery, dimensions), likewise. Other arguments are those of `score`.

    Raises:
        CsviError: as `score` does; or embeddings that are not finite, or of different dimensions.

    >>> score_embeddings([[0.0, 1.0]], [[0.0, 3.0], [0.0, 2.0]], [7], [5, 7]).metrics["mAP"]
    1.0
    """
    query = _numbers(query, "query", "queries, dimensions")
    gallery = _numbers(gallery, "gallery", "gallery, dimensions")
    if query.shape[1] != gallery.shape[1]:
        raise CsviError(
            f"query embeddings have {query.shape[1]} dimensions, gallery embeddings {gallery.shape[1]}: "
            "they must come from the same model"
        )
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    blocks = partial(euclidean, query.to(dtype), gallery.to(query.device, dtype))
    labels = query_identity, gallery_identity, query_camera, gallery_camera
    return _score(blocks, (len(query), len(gallery)), *labels, rules)


def euclidean(query: Tensor, gallery: Tensor, rows: int) -> Iterator[Tensor]:
    """Distances of (queries, dimensions) to (gallery, dimensions), `rows` queries at a time: (rows, gallery) blocks.

    A gallery embedding serves as the origin, so that near-identical embeddings do not drown in rounding and identical
    ones have exactly equal distances. Raises `CsviError` if the squares of distances overflow.
    """
    origin = gallery[0]
    gallery = gallery - origin
    length = gallery.square().sum(1)
    for block in query.split(rows):
        block = block - origin
        of_query = block.square().sum(1)
        if not (4 * torch.maximum(length.max(), of_query.max())).isfinite():  # |q - g|² ≤ 2|q|² + 2|g|²
            raise CsviError(f"embeddings are so large that their distances overflow {length.dtype}: scale them down")
        squared = torch.addmm(length, block, gallery.T, alpha=-2).add_(of_query[:, None])
        yield squared.clamp_(min=0).sqrt_()


def removed(
    query_identity: Tensor, query_camera: Tensor, gallery_identity: Tensor, gallery_camera: Tensor, rules: Rules
) -> Tensor:
    """(queries, gallery) bool: which gallery images a query does not see."""
    mask = query_camera.new_zeros((), dtype=torch.bool).expand(len(query_camera), len(gallery_camera))
    for of_query, of_gallery in rules.same_place:
        mask = mask | ((query_camera == of_query)[:, None] & (gallery_camera == of_gallery))
    if rules.same_camera:
        same_identity = query_identity[:, None] == gallery_identity
        mask = mask | (same_identity & (query_camera[:, None] == gallery_camera))
    return mask


def hidden(query_camera: Tensor, gallery_camera: Tensor, rules: Rules) -> Tensor:
    """(queries, gallery) bool: which gallery images a query may not see, as far as can be told knowing nobody.

    Where images of the query's own identity and camera are removed, that is every image of its camera.
    """
    one_person = torch.zeros_like(query_camera), torch.zeros_like(gallery_camera)
    return removed(one_person[0], query_camera, one_person[1], gallery_camera, rules)


def index_gallery(identity: Tensor, camera: Tensor, column: Tensor | None = None) -> Gallery:
    """Sort a gallery by identity; all are (gallery,), `column` as in `Gallery` and by default in this order."""
    order = identity.argsort(stable=True)
    identities, size = identity.unique(return_counts=True)
    start = torch.nn.functional.pad(size.cumsum(0), (1, 0))
    column = order if column is None else column[order]
    return Gallery(*(values.cpu().numpy() for values in (identities, start, camera[order], column)))


def rank(distance: Tensor, query_identity: Tensor, query_camera: Tensor, gallery: Gallery, rules: Rules) -> Ranks:
    """Rank one gallery for some queries, whose labels are (queries,) integers.

    The distances, (queries, images) float32 or float64, are finite; the gallery is `gallery.column` of the images.
    """
    rows = distance.contiguous().cpu().numpy()
    identity, camera = query_identity.cpu().numpy(), query_camera.cpu().numpy()
    group = np.searchsorted(gallery.identities, identity).clip(max=len(gallery.identities) - 1)
    group[(gallery.identities[group] != identity) | (identity == DISTRACTOR)] = -1
    of_gallery = gallery.column, gallery.camera, gallery.start
    same_place = np.array(rules.same_place, np.int64).reshape(-1, 2)
    of_rules = same_place, rules.same_camera, rules.unique_identities
    room = np.where(group < 0, 0, np.diff(gallery.start)[group])
    begin, positions = room.cumsum() - room, np.empty(room.sum(), np.int64)
    matches, first, seen = np.zeros((3, len(rows)), np.int64)
    functions = [_machine_code(metric) for metric in (chance, *METRICS.values())]
    values = np.zeros((len(functions), len(rows)))

    threads = torch.get_num_threads() if rows.size >= WORTH_THREADS else 1
    size = -(-len(rows) // (threads * PARTS))

    def work(part: slice) -> None:
        found = positions, begin[part], matches[part], first[part], seen[part]
        _rank_rows(rows[part], group[part], camera[part], *of_gallery, *of_rules, *found)
        for function, value in zip(functions, values, strict=True):
            _measure(function, *found, value[part])

    if threads == 1:
        work(slice(None))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [slice(start, start + size) for start in range(0, len(rows), size)]))
    of_chance, *of_metrics = map(torch.from_numpy, values)
    return Ranks(torch.from_numpy(first), of_chance, dict(zip(METRICS, of_metrics, strict=True)))


@functools.cache
def _machine_code(metric: Metric) -> Any:
    """A metric as a function of C, which compiled loops call whatever it computes."""
    ranking = numba.typeof(Ranking(np.empty(0, np.int64), 0, 0))  # type: ignore[arg-type]
    return kept(partial(numba.cfunc, numba.float64(ranking)), metric)


@compiled
def _measure(
    metric: Any,
    positions: NDArray[np.int64],
    begin: NDArray[np.int64],
    matches: NDArray[np.int64],
    first: NDArray[np.int64],
    seen: NDArray[np.int64],
    value: NDArray[np.float64],
) -> None:  # pragma: no cover
    """Fill in a metric of each query that has a match; what was found of them is as `_rank_rows` leaves it."""
    for q in range(len(value)):
        if matches[q] > 0:
            own = positions[begin[q] : begin[q] + matches[q]]
            value[q] = metric(Ranking(own, first[q], seen[q]))  # type: ignore[arg-type]


@compiled
def _rank_rows(
    distance: NDArray[np.floating],
    query_group: NDArray[np.int64],
    query_camera: NDArray[np.int64],
    column: NDArray[np.int64],
    camera: NDArray[np.int64],
    start: NDArray[np.int64],
    same_place: NDArray[np.int64],
    same_camera: bool,
    unique_identities: bool,
    positions: NDArray[np.int64],
    begin: NDArray[np.int64],
    matches: NDArray[np.int64],
    first: NDArray[np.int64],
    seen: NDArray[np.int64],
) -> None:  # pragma: no cover
    """Find the `Ranking` of each query: its positions, `matches` of them from `begin` on, and the first and the seen.

    What is filled in must be zero, but for the positions. A query that is nobody of the gallery has the group -1. The
    compiler turns each loop over the gallery into vector instructions. To go through it once for each match is faster
    than to sort it, for up to some thousand of them.
    """
    others = np.empty(len(column), distance.dtype)
    for q in range(len(distance)):
        if query_group[q] < 0:
            continue
        for j in range(len(column)):
            others[j] = distance[q, column[j]]
        for p in range(len(same_place)):
            if query_camera[q] == same_place[p, 0]:
                for j in range(len(column)):
                    others[j] = np.inf if camera[j] == same_place[p, 1] else others[j]
        own, end = start[query_group[q]], start[query_group[q] + 1]
        if same_camera:
            for j in range(own, end):
                others[j] = np.inf if camera[j] == query_camera[q] else others[j]
        relevant = others[own:end][others[own:end] < np.inf]
        if len(relevant) == 0:
            continue
        relevant.sort()
        others[own:end] = np.inf

        visible = len(relevant)
        for j in range(len(others)):
            visible += others[j] < np.inf
        matches[q], seen[q] = len(relevant), visible
        # position = how many are relevant and not behind it + how many of the others are at most as far
        for n in range(len(relevant)):
            position = n + 1
            for j in range(len(others)):
                position += others[j] <= relevant[n]
            positions[begin[q] + n] = position
        first[q] = positions[begin[q]]
        if unique_identities:  # how many of the other identities have an image that is at most as far
            first[q] = 1
            for i in range(len(start) - 1):
                ahead = False
                for j in range(start[i], start[i + 1]):
                    ahead |= others[j] <= relevant[0]
                first[q] += ahead


def summarize(ranks: Ranks, gallery: Gallery, rules: Rules) -> Score:
    """Means over the queries that have a match in `gallery`; raises `NothingToScoreError` if none has."""
    counted = ranks.first > 0
    valid = int(counted.sum())
    if not valid:
        raise NothingToScoreError(
            f"none of {len(counted)} queries has an image of its identity in the gallery: nothing to score"
        )
    longest = len(gallery.identities if rules.unique_identities else gallery.column)
    cmc = torch.bincount(ranks.first[counted] - 1, minlength=longest).cumsum(0).double() / valid
    means = {name: float(values.sum() / valid) for name, values in ranks.metrics.items()}
    return Score(cmc, means, valid, float(ranks.chance.sum() / valid))


def rows_of_block(gallery: int) -> int:
    """Queries to work on at a time, for a gallery of so many images."""
    return max(1, BLOCK // gallery)


def _score(
    blocks: Callable[[int], Iterable[Tensor]],
    shape: Sequence[int],
    query_identity: Tensor | ArrayLike,
    gallery_identity: Tensor | ArrayLike,
    query_camera: Tensor | ArrayLike | None,
    gallery_camera: Tensor | ArrayLike | None,
    rules: Rules,
) -> Score:
    """Score a gallery; `blocks` yields the distances, of `shape`, so many rows at a time."""
    who = _labels(query_identity, "query_identity", shape)
    identity = _labels(gallery_identity, "gallery_identity", shape)
    where, camera = torch.zeros_like(who), torch.zeros_like(identity)
    if rules.needs_cameras:
        if query_camera is None or gallery_camera is None:
            raise CsviError("the rules remove gallery images by camera: give query_camera and gallery_camera")
        where = _labels(query_camera, "query_camera", shape)
        camera = _labels(gallery_camera, "gallery_camera", shape)
    gallery = index_gallery(identity, camera)
    rows = rows_of_block(shape[1])
    parts = zip(blocks(rows), who.split(rows), where.split(rows), strict=True)
    return summarize(Ranks.join([rank(*part, gallery, rules) for part in parts]), gallery, rules)


def _numbers(values: Tensor | ArrayLike, name: str, axes: str) -> Tensor:
    """A matrix of finite numbers, in at least 32 bits."""
    numbers = _tensor(values, name)
    if numbers.ndim != 2 or not numbers.numel():
        raise CsviError(f"{name} has shape {tuple(numbers.shape)}: it must be ({axes}), with one of each")
    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise CsviError(f"{name} holds {numbers.dtype}: it must hold real numbers")
    if not numbers.isfinite().all():
        raise CsviError(f"{name} holds NaN or infinity: has the model that it comes from diverged?")
    if not numbers.is_floating_point():
        return numbers.double()
    return numbers.float() if numbers.itemsize < 4 else numbers


def _labels(labels: Tensor | ArrayLike, name: str, shape: Sequence[int]) -> Tensor:
    count, what = (shape[0], "query") if name.startswith("query") else (shape[1], "gallery image")
    values = _tensor(labels, name)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise CsviError(f"{name} holds {values.dtype}: it must hold integers")
    if values.shape != (count,):
        raise CsviError(f"{name} has shape {tuple(values.shape)}: it must have one entry for each {what}, ({count},)")
    return values.to("cpu", torch.int64)


def _tensor(values: Tensor | ArrayLike, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise CsviError(f"{name} is not an array of numbers ({error})") from error

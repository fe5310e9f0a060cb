"""CMC, mAP and mINP of a ranking, under the rules that the benchmarks of the field attach to them.

Everything works on plain tensors: a distance of every query to every gallery image, and who and where each of them is.
No gallery is ranked image by image. The position of a relevant image is a count (how many others are at most as far),
the first occurrence of an identity is a minimum, and equal distances have one meaning: a match that ties with a wrong
image stands behind it. A model that maps every image to one point is then the worst there is, not the best.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from csvi.errors import CsviError

BLOCK = 2**22
"""Distances ranked at a time, which bounds the working memory to some 150 MB."""


@dataclass(frozen=True)
class Rules:
    """What a protocol asks of the metrics, beside their definition."""

    same_place: tuple[tuple[int, int], ...] = ()
    """(query camera, gallery camera): a query of the one sees no gallery image of the other, whoever is in it."""
    same_camera: bool = False
    """Gallery images of the query's identity and camera are removed."""
    unique_identities: bool = False
    """CMC over identities: of each, only the first occurrence in the ranking is kept. mAP and mINP are over images."""

    @property
    def needs_cameras(self) -> bool:
        """Whether the ranking depends on cameras at all."""
        return bool(self.same_place) or self.same_camera


RULES = {
    # Wu et al., ICCV 2017: cameras 2 and 3 stand at the same place
    "sysu": Rules(same_place=((3, 2),), unique_identities=True),
    # Nguyen et al., Sensors 2017; evaluated as in Ye et al., AAAI 2018
    "regdb": Rules(),
    # Zhang and Wang, CVPR 2023
    "llcm": Rules(same_camera=True, unique_identities=True),
    # people's own images
    "folder": Rules(same_camera=True),
}
"""Protocol → its rules."""


@dataclass(frozen=True)
class Gallery:
    """A gallery sorted by identity, so that the images of one identity are found without a search."""

    identity: Tensor
    """(gallery,) of every image."""
    camera: Tensor
    """(gallery,) of every image."""
    identities: Tensor
    """(identities,) each once, sorted."""
    group: Tensor
    """(gallery,) index of every image's identity in `identities`."""
    size: Tensor
    """(identities,) number of images."""
    start: Tensor
    """(identities,) where its images begin in `order`."""
    order: Tensor
    """(gallery,) images by identity."""


@dataclass(frozen=True)
class Ranks:
    """What the metrics need to know of each query. A query with nothing relevant in its gallery has 0 everywhere."""

    first: Tensor
    """(queries,) rank of the first match, from 1; among identities or images, as the rules say."""
    precision: Tensor
    """(queries,) average precision: mean over the relevant images of (rank among relevant / position)."""
    penalty: Tensor
    """(queries,) inverse negative penalty: number of relevant images / position of the last of them."""
    chance: Tensor
    """(queries,) probability that a random ranking begins with a match: share of relevant images among those seen."""

    @classmethod
    def join(cls, blocks: Sequence["Ranks"]) -> "Ranks":
        """One after the other."""
        return cls(*(torch.cat([getattr(block, f.name) for block in blocks]) for f in fields(cls)))


@dataclass(frozen=True)
class Score:
    """Means over the queries that have something relevant in their gallery; fractions from 0 to 1."""

    cmc: Tensor
    """(ranks,) float64, rank 1 first: share of queries whose first match has rank 1, at most 2, …; as many ranks as the
    gallery has identities or, where CMC is not over unique identities, images."""
    mAP: float
    """Mean average precision."""
    mINP: float
    """Mean inverse negative penalty (Ye et al., TPAMI 2021)."""
    valid: int
    """Queries counted."""
    chance: float
    """Expected rank-1 of a random ranking."""


def score(
    distance: Tensor | ArrayLike,
    query_identity: Tensor | ArrayLike,
    gallery_identity: Tensor | ArrayLike,
    query_camera: Tensor | ArrayLike | None = None,
    gallery_camera: Tensor | ArrayLike | None = None,
    *,
    protocol: str = "sysu",
) -> Score:
    """Scores one gallery, given how far it is from the queries.

    Args:
        distance: (queries, gallery), smaller is nearer; any real type, finite.
        query_identity: (queries,) integers.
        gallery_identity: (gallery,) integers, in the same numbering.
        query_camera: (queries,) integers; needed by `sysu` and `llcm`.
        gallery_camera: (gallery,) integers; needed by `sysu` and `llcm`.
        protocol: `sysu`, `regdb` or `llcm`, a key of `RULES`.

    Raises:
        CsviError: shapes that do not fit, distances that are not finite, missing cameras, an unknown protocol, or no
            query with a match.

    One query of person 7 and, in order, the gallery 5, 5, 7, 4, 7. The matches stand at positions 3 and 5:
    AP = (1/3 + 2/5) / 2 and INP = 2/5. Of the identities 5, 7, 4 the second is right, of the images the third:

    >>> s = score([[0.1, 0.2, 0.3, 0.4, 0.5]], [7], [5, 5, 7, 4, 7], [6], [1, 2, 1, 1, 2], protocol="sysu")
    >>> s.cmc.tolist(), round(s.mAP, 4), round(s.mINP, 4), s.valid
    ([0.0, 1.0, 1.0], 0.3667, 0.4, 1)
    >>> score([[0.1, 0.2, 0.3, 0.4, 0.5]], [7], [5, 5, 7, 4, 7], protocol="regdb").cmc.tolist()
    [0.0, 0.0, 1.0, 1.0, 1.0]
    """
    if protocol not in RULES:
        raise CsviError(f"unknown protocol {protocol!r}: choose one of {', '.join(RULES)}")
    rules = RULES[protocol]
    distance = _distances(distance)
    query_identity = _labels(query_identity, "query_identity", distance, axis=0)
    gallery_identity = _labels(gallery_identity, "gallery_identity", distance, axis=1)
    if rules.needs_cameras:
        if query_camera is None or gallery_camera is None:
            raise CsviError(f"{protocol!r} removes gallery images by camera: give query_camera and gallery_camera")
        query_camera = _labels(query_camera, "query_camera", distance, axis=0)
        gallery_camera = _labels(gallery_camera, "gallery_camera", distance, axis=1)
    else:
        query_camera, gallery_camera = torch.zeros_like(query_identity), torch.zeros_like(gallery_identity)
    gallery = index_gallery(gallery_identity, gallery_camera)
    rows = rows_of_block(distance.shape[1])
    blocks = zip(distance.split(rows), query_identity.split(rows), query_camera.split(rows), strict=True)
    with one_thread():
        return summarize([rank(*block, gallery, rules) for block in blocks], gallery, rules)


def euclidean(query: Tensor, gallery: Tensor, rows: int) -> Iterator[Tensor]:
    """Distances of (queries, dimensions) to (gallery, dimensions), `rows` queries at a time: (rows, gallery) blocks.

    A gallery embedding serves as the origin: it moves nothing, but keeps near-identical embeddings from drowning in
    rounding, and makes the distances of identical ones exactly equal.
    """
    query, gallery = query - gallery[0], gallery - gallery[0]
    length = gallery.square().sum(1)
    for block in query.split(rows):
        squared = torch.addmm(length, block, gallery.T, alpha=-2).add_(block.square().sum(1)[:, None])
        yield squared.clamp_(min=0).sqrt_()


def removed(
    query_identity: Tensor, query_camera: Tensor, gallery_identity: Tensor, gallery_camera: Tensor, rules: Rules
) -> Tensor:
    """(queries, gallery) bool: which gallery images a query does not see."""
    mask = _same_place(query_camera, gallery_camera, rules)
    if rules.same_camera:
        same_identity = query_identity[:, None] == gallery_identity
        mask = mask | (same_identity & (query_camera[:, None] == gallery_camera))
    return mask


def hidden(query_camera: Tensor, gallery_camera: Tensor, rules: Rules) -> Tensor:
    """(queries, gallery) bool: which gallery images a query may not see, as far as can be told knowing nobody.

    Where images of the query's own identity and camera are removed, that is every image of its camera.
    """
    mask = _same_place(query_camera, gallery_camera, rules)
    return mask | (query_camera[:, None] == gallery_camera) if rules.same_camera else mask


def _same_place(query_camera: Tensor, gallery_camera: Tensor, rules: Rules) -> Tensor:
    mask = query_camera.new_zeros((), dtype=torch.bool).expand(len(query_camera), len(gallery_camera))
    for of_query, of_gallery in rules.same_place:
        mask = mask | ((query_camera == of_query)[:, None] & (gallery_camera == of_gallery))
    return mask


def index_gallery(identity: Tensor, camera: Tensor) -> Gallery:
    """Sorts a gallery by identity; `identity` and `camera`: (gallery,) integers."""
    identities, group, size = identity.unique(return_inverse=True, return_counts=True)
    return Gallery(identity, camera, identities, group, size, size.cumsum(0) - size, identity.argsort(stable=True))


def rank(distance: Tensor, query_identity: Tensor, query_camera: Tensor, gallery: Gallery, rules: Rules) -> Ranks:
    """Ranks one gallery for a block of queries, small enough to be worked on at once (see `rows_of_block`).

    Args:
        distance: (queries, gallery) floating point, finite; left as it is.
        query_identity, query_camera: (queries,) integers.
    """
    gone = removed(query_identity, query_camera, gallery.identity, gallery.camera, rules)
    distance = distance.masked_fill(gone, torch.inf)

    # the relevant images, nearest first: (queries, most that one query has), padded with infinity
    group = torch.searchsorted(gallery.identities, query_identity).clamp_(max=len(gallery.identities) - 1)
    size = gallery.size[group] * (gallery.identities[group] == query_identity)
    slot = torch.arange(max(1, int(size.max())), device=distance.device)
    present = slot < size[:, None]
    column = gallery.order[gallery.start[group][:, None] + slot * present]
    relevant = distance.gather(1, column).masked_fill_(~present, torch.inf).sort(1).values
    count = relevant.isfinite().sum(1)
    valid = count > 0

    # position = how many are relevant and not behind it + how many of the others are at most as far
    others = _sort_rows(distance.scatter(1, column, torch.inf))
    position = slot + 1 + torch.searchsorted(others, relevant, right=True)
    precision = ((slot + 1) / position * relevant.isfinite()).sum(1) / count.clamp(min=1)
    last = position.gather(1, (count - 1).clamp_(min=0)[:, None]).squeeze(1)
    if rules.unique_identities:
        # first occurrence of every identity: (identities, queries), which is faster than its transpose
        nearest = distance.new_full((len(gallery.identities), len(distance)), torch.inf)
        nearest.scatter_reduce_(0, gallery.group[:, None].expand(-1, len(distance)), distance.T.contiguous(), "amin")
        first = (nearest <= relevant[:, 0]).sum(0)  # itself among them
    else:
        first = position[:, 0]
    return Ranks(first * valid, precision * valid, count / last * valid, count / (~gone).sum(1).clamp(min=1))


def summarize(blocks: Sequence[Ranks], gallery: Gallery, rules: Rules) -> Score:
    """Means over the queries of `blocks` that have something relevant in `gallery`.

    Raises:
        CsviError: no query has.
    """
    first = torch.cat([block.first for block in blocks]).cpu()
    counted = first > 0
    valid = int(counted.sum())
    if not valid:
        raise CsviError(f"none of {len(first)} queries has an image of its identity in the gallery: nothing to score")
    longest = len(gallery.identities if rules.unique_identities else gallery.identity)
    cmc = torch.bincount(first[counted] - 1, minlength=longest).cumsum(0).double() / valid

    def mean(name: str) -> float:
        return float(torch.cat([getattr(block, name) for block in blocks]).cpu().double().sum() / valid)

    return Score(cmc, mean("precision"), mean("penalty"), valid, mean("chance"))


def rows_of_block(gallery: int) -> int:
    """How many queries to work on at a time, for a gallery of so many images."""
    return max(1, BLOCK // gallery)


@contextmanager
def one_thread() -> Iterator[None]:
    """Ranking is many small operations: on idle cores threads save a quarter of its time, on busy ones, where each
    operation waits for a thread to be given a core, they take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _sort_rows(values: Tensor) -> Tensor:
    """NumPy sorts floats with vector instructions; torch, which sorts an index along, takes ten times as long."""
    return torch.from_numpy(np.sort(values.numpy(), axis=1)) if values.device.type == "cpu" else values.sort(1).values


def _distances(distance: Tensor | ArrayLike) -> Tensor:
    values = _tensor(distance, "distance")
    if values.ndim != 2 or not values.numel():
        raise CsviError(f"distance has shape {tuple(values.shape)}: it must be (queries, gallery), with one of each")
    if values.is_complex() or values.dtype == torch.bool:
        raise CsviError(f"distance holds {values.dtype}: it must hold real numbers")
    if not values.isfinite().all():
        raise CsviError("distance holds NaN or infinity: check the embeddings that it was computed from")
    if not values.is_floating_point():
        return values.double()
    return values.float() if values.itemsize < 4 else values


def _labels(labels: Tensor | ArrayLike, name: str, distance: Tensor, axis: int) -> Tensor:
    values = _tensor(labels, name)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise CsviError(f"{name} holds {values.dtype}: it must hold integers")
    if values.shape != distance.shape[axis : axis + 1]:
        raise CsviError(
            f"{name} has shape {tuple(values.shape)}, but distance is {tuple(distance.shape)}: "
            f"it must have one entry for each {'query' if axis == 0 else 'gallery image'}, ({distance.shape[axis]},)"
        )
    return values.to(distance.device, torch.int64)


def _tensor(values: Tensor | ArrayLike, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    try:
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise CsviError(f"{name} is not an array of numbers ({error})") from error

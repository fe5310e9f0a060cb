"""Query expansion and re-ranking, which refine a ranking by distance. Off by default, and named in every result.

Both look at the gallery as a whole: a query's ranking then depends on who else is there, and re-ranking also on who
else is asked for. A system that answers one query at a time would not reach these metrics.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from csvi.errors import CsviError
from csvi.evaluate.metrics import BLOCK, euclidean, rows_of_block
from csvi.machine import available_memory


@dataclass(frozen=True)
class Refinement:
    """Techniques that refine a ranking, with their settings; the defaults of re-ranking are its paper's.

    Raises:
        CsviError: a setting is out of its range.
    """

    rerank: bool = False
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""
    expand: int = 0
    """Gallery neighbours that a query is averaged with (query expansion, Radenović et al., TPAMI 2019); 0 for none."""
    alpha: float = 3.0
    """Power of the similarities that neighbours are weighted with; 0 weighs all of them as much as the query."""
    k1: int = 20
    """Neighbours that must name each other; half as many for the neighbours of neighbours."""
    k2: int = 6
    """Images, the first being itself, that an image's set of neighbours is averaged over; 1 for none but itself."""
    lambda_: float = 0.3
    """Weight of the original distance; that of the Jaccard distance is the rest."""

    def __post_init__(self) -> None:
        for name, least in (("expand", 0), ("alpha", 0), ("k1", 1), ("k2", 1), ("lambda_", 0)):
            if not getattr(self, name) >= least:
                raise CsviError(f"{name} of a refinement is {getattr(self, name)}: it must be at least {least}")
        if self.lambda_ > 1:
            raise CsviError(f"lambda_ of a refinement is {self.lambda_}: it weighs two distances and is at most 1")

    def names(self) -> list[str]:
        """The techniques in words, in the order that they are applied in."""
        names = []
        if self.expand:
            names.append(f"query expansion ({self.expand} neighbours, alpha {self.alpha:g})")
        if self.rerank:
            names.append(f"k-reciprocal re-ranking (k1 {self.k1}, k2 {self.k2}, lambda {self.lambda_:g})")
        return names

    def short_names(self) -> list[str]:
        """The techniques in few words, for names of files; with settings that are not the defaults."""

        def changed(*settings: str) -> list[str]:
            given = {name: getattr(self, name) for name in settings}
            return [f"{name.rstrip('_')} {given[name]:g}" for name in given if given[name] != getattr(Refinement, name)]

        expansion = [f"query expansion {self.expand}", *changed("alpha")] if self.expand else []
        return expansion + (["k-reciprocal re-ranking", *changed("k1", "k2", "lambda_")] if self.rerank else [])


NO_REFINEMENT = Refinement()
SPARSE = 250
"""Bytes that re-ranking holds for each neighbour of an image in sparse matrices; rather more than measured."""


def refined_distances(query: Tensor, gallery: Tensor, unseen: Tensor, refinement: Refinement) -> Tensor:
    """Distances (queries, gallery) to sort by in place of the Euclidean ones, in the precision of the embeddings.

    Re-ranking knows no cameras, as in the field: among an image's neighbours may be some that the protocol removes from
    a query's ranking afterwards. It holds the distance of each image, query or gallery, to each other: 186 MB for
    SYSU-MM01's 3,803 + 3,010.

    Args:
        query: (queries, dimensions) embeddings.
        gallery: (gallery, dimensions).
        unseen: (queries, gallery) bool, see `csvi.evaluate.metrics.hidden`; queries are not expanded with these images.
        refinement: techniques; with none the distances are Euclidean.

    Raises:
        CsviError: re-ranking needs more memory than there is.
    """
    if refinement.expand:
        query = expanded_queries(query, gallery, unseen, refinement.expand, refinement.alpha)
    if refinement.rerank:
        return reranked_distances(query, gallery, refinement.k1, refinement.k2, refinement.lambda_)
    return torch.cat(list(euclidean(query, gallery, rows_of_block(len(gallery)))))


def expanded_queries(query: Tensor, gallery: Tensor, unseen: Tensor, neighbours: int, alpha: float) -> Tensor:
    """Average every query with the nearest of the gallery images that it may see: (queries, dimensions).

    The query has weight 1 and a neighbour s^alpha, where s is their cosine similarity or, if that is negative, 0.
    The sum is brought back to the length of the query, whatever that was: embeddings of P parts of length 1 keep the
    length √P, while a part that the neighbours disagree about counts for less.

    Radenović, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019.
    """
    similarity = F.normalize(query) @ F.normalize(gallery).T
    nearest = similarity.masked_fill_(unseen, -torch.inf).topk(min(neighbours, len(gallery)), dim=1)
    weight = nearest.values.clamp(min=0).pow(alpha).masked_fill(nearest.values.isneginf(), 0)
    expanded = query + (torch.zeros_like(similarity).scatter_(1, nearest.indices, weight) @ gallery)
    return F.normalize(expanded) * query.norm(dim=1, keepdim=True)


def reranked_distances(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_: float) -> Tensor:
    """k-reciprocal re-ranking: (queries, gallery) distances, blends of the original one with a Jaccard distance.

    Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. Where the paper
    leaves a choice, or code and paper differ, this does what published metrics were computed with:

    - Queries and gallery are one set, and all of its images may be neighbours. An image is its own first neighbour, so
      that N(p, k) has k + 1 members, or all images if there are no more.
    - The original distance is the squared Euclidean one; of each image, divided by the largest it has to any.
    - R(p, k1) takes in R(q, k1 / 2) if it shares *more* than 2/3 of it (the paper's Eq. 5: at least 2/3).
    - The weights exp(-d) of an image sum to 1, in which case Σ max = 2 - Σ min.
    """
    if query.device.type == "cpu":
        _check_memory(query, gallery, max(k1 + 1, k2))
    device, count, queries = query.device, len(query) + len(gallery), len(query)
    distance = _squared_distances(torch.cat([query, gallery]))
    farthest = distance.amax(1).clamp_(min=torch.finfo(distance.dtype).tiny)
    original = distance[:queries, queries:] / farthest[:queries, None]
    distance.fill_diagonal_(-1)  # itself first, even among duplicates
    ranking = distance.topk(min(max(k1 + 1, k2), count), largest=False).indices.cpu().numpy()
    distance.fill_diagonal_(0)

    sets = _k_reciprocal(ranking[:, : k1 + 1])
    halves = _k_reciprocal(ranking[:, : round(k1 / 2) + 1])
    shared = (sets @ halves.T).multiply(sets).tocoo()  # |R(p, k1) ∩ R(q, k1 / 2)| of each q in R(p, k1)
    taken = 3 * shared.data > 2 * halves.sum(1)[shared.col]
    sets = (sets + _matrix(shared.row[taken], shared.col[taken], count) @ halves).tocoo()  # R*

    image, neighbour = torch.from_numpy(sets.row).long(), torch.from_numpy(sets.col).long()
    weight = torch.exp(-distance[image.to(device), neighbour.to(device)] / farthest[image.to(device)])
    del distance
    encoded = sparse.csr_array((weight.cpu().numpy(), (sets.row, sets.col)), shape=(count, count))
    encoded = sparse.diags_array(1 / encoded.sum(1)) @ encoded
    near = ranking[:, :k2]
    encoded = _matrix(np.arange(count).repeat(near.shape[1]), near.ravel(), count) @ encoded / near.shape[1]

    smaller = torch.from_numpy(_sum_of_minima(encoded[:queries], encoded[queries:])).to(original)
    return original.mul_(lambda_).add_(1 - smaller / (2 - smaller), alpha=1 - lambda_)


def reranking_bytes(queries: int, gallery: int, dimensions: int, size: int, neighbours: int) -> int:
    """Estimate the peak memory of `reranked_distances` beside its embeddings, whose numbers have `size` bytes."""
    images, pairs = queries + gallery, queries * gallery
    computing = min(images**2, 2 * max(BLOCK, images)) + 3 * images * dimensions  # blocks, and copies of embeddings
    sparse_sets = images * neighbours * SPARSE
    all_distances = size * images**2 + max(size * computing, size * pairs + sparse_sets)
    blending = max(4 * size, 8 + 2 * size) * pairs + sparse_sets
    return max(all_distances, blending)


def _check_memory(query: Tensor, gallery: Tensor, neighbours: int) -> None:
    need = reranking_bytes(len(query), len(gallery), query.shape[1], query.element_size(), neighbours)
    available = available_memory()
    if available is not None and need > available:
        raise CsviError(
            f"re-ranking {len(query):,} queries and {len(gallery):,} gallery images compares all of these "
            f"{len(query) + len(gallery):,} with each other, which needs about {need / 1e9:,.1f} GB of memory where "
            f"{available / 1e9:,.1f} GB are available: leave --rerank away, or ask for fewer images"
        )


def _squared_distances(images: Tensor) -> Tensor:
    """Squared distance of every image to every other: (n, dimensions) → (n, n)."""
    distance = images.new_empty(len(images), len(images))
    rows = rows_of_block(len(images))
    for into, block in zip(distance.split(rows), euclidean(images, images, rows), strict=True):
        torch.square(block, out=into)
    return distance


def _k_reciprocal(neighbours: NDArray[np.int64]) -> sparse.csr_array:
    """Neighbours of each image that name it in turn: (n, n) of 0 and 1; `neighbours`: (n, k)."""
    count = len(neighbours)
    named = _matrix(np.arange(count).repeat(neighbours.shape[1]), neighbours.ravel(), count)
    return named.multiply(named.T).tocsr()


def _matrix(row: NDArray[np.int64], column: NDArray[np.int64], count: int) -> sparse.csr_array:
    """A (count, count) matrix with 1 at these places, else 0."""
    return sparse.csr_array((np.ones(len(row), np.int32), (row, column)), shape=(count, count))


def _sum_of_minima(query: sparse.csr_array, gallery: sparse.csr_array) -> NDArray[np.float64]:
    """Σ_j min(query[i, j], gallery[g, j]) of each i and g: (queries, gallery); only where both have j counts."""
    by_neighbour = gallery.tocsc()
    start, length = by_neighbour.indptr[:-1], np.diff(by_neighbour.indptr)
    total = np.empty((query.shape[0], gallery.shape[0]))
    for i in range(query.shape[0]):
        own = slice(query.indptr[i], query.indptr[i + 1])
        column = query.indices[own]
        many = length[column]
        # the entries of these columns, one column after the other
        entry = np.arange(many.sum()) + np.repeat(start[column] - many.cumsum() + many, many)
        minima = np.minimum(np.repeat(query.data[own], many), by_neighbour.data[entry])
        total[i] = np.bincount(by_neighbour.indices[entry], minima, gallery.shape[0])
    return total

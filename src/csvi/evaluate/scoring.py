"""Scores embeddings under protocols: ranks every trial, averages the metrics, and says how sure they are."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvi.errors import CsviError, NothingToScoreError
from csvi.evaluate.intervals import bootstrap, mean_and_std
from csvi.evaluate.metrics import (
    Gallery,
    Ranks,
    Score,
    euclidean,
    hidden,
    index_gallery,
    rank,
    rows_of_block,
    summarize,
)
from csvi.evaluate.protocols import GalleryDraw, LabelledImage, Protocol, Rules, Trial, camera_pairs
from csvi.evaluate.refine import NO_REFINEMENT, Refinement, refined_distances
from csvi.progress import progress

log = logging.getLogger(__name__)

Scored = tuple[Score, Ranks]
"""Score of one trial, and the ranks of its queries."""


@dataclass(frozen=True)
class Spread:
    """One metric over the trials."""

    mean: float
    std: float
    """Standard deviation of a sample (n - 1); 0 for a single trial."""
    trials: list[float]
    low: float
    high: float
    """95 % interval of the mean by bootstrap over the identities of the queries: had others been asked for, with the
    same training and the same galleries."""


@dataclass(frozen=True)
class ByIdentity:
    """The contribution of each query identity; from it come intervals, and paired differences between models."""

    identity: list[int]
    queries: list[float]
    """Queries counted, over all trials. Trials weigh the same: one with half as many queries counts each twice."""
    sums: dict[str, list[float]]
    """Metric → its sum over those queries; the mean over the queries of all identities is the metric."""


@dataclass(frozen=True)
class Result:
    """The result of a protocol; `dataclasses.asdict` makes it ready for JSON. Metrics are fractions from 0 to 1."""

    protocol: str
    gallery: GalleryDraw
    """The way the galleries were drawn; metrics of different draws cannot be compared."""
    refinements: list[str]
    """Names of what refined the rankings by distance; empty by default, as in the field."""
    queries: int
    """Queries of a trial."""
    valid: int
    """Queries counted: those with something relevant in the gallery; the fewest of all trials."""
    gallery_images: int
    """Gallery images; the fewest of all trials."""
    chance: float
    """R1 of a random ranking, mean over the trials."""
    metrics: dict[str, Spread]
    """Each of `csvi.evaluate.METRICS`: R1, R10, R20, mAP, mINP."""
    by_identity: ByIdentity = field(repr=False)


def evaluate_protocol(protocol: Protocol, embeddings: Tensor, images: Sequence[LabelledImage]) -> Result:
    """Evaluate one protocol, see `evaluate_protocols`."""
    return evaluate_protocols([protocol], embeddings, images)[0]


def evaluate_protocols(
    protocols: Sequence[Protocol],
    embeddings: Tensor,
    images: Sequence[LabelledImage],
    refinement: Refinement = NO_REFINEMENT,
) -> list[Result]:
    """Rank the galleries of every trial by Euclidean distance and average over the trials.

    Trials with the same queries share one computation of the distances, so give protocols together.

    Args:
        protocols: made from `images`.
        embeddings: (images, dimensions) floating point, finite; row i is the embedding of image i.
        images: of one split.
        refinement: re-ranking and query expansion; by default neither.

    Raises:
        CsviError: embeddings of another shape or not finite, or no query with a match under any protocol; the log says
            which protocols are left out.
    """
    embeddings = check_embeddings(embeddings, len(images))
    identity = torch.tensor([image.identity for image in images], device=embeddings.device)
    results = []
    for protocol, scores in zip(protocols, _score(protocols, embeddings, images, refinement), strict=True):
        scored = [score for score in scores if score is not None]
        if len(scored) == len(scores):
            results.append(_result(protocol, scored, identity, refinement))
        else:
            where = f"in {len(scores) - len(scored)} of its {len(scores)} trials " if scored else ""
            log.warning("%s is left out: %sno query has an image of its identity in the gallery", protocol.name, where)
    if not results:
        raise NothingToScoreError("no query has an image of its identity in the gallery: nothing to score")
    return results


def _score(
    protocols: Sequence[Protocol], embeddings: Tensor, images: Sequence[LabelledImage], refinement: Refinement
) -> list[list[Scored | None]]:
    """Score every trial of every protocol; None where no query has a match."""
    identity = torch.tensor([image.identity for image in images], device=embeddings.device)
    camera = torch.tensor([image.camera for image in images], device=embeddings.device)
    trials = [(protocol.rules, trial) for protocol in protocols for trial in protocol.trials]
    by_query: dict[tuple[int, ...], list[int]] = {}
    for t, (_, trial) in enumerate(trials):
        if len(trial.query) and len(trial.gallery):
            by_query.setdefault(tuple(trial.query), []).append(t)
    found: dict[int, Scored | None] = dict.fromkeys(range(len(trials)))
    for query, members in by_query.items():
        given = (
            [trials[t] for t in members],
            torch.tensor(query, device=embeddings.device),
            embeddings,
            identity,
            camera,
        )
        scored = _score_together(*given) if refinement == NO_REFINEMENT else _score_refined(*given, refinement)
        found |= zip(members, scored, strict=True)
    scores = iter([found[t] for t in range(len(trials))])
    return [[next(scores) for _ in protocol.trials] for protocol in protocols]


@dataclass(frozen=True)
class CameraPair:
    """Metrics of one camera's queries among the images of another; means over the trials."""

    query: int
    gallery: int
    valid: int
    R1: float
    mAP: float
    chance: float


def evaluate_camera_pairs(protocol: Protocol, embeddings: Tensor, images: Sequence[LabelledImage]) -> list[CameraPair]:
    """Score each pair of cameras alone, without pairs that have nothing to find; empty where there is a single pair."""
    alone = camera_pairs(protocol, images)
    embeddings = check_embeddings(embeddings, len(images))
    pairs = []
    for (query, gallery), trials in zip(
        alone, _score(list(alone.values()), embeddings, images, NO_REFINEMENT), strict=True
    ):
        scores = [trial[0] for trial in trials if trial is not None]
        if scores:
            r1, mean_ap = (fmean(score.metrics[name] for score in scores) for name in ("R1", "mAP"))
            chance = fmean(score.chance for score in scores)
            pairs.append(CameraPair(query, gallery, min(score.valid for score in scores), r1, mean_ap, chance))
    return pairs if len(pairs) > 1 else []


def check_embeddings(embeddings: Tensor, images: int) -> Tensor:
    """Convert embeddings to 32 bits or more; raises `CsviError` unless they are (images, dimensions) finite floats."""
    if embeddings.ndim != 2 or len(embeddings) != images or not embeddings.shape[1]:
        raise CsviError(
            f"embeddings have shape {tuple(embeddings.shape)}: they must be ({images}, dimensions), "
            "one row for each image"
        )
    if not embeddings.is_floating_point() or not embeddings.isfinite().all():
        raise CsviError("embeddings hold NaN, infinity or something other than floats: has the model diverged?")
    return embeddings.detach().float() if embeddings.itemsize < 4 else embeddings.detach()


def _score_together(
    trials: Sequence[tuple[Rules, Trial]], queries: Tensor, embeddings: Tensor, identity: Tensor, camera: Tensor
) -> list[Scored | None]:
    """Score trials that share their queries; distances are computed once, a block at a time."""
    searched = [torch.tensor(trial.gallery, device=embeddings.device) for _, trial in trials]
    pool = torch.cat(searched).unique()
    galleries = [index_gallery(identity[g], camera[g], torch.searchsorted(pool, g)) for g in searched]
    rows = rows_of_block(len(pool))
    blocks = zip(queries.split(rows), euclidean(embeddings[queries], embeddings[pool], rows), strict=True)
    return _ranked(blocks, identity, camera, galleries, [rules for rules, _ in trials])


def _score_refined(
    trials: Sequence[tuple[Rules, Trial]],
    queries: Tensor,
    embeddings: Tensor,
    identity: Tensor,
    camera: Tensor,
    refinement: Refinement,
) -> list[Scored | None]:
    """Score one trial after the other, as refined distances depend on who else is in the gallery."""
    scores: list[Scored | None] = []
    for rules, trial in progress(trials, "Refining rankings"):
        searched = torch.tensor(trial.gallery, device=embeddings.device)
        unseen = hidden(camera[queries], camera[searched], rules)
        distance = refined_distances(embeddings[queries], embeddings[searched], unseen, refinement)
        rows = rows_of_block(len(searched))
        blocks = zip(queries.split(rows), distance.split(rows), strict=True)
        scores += _ranked(blocks, identity, camera, [index_gallery(identity[searched], camera[searched])], [rules])
    return scores


def _ranked(
    blocks: Iterable[tuple[Tensor, Tensor]],
    identity: Tensor,
    camera: Tensor,
    galleries: Sequence[Gallery],
    rules: Sequence[Rules],
) -> list[Scored | None]:
    """Rank galleries, each by its rules, for blocks of queries with their distances; None where none has a match."""
    ranks: list[list[Ranks]] = [[] for _ in galleries]
    for queries, distance in blocks:
        distance = distance.cpu()
        for found, gallery, of_gallery in zip(ranks, galleries, rules, strict=True):
            found.append(rank(distance, identity[queries], camera[queries], gallery, of_gallery))
    scored: list[Scored | None] = []
    for found, gallery, of_gallery in zip(ranks, galleries, rules, strict=True):
        together = Ranks.join(found)
        try:
            scored.append((summarize(together, gallery, of_gallery), together))
        except NothingToScoreError:
            scored.append(None)
    return scored


def _result(protocol: Protocol, scores: Sequence[Scored], identity: Tensor, refinement: Refinement) -> Result:
    by_identity = _by_identity(
        (identity[torch.tensor(trial.query, device=identity.device)].cpu().numpy(), ranks)
        for trial, (_, ranks) in zip(protocol.trials, scores, strict=True)
    )
    metrics = {name: [s.metrics[name] for s, _ in scores] for name in by_identity.sums}
    low, high = bootstrap(np.array(list(by_identity.sums.values())).T, np.array(by_identity.queries))
    return Result(
        protocol=protocol.name,
        gallery=protocol.gallery,
        refinements=refinement.names(),
        queries=min(len(trial.query) for trial in protocol.trials),
        valid=min(s.valid for s, _ in scores),
        gallery_images=min(len(trial.gallery) for trial in protocol.trials),
        chance=fmean(s.chance for s, _ in scores),
        metrics={
            name: Spread(*mean_and_std(values), values, float(low[i]), float(high[i]))
            for i, (name, values) in enumerate(metrics.items())
        },
        by_identity=by_identity,
    )


def _by_identity(trials: Iterable[tuple[NDArray[np.int64], Ranks]]) -> ByIdentity:
    """Sum the metrics over the queries of each identity, given with their ranks, and over the trials."""
    identity, ranks = zip(*trials, strict=True)
    together = Ranks.join(ranks)
    counted = together.first.numpy() > 0
    valid = np.array([int((of_trial.first > 0).sum()) for of_trial in ranks])
    weight = np.repeat(valid.max() / valid, valid)  # 1 where all trials count as many
    names, group = np.unique(np.concatenate(identity)[counted], return_inverse=True)
    return ByIdentity(
        names.tolist(),
        np.bincount(group, weight).tolist(),
        {
            name: np.bincount(group, weight * values.numpy()[counted]).tolist()
            for name, values in together.metrics.items()
        },
    )

"""Embeddings under protocols: every trial ranked, figures averaged, and how sure they are."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csvi.data.records import ImageRecord
from csvi.errors import CsviError, NothingToScoreError
from csvi.evaluate.intervals import bootstrap
from csvi.evaluate.metrics import (
    RULES,
    Gallery,
    Ranks,
    Rules,
    Score,
    euclidean,
    hidden,
    index_gallery,
    rank,
    rows_of_block,
    summarize,
)
from csvi.evaluate.protocols import Draw, Protocol, Trial, camera_pairs
from csvi.evaluate.refine import NO_REFINEMENT, Refinement, refined_distances
from csvi.progress import progress

log = logging.getLogger(__name__)

REPORTED_RANKS = (1, 10, 20)
Scored = tuple[Score, Ranks]
"""Of one trial."""


@dataclass(frozen=True)
class Spread:
    """One figure over the trials."""

    mean: float
    std: float
    """Standard deviation of a sample (n - 1); 0 for a single trial."""
    trials: list[float]
    low: float
    high: float
    """95 % interval of the mean, by bootstrap over the identities of the queries: how far the figure may be off because
    it was these people who were asked for. What other galleries and other trainings would give is not in it."""


@dataclass(frozen=True)
class ByIdentity:
    """What each query identity contributes; from it come intervals, and paired differences between models."""

    identity: list[int]
    queries: list[int]
    """Queries counted, over all trials."""
    sums: dict[str, list[float]]
    """Figure → its sum over those queries; their mean, over all identities, is the figure."""


@dataclass(frozen=True)
class Result:
    """What a protocol found; `dataclasses.asdict` makes it ready for JSON. Figures are fractions from 0 to 1."""

    protocol: str
    rules: str
    gallery: Draw
    """How the galleries were drawn; figures of different draws cannot be compared."""
    refinements: list[str]
    """What was done to the ranking beside sorting by distance, in words; empty by default, as in the field."""
    queries: int
    """Of a trial."""
    valid: int
    """Queries counted: those with something relevant in the gallery; the fewest of all trials."""
    gallery_images: int
    """The fewest of all trials."""
    chance: float
    """R1 of a random ranking, mean over the trials."""
    figures: dict[str, Spread]
    """R1, R10, R20, mAP, mINP."""
    by_identity: ByIdentity = field(repr=False)


def evaluate_protocol(protocol: Protocol, embeddings: Tensor, records: Sequence[ImageRecord]) -> Result:
    """One protocol; see `evaluate_protocols`."""
    return evaluate_protocols([protocol], embeddings, records)[0]


def evaluate_protocols(
    protocols: Sequence[Protocol],
    embeddings: Tensor,
    records: Sequence[ImageRecord],
    refinement: Refinement = NO_REFINEMENT,
) -> list[Result]:
    """Ranks the galleries of every trial by Euclidean distance and averages over the trials.

    Trials with the same queries share one computation of the distances, so give protocols together.

    Args:
        protocols: made from `records`.
        embeddings: (records, dimensions) floating point, finite; row i is the embedding of record i.
        records: of one split.
        refinement: re-ranking and query expansion; by default neither.

    Raises:
        CsviError: embeddings of another shape or not finite, or no query with a match under any protocol; one without
            is left out, and the log says so.
    """
    embeddings = check_embeddings(embeddings, len(records))
    identity = torch.tensor([record.identity for record in records], device=embeddings.device)
    results = []
    for protocol, scores in zip(protocols, _score(protocols, embeddings, records, refinement), strict=True):
        scored = [score for score in scores if score is not None]
        if len(scored) == len(scores):
            results.append(_result(protocol, scored, identity, refinement))
        else:
            log.warning("%s is left out: no query has an image of its identity in the gallery", protocol.name)
    if not results:
        raise NothingToScoreError("no query has an image of its identity in the gallery: nothing to score")
    return results


def _score(
    protocols: Sequence[Protocol], embeddings: Tensor, records: Sequence[ImageRecord], refinement: Refinement
) -> list[list[Scored | None]]:
    """Every trial of every protocol; None where no query has a match."""
    identity = torch.tensor([record.identity for record in records], device=embeddings.device)
    camera = torch.tensor([record.camera for record in records], device=embeddings.device)
    trials = [(RULES[protocol.rules], trial) for protocol in protocols for trial in protocol.trials]
    by_query: dict[tuple[int, ...], list[int]] = {}
    for t, (_, trial) in enumerate(trials):
        by_query.setdefault(tuple(trial.query), []).append(t)
    found: dict[int, Scored | None] = {}
    for query, members in by_query.items():
        group = [trials[t] for t in members]
        scored = (
            _score_together(group, query, embeddings, identity, camera)
            if refinement == NO_REFINEMENT
            else _score_refined(group, query, embeddings, identity, camera, refinement)
        )
        found |= zip(members, scored, strict=True)
    scores = iter([found[t] for t in range(len(trials))])
    return [[next(scores) for _ in protocol.trials] for protocol in protocols]


@dataclass(frozen=True)
class CameraPair:
    """What one camera finds in the images of another; mean over the trials."""

    query: int
    gallery: int
    valid: int
    R1: float
    mAP: float
    chance: float


def evaluate_camera_pairs(protocol: Protocol, embeddings: Tensor, records: Sequence[ImageRecord]) -> list[CameraPair]:
    """A protocol for each pair of cameras alone; without pairs that have nothing to find, and empty if there is one."""
    alone = camera_pairs(protocol, records)
    embeddings = check_embeddings(embeddings, len(records))
    pairs = []
    for (query, gallery), trials in zip(
        alone, _score(list(alone.values()), embeddings, records, NO_REFINEMENT), strict=True
    ):
        scores = [trial[0] for trial in trials if trial is not None]
        if scores:
            r1, mean_ap, chance = (
                fmean(float(value) for value in values)
                for values in zip(*((score.cmc[0], score.mAP, score.chance) for score in scores), strict=True)
            )
            pairs.append(CameraPair(query, gallery, min(score.valid for score in scores), r1, mean_ap, chance))
    return pairs if len(pairs) > 1 else []


def check_embeddings(embeddings: Tensor, images: int) -> Tensor:
    """The same embeddings in at least 32 bits.

    Raises:
        CsviError: they are not (images, dimensions), not floats or not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) != images or not embeddings.shape[1]:
        raise CsviError(
            f"embeddings have shape {tuple(embeddings.shape)}: they must be ({images}, dimensions), "
            "one row for each image"
        )
    if not embeddings.is_floating_point() or not embeddings.isfinite().all():
        raise CsviError("embeddings hold NaN, infinity or something other than floats: has the model diverged?")
    return embeddings.detach().float() if embeddings.itemsize < 4 else embeddings.detach()


def _score_together(
    trials: Sequence[tuple[Rules, Trial]],
    query: Sequence[int],
    embeddings: Tensor,
    identity: Tensor,
    camera: Tensor,
) -> list[Scored | None]:
    """Trials that share their queries; distances are computed once, a block at a time."""
    device = embeddings.device
    queries = torch.tensor(query, device=device)
    images = [torch.tensor(trial.gallery, device=device) for _, trial in trials]
    pool = torch.cat(images).unique()
    galleries = [index_gallery(identity[g], camera[g], torch.searchsorted(pool, g)) for g in images]
    ranks: list[list[Ranks]] = [[] for _ in trials]
    rows = rows_of_block(len(pool))
    distances = euclidean(embeddings[queries], embeddings[pool], rows)
    for block, distance in zip(queries.split(rows), distances, strict=True):
        distance = distance.cpu()
        for t, (rules, _) in enumerate(trials):
            ranks[t].append(rank(distance, identity[block], camera[block], galleries[t], rules))
    return [
        _summarized(blocks, gallery, rules)
        for blocks, gallery, (rules, _) in zip(ranks, galleries, trials, strict=True)
    ]


def _score_refined(
    trials: Sequence[tuple[Rules, Trial]],
    query: Sequence[int],
    embeddings: Tensor,
    identity: Tensor,
    camera: Tensor,
    refinement: Refinement,
) -> list[Scored | None]:
    """One trial after the other: refined distances depend on who else is in the gallery."""
    queries = torch.tensor(query, device=embeddings.device)
    scores: list[Scored | None] = []
    for rules, trial in progress(trials, "Refining rankings"):
        images = torch.tensor(trial.gallery, device=embeddings.device)
        gallery = index_gallery(identity[images], camera[images])
        unseen = hidden(camera[queries], camera[images], rules)
        distance = refined_distances(embeddings[queries], embeddings[images], unseen, refinement)
        rows = rows_of_block(len(images))
        blocks = [
            rank(d, identity[block], camera[block], gallery, rules)
            for d, block in zip(distance.split(rows), queries.split(rows), strict=True)
        ]
        scores.append(_summarized(blocks, gallery, rules))
    return scores


def _summarized(blocks: Sequence[Ranks], gallery: Gallery, rules: Rules) -> Scored | None:
    try:
        return summarize(blocks, gallery, rules), Ranks.join(blocks)
    except NothingToScoreError:
        return None


def _result(protocol: Protocol, scores: Sequence[Scored], identity: Tensor, refinement: Refinement) -> Result:
    by_identity = _by_identity(
        (identity[torch.tensor(trial.query, device=identity.device)].cpu().numpy(), ranks)
        for trial, (_, ranks) in zip(protocol.trials, scores, strict=True)
    )
    figures = {f"R{r}": [float(s.cmc[min(r, len(s.cmc)) - 1]) for s, _ in scores] for r in REPORTED_RANKS}
    figures["mAP"] = [s.mAP for s, _ in scores]
    figures["mINP"] = [s.mINP for s, _ in scores]
    low, high = bootstrap(np.array([by_identity.sums[name] for name in figures]).T, np.array(by_identity.queries))
    return Result(
        protocol=protocol.name,
        rules=protocol.rules,
        gallery=protocol.gallery,
        refinements=refinement.names(),
        queries=min(len(trial.query) for trial in protocol.trials),
        valid=min(s.valid for s, _ in scores),
        gallery_images=min(len(trial.gallery) for trial in protocol.trials),
        chance=fmean(s.chance for s, _ in scores),
        figures={
            name: Spread(fmean(f), stdev(f) if len(f) > 1 else 0.0, f, float(low[i]), float(high[i]))
            for i, (name, f) in enumerate(figures.items())
        },
        by_identity=by_identity,
    )


def _by_identity(trials: Iterable[tuple[NDArray[np.int64], Ranks]]) -> ByIdentity:
    """Sums over the queries of each identity and over the trials; the identity of every query, and its ranks."""
    identities, first, precision, penalty = (
        np.concatenate(columns)
        for columns in zip(
            *(
                (identity, *(getattr(ranks, name).cpu().numpy() for name in ("first", "precision", "penalty")))
                for identity, ranks in trials
            ),
            strict=True,
        )
    )
    counted = first > 0
    names, group = np.unique(identities[counted], return_inverse=True)
    first, precision, penalty = first[counted], precision[counted], penalty[counted]
    values = {f"R{r}": first <= r for r in REPORTED_RANKS} | {"mAP": precision, "mINP": penalty}
    return ByIdentity(
        names.tolist(),
        np.bincount(group).tolist(),
        {name: np.bincount(group, weights=value.astype(float)).tolist() for name, value in values.items()},
    )

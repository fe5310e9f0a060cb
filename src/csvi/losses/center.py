"""Center losses: how near the centers of an identity lie to each other, and how far from those of other identities.

A center is a mean of features, over the images of an identity in one modality or in both. Where centers are compared,
each identity counts once, however many images it has. Distances are Euclidean, and not squared unless a loss says so.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.errors import CsviError
from csvi.losses.loss import (
    FLOOR,
    averages,
    distances,
    firsts,
    full_precision,
    mean_where,
    parts_of_batch,
    row_means,
)

Reduction = Literal["sum", "mean"]
Distance = Literal["l2", "l1", "cosine"]


@full_precision
def hetero_center_loss(
    features: Tensor,
    identity: Tensor,
    modality: Tensor,
    squared: bool = False,
    normalize: bool = False,
    reduction: Reduction = "sum",
    margin: float = 0.0,
    distance: Distance = "l2",
) -> Tensor:
    """Distance between the two modality centers of each identity, summed over the parts (Eq. 6-8, 16).

    Args:
        features: part features F^p, (B, P, C2), or features (B, C2).
        identity, modality: see `csvi.losses`.
        squared: square the norm of Eq. 7, as the code of the paper's reference 24 does.
        normalize: L2-normalise the features first, as that code does.
        reduction: `sum` over the identities (Eq. 7) or their `mean`.
        margin: a distance counts by what it exceeds this by.
        distance: `l2` is the norm of Eq. 7. That code also has `l1`, the mean absolute difference over the dimensions,
            and `cosine`, 1 - the cosine of the two centers; these are never squared.

    Identities with one modality only do not count; without any other the loss is 0.

    Raises:
        CsviError: no such reduction or distance.
    """
    for name, value, known in (("reduction", reduction, Reduction), ("distance", distance, Distance)):
        if value not in get_args(known):
            raise CsviError(f"{name} is {value!r}: it must be one of {', '.join(get_args(known))}")
    if normalize:
        features = F.normalize(features, dim=-1)
    share, first, counts = _modalities(identity, modality, features.dtype)
    if distance == "cosine":
        visible, infrared = (share @ features.flatten(1)).view(2, *features.shape)
        apart = 1 - F.cosine_similarity(visible, infrared, dim=-1)
    else:
        difference = ((share[0] - share[1]) @ features.flatten(1)).view_as(features)  # Eq. 8, for each image
        if distance == "l1":
            apart = difference.abs().mean(-1)
        else:
            apart = difference.square().sum(-1) if squared else torch.linalg.vector_norm(difference, dim=-1)
    counted = first & counts.all(0)
    identities = counted.sum().clamp(min=1) if reduction == "mean" else 1 / parts_of_batch()
    beyond = F.relu(apart - margin).view(len(apart), -1)  # (B, P)
    return (beyond * counted[:, None]).sum() / identities


@full_precision
def center_cluster(features: Tensor, identity: Tensor, margin: float) -> Tensor:
    """Center cluster loss of features (B, D): images near the center of their identity, centers far from each other.

    The mean distance of an image to its center, and [margin - distance]+ as a mean over the pairs of identities, as the
    public code of MPANet (CVPR 2021) computes it. A center is over both modalities. An image on its center gets no
    gradient from it, where public code gets NaN; the second term of one identity alone is 0.
    """
    same = identity[:, None] == identity
    first = firsts(same)
    centers = averages(same, features.dtype) @ features  # of each image's identity: (B, D)
    pull = torch.linalg.vector_norm(features - centers, dim=1).mean()
    push = F.relu(margin - distances(centers, centers))
    return pull + mean_where(push, ~same & first & first[:, None])


@full_precision
def cross_modal_center_contrastive(
    features: Tensor, identity: Tensor, modality: Tensor, margin: float, second_root: bool = True
) -> Tensor:
    """Cross-modal center contrastive loss of features (B, D): a modality's centers against those of both modalities.

    With the distance E of a visible center to the mean of an identity's visible and infrared center, a pair of centers
    adds E^2 where they are of one identity, [margin - sqrt(E)]+^2 where they are not; their mean, and the same of the
    infrared centers are added up. So the public code of MTL (Pattern Recognition 2022) computes it: E is already a
    root, and without `second_root` its own is left out. Identities with one modality only do not count.
    """
    share, first, counts = _modalities(identity, modality, features.dtype)
    counted = first & counts.all(0)
    same, pairs = identity[:, None] == identity, counted[:, None] & counted
    centers = share @ features  # (2, B, D)
    apart = distances(centers, centers.mean(0))  # (2, B, B)
    root = (apart + 1e-10).sqrt() if second_root else apart
    return mean_where(torch.where(same, apart, F.relu(margin - root)).square().sum(0), pairs)


@full_precision
def center_pair_margin(
    original: Tensor, generated: Tensor, identity: Tensor, modality: Tensor, margin: float
) -> Tensor:
    """Center-guided pair mining loss: generated features between the modalities, as far from those as from others.

    With the centers v and t of an identity's visible and infrared images, v' and t' of the features generated from
    these, and h(a) the mean over the identities of [D(t, v') - a + margin]+: h of D(v, v'), without its gradient, plus
    half of h of the distance of v' to the nearest v' of another identity, plus half of that of v; then the same with
    the modalities exchanged; half of the sum. So the public code of DEEN (CVPR 2023) computes it.

    Args:
        original: (B, D).
        generated: (B, D), row by row from the original ones.
        identity, modality: see `csvi.losses`.
        margin: how much farther the distances a are to be.

    Identities with one modality only do not count; one identity alone has the first term only.
    """
    share, first, counts = _modalities(identity, modality, original.dtype)
    counted = first & counts.all(0)
    other = (identity[:, None] != identity) & counts.all(0)
    originals, branches = share @ original, share @ generated  # (2, B, D)
    own, across = (
        torch.linalg.vector_norm(of - branches, dim=2).clamp(min=FLOOR) for of in (originals, originals.flip(0))
    )

    def nearest(centers: Tensor) -> Tensor:
        return distances(centers, centers).masked_fill(~other, torch.inf).amin(2)

    def hinge(far: Tensor) -> Tensor:
        return F.relu(across - far + margin)

    loss = hinge(own.detach()) + hinge(nearest(branches)) / 2 + hinge(nearest(originals)) / 2  # (2, B)
    return mean_where(loss.mean(0), counted)


@full_precision
def discriminative_center(features: Tensor, identity: Tensor) -> Tensor:
    """Discriminative center loss of features (B, D): a center's distance to its own images over that to near others.

    Own images: the mean over all identities and their images. Near others: per center those nearer than the mean of
    all others; their mean, then the mean over the identities. Distances of `FLOOR`, as of an identity's only image to
    its center, are in no mean. So the public code of PMT (arXiv:2212.00226) computes it; 0 where no identity has near
    others, as one identity alone.
    """
    same = identity[:, None] == identity
    distance = distances(averages(same, features.dtype) @ features, features)  # of each image's center to all images
    known = distance > FLOOR
    other = ~same & known
    near = other & (distance < row_means(distance, other)[:, None])
    counted = firsts(same) & near.any(1)
    own = mean_where(distance, same & known & firsts(same)[:, None])
    others = mean_where(row_means(distance, near), counted)
    return own * counted.any() / torch.where(counted.any(), others, 1)


def _modalities(identity: Tensor, modality: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's identity in each modality.

    Returns:
        weights of its center in each modality (2, B, B), which images are their identity's first (B,), and which
        modalities each image's identity has (2, B).
    """
    same = identity[:, None] == identity
    members = torch.stack([same & (modality == m) for m in (0, 1)])
    return averages(members, dtype), firsts(same), members.any(2)

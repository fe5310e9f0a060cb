"""Triplet losses, and others of the distances between images: near those of the same identity, far from all others.

Features are (B, D), one row an image, and are not normalised here; distances are `csvi.losses.loss.distances`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import averages, distances, firsts, full_precision, mean_where, row_means, sum_of_modality_means


@full_precision
def batch_hard_triplet(features: Tensor, identity: Tensor, margin: float, modality: Tensor | None = None) -> Tensor:
    """Batch-hard triplet loss: [farthest of the same identity - nearest other + margin]+, a mean over the images.

    Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", arXiv:1703.07737, Eq. 5, divided by
    the number of images. Where `modality` is given, triplets lie within a modality, and the loss is the mean of the
    visible images plus that of the infrared ones (PMT, arXiv:2212.00226). An image with no other identity to compare
    with adds 0.
    """
    same = identity[:, None] == identity
    distance = distances(features, features)
    if modality is None:
        return _hard_hinge(distance, same, ~same, margin).mean()
    within = modality[:, None] == modality
    return sum_of_modality_means(_hard_hinge(distance, same & within, ~same & within, margin), modality)


@full_precision
def weighted_regularized_triplet(features: Tensor, identity: Tensor) -> Tensor:
    """Weighted regularised triplet loss: log(1 + exp(p - n)), a mean over the images (AGW, TPAMI 2021).

    p is the mean distance to the same identity, weighted by the softmax of the distances, n that to all others,
    weighted by the softmax of the negative distances. As in the public code of AGW both softmaxes have 1e-6 in their
    denominator: where all others are farther than 14 (one is near) to 18 (56 are alike), their weights sum to less
    than 1 and n tends to 0. n is 0 too where the batch has one identity only.
    """
    positive, negative = _weighted_distances(features, identity)
    return F.softplus(positive - negative).mean()


@full_precision
def squared_difference_triplet(features: Tensor, identity: Tensor, squared: bool = True) -> Tensor:
    """Enhanced squared-difference triplet loss: log(1 + exp(s (p - n)^2)), a mean over the images (CAJ, ICCV 2021).

    s is the sign of p - n; p and n are those of `weighted_regularized_triplet`. As in the public code of CAJ the square
    is at most 88: where it would be more, there is no gradient. With `squared` false it is the difference itself.
    """
    positive, negative = _weighted_distances(features, identity)
    difference = positive - negative
    if squared:
        difference = difference.sign() * difference.square().clamp(max=88)
    return F.softplus(difference).mean()


@full_precision
def hetero_center_triplet(features: Tensor, identity: Tensor, modality: Tensor, margin: float) -> Tensor:
    """Hetero-center triplet loss: `batch_hard_triplet` of the centers of each identity in each modality.

    HcTri (Liu et al., TMM 2021), as its public code computes it: a mean over the centers. An identity with one modality
    only has one center, whose positive distance is `FLOOR`.
    """
    same = identity[:, None] == identity
    together = same & (modality[:, None] == modality)
    centers = averages(together, features.dtype) @ features  # of each image's identity and modality: (B, D)
    return mean_where(_hard_hinge(distances(centers, centers), same, ~same, margin), firsts(together))


@full_precision
def modality_shared_enhancement(features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Modality-shared enhancement loss: squared difference of an image's mean distances across and within modalities.

    Both distances are to the other images of its identity. Half of the mean of the visible images plus that of the
    infrared ones, as the public code of PMT (arXiv:2212.00226) computes it. An image that is its identity's only one
    of its modality, or has none of the other, does not count.
    """
    same, within = identity[:, None] == identity, modality[:, None] == modality
    itself = torch.eye(len(identity), dtype=torch.bool, device=identity.device)
    others = torch.stack([same & within & ~itself, same & ~within])  # (2, B, B)
    intra, cross = row_means(distances(features, features), others)
    return sum_of_modality_means((cross - intra).square(), modality, others.any(2).all(0)) / 2


def _hard_hinge(distance: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """[distance of the farthest positive - that of the nearest negative + margin]+ of each row; 0 without negatives."""
    farthest = distance.masked_fill(~positive, 0).amax(1)
    nearest = distance.masked_fill(~negative, torch.inf).amin(1)
    return F.relu(farthest - nearest + margin)


def _weighted_distances(features: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's weighted mean distance to its identity, itself included, and to all others: (B,) twice."""
    same = identity[:, None] == identity
    distance = distances(features, features)
    farthest = distance.masked_fill(~same, 0).amax(1, keepdim=True)
    own = (distance - farthest).masked_fill(~same, -torch.inf).exp()
    others = (-distance).masked_fill(same, -torch.inf).exp()
    positive, negative = ((weight * distance).sum(1) / (weight.sum(1) + 1e-6) for weight in (own, others))
    return positive, negative

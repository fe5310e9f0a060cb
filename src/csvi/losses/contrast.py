"""A contrast across modalities: who is it, by the images of the other spectrum?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import averages, firsts, full_precision, sum_of_modality_means

NEVER = -1e4
"""Score of an identity that cannot be asked; finite, so that 0 times it is 0."""


def other_centers(features: Tensor, identity: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the centers of identities by modality, and which of them each image is asked about.

    Args:
        features: (B, D).
        identity, modality: see `csvi.losses`.

    Returns:
        The L2-normalised mean of the visible and the infrared images of each image's identity, (2, B, D), 0 for none;
        and bool (B, B), for each image every identity once that has images of the other modality.
    """
    same = identity[:, None] == identity
    members = torch.stack([same & (modality == m) for m in (0, 1)])  # (2, B, B)
    centers = F.normalize(averages(members, features.dtype) @ features, dim=2)
    return centers, (members.any(2) & firsts(same))[1 - modality]


@full_precision
def center_contrast(features: Tensor, identity: Tensor, modality: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of each image over the identities of the batch, each the center of its other modality (ours).

    The score of an identity is the cosine between the image and the mean of that identity's images of the modality that
    the image is not. So an infrared image has to be told from others by visible images alone, and the reverse.

    Args:
        features: (B, D).
        identity, modality: see `csvi.losses`.
        temperature: divides the cosines.

    Returns:
        The mean over visible images plus that over infrared ones. An image whose identity has none of the other
        modality does not count.
    """
    centers, asked = other_centers(features, identity, modality)
    image = torch.arange(len(identity), device=identity.device)
    cosine = (F.normalize(features, dim=1) @ centers.mT)[1 - modality, image]  # (B, B)
    own = asked & (identity[:, None] == identity)
    scores = (cosine / temperature).where(asked, NEVER).log_softmax(1)
    return sum_of_modality_means(-(scores * own).sum(1), modality, own.any(1))

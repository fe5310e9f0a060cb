"""Whose each cell of the features is: co-segmentation as classification."""

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import averages, firsts, full_precision, sum_of_modality_means

NEVER = -1e4
"""Score of what cannot be the answer; finite, so that 0 times its loss is 0."""


@full_precision
def cell_identity_loss(
    features: Tensor,
    identity: Tensor,
    modality: Tensor,
    person: Tensor,
    background: Tensor,
    temperature: float = 0.1,
    has_mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each cell over the identities of the batch and the background (ours).

    A cell of a person is its identity, one beside the person is background. An identity is the center of the person's
    cells in its images of the *other* modality, the score of a cell the cosine of both. So each image is asked
    whether it shows one person and none of the others, by images of the other spectrum alone.

    Args:
        features: F_s, (B, C, h, w).
        identity, modality: see `csvi.losses`.
        person: (B, 1, h, w), the share of each cell that is person.
        background: (1, C), what cells of the background look like.
        temperature: divides the cosines.
        has_mask: (B,) bool, the images whose `person` is known; by default all. Others have no part in the loss.

    Returns:
        A mean over each modality's cells, added. An image whose identity has none in the other modality does not count.
    """
    same = identity[:, None] == identity
    members = torch.stack([same & (modality == m) for m in (0, 1)])  # of an image's identity, by modality: (2, B, B)
    if has_mask is not None:
        members = members & has_mask
    mean = (person * features).sum((2, 3)) / person.sum((2, 3)).clamp(min=1e-6)  # of the person in each image: (B, C)
    centers = F.normalize(averages(members, mean.dtype) @ mean, dim=2)  # (2, B, C)
    cells = F.normalize(features.flatten(2), dim=1)  # (B, C, cells)
    cosine = torch.stack([cells.mT @ center.T for center in centers])  # (2, B, cells, B)
    other, image = 1 - modality, torch.arange(len(identity), device=identity.device)
    asked = (members.any(2) & firsts(same))[other]  # each identity once: (B, B)
    cosine = cosine[other, image].where(asked[:, None], NEVER)
    beside = cells.mT @ F.normalize(background, dim=1).T  # (B, cells, 1)
    scores = (torch.cat([beside, cosine], 2) / temperature).log_softmax(2)
    own = scores[:, :, 1:].where((asked & same)[:, None], NEVER).logsumexp(2)
    share = person.flatten(1)
    entropy = -(share * own + (1 - share) * scores[:, :, 0]).mean(1)
    counted = (asked & same).any(1)
    return sum_of_modality_means(entropy, modality, counted if has_mask is None else counted & has_mask)

"""Segmentation losses: which pixels are person (Eq. 14 and 17)."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import full_precision, sum_of_modality_means


@full_precision
def mask_loss(logits: Tensor, mask: Tensor, modality: Tensor, has_mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the predicted person masks, a mean over each modality's pixels (Eq. 17).

    Args:
        logits: (B, 1, h, w).
        mask: (B, 1, h, w) in [0, 1]; soft where a cell is partly person.
        modality: see `csvi.losses`; the visible term and the infrared one are added.
        has_mask: (B,) bool, the images that the means are over; by default all. A modality without any adds 0.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return sum_of_modality_means(entropy.mean((1, 2, 3)), modality, has_mask)


@full_precision
def identity_mask_loss(
    logits: Tensor, mask: Tensor, identity: Tensor, modality: Tensor, has_mask: Tensor | None = None
) -> Tensor:
    """Cross-entropy over background and identities, each person in the channel of its identity (Eq. 14, 17).

    Args:
        logits: (B, 1 + L, h, w); channel 0 is the background, 1 + n the identity n.
        identity: labels in 0...L-1.
        mask, modality, has_mask: see `mask_loss`.
    """
    log_probability = F.log_softmax(logits, 1)
    own = log_probability[torch.arange(len(identity), device=identity.device), identity + 1].unsqueeze(1)
    entropy = -(mask * own + (1 - mask) * log_probability[:, :1])
    return sum_of_modality_means(entropy.mean((1, 2, 3)), modality, has_mask)


@partial(full_precision, gathers=False)
def mask_target(mask: Tensor, height: int, width: int, cell: int) -> Tensor:
    """Average masks (B, 1, H, W) in [0, 1] over cells of so many pixels a side: (B, 1, height, width), for Eq. 17.

    The grid has at least H / cell and W / cell cells. Where they reach beyond the image there is no person: stretching
    the mask over them instead would shift its right side by up to a cell of the features.
    """
    beyond = (0, cell * width - mask.shape[3], 0, cell * height - mask.shape[2])
    return F.avg_pool2d(F.pad(mask, beyond), cell)

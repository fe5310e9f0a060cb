"""The losses of Eq. 4-9 and 15-19, each a pure function. They go by label, never by position in the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.config import LossConfig


def identity_loss(scores: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Cross-entropy summed over the parts, the mean of the visible images plus that of the infrared ones (Eq. 4, 15).

    Eq. 5 also divides by the number of classes: a constant, to be had through the weight of this loss.

    Args:
        scores: (B, P, L), before the softmax.
        identity: (B,), labels in 0...L-1.
        modality: (B,), 0 visible and 1 infrared.

    Returns:
        A scalar; a modality that is not in the batch adds nothing.
    """
    labels = identity[:, None].expand(scores.shape[:2])
    entropy = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    return _sum_of_modality_means(entropy.sum(1), modality)


def hetero_center_loss(
    features: Tensor,
    identity: Tensor,
    modality: Tensor,
    squared: bool = False,
    normalize: bool = False,
    reduction: str = "sum",
) -> Tensor:
    """Distance between the two modality centers of each identity, summed over the parts (Eq. 6-8, 16).

    Args:
        features: part features F^p, (B, P, C2).
        identity: (B,), any labels.
        modality: (B,), 0 visible and 1 infrared.
        squared: square the norm of Eq. 7, as the code of the paper's reference 24 does.
        normalize: L2-normalise the features first, as that code does.
        reduction: `sum` over the identities (Eq. 7) or their `mean`.

    Returns:
        A scalar; identities with one modality only do not count, and without any other it is 0.
    """
    if normalize:
        features = F.normalize(features, dim=2)
    same = identity[:, None] == identity
    members = torch.stack([same & (modality == m) for m in (0, 1)])  # of each image's identity: (2, B, B)
    count = members.sum(2)
    share = members.to(features.dtype) / count.clamp(min=1)[:, :, None]
    difference = ((share[0] - share[1]) @ features.flatten(1)).view_as(features)  # Eq. 8, for each image
    distance = difference.square().sum(2) if squared else torch.linalg.vector_norm(difference, dim=2)
    first = ~same.tril(-1).any(1)  # so that every identity counts once, without a wait for how many there are
    counts = first & (count > 0).all(0)
    identities = counts.sum().clamp(min=1) if reduction == "mean" else 1
    return (distance * counts[:, None]).sum() / identities


def mask_loss(logits: Tensor, mask: Tensor, modality: Tensor) -> Tensor:
    """Binary cross-entropy of the predicted person masks, a mean over each modality's pixels (Eq. 17).

    Args:
        logits: (B, 1, h, w).
        mask: (B, 1, h, w) in [0, 1]; soft where a cell is partly person.
        modality: (B,), 0 visible and 1 infrared.

    Returns:
        A scalar, the visible term plus the infrared one.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return _sum_of_modality_means(entropy.mean((1, 2, 3)), modality)


def identity_mask_loss(logits: Tensor, mask: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Cross-entropy over background and identities, each person in the channel of its identity (Eq. 14, 17).

    Args:
        logits: (B, 1 + L, h, w); channel 0 is the background, 1 + n the identity n.
        mask: (B, 1, h, w) in [0, 1]; a cell that is partly person has a soft target.
        identity: (B,), labels in 0...L-1.
        modality: (B,), 0 visible and 1 infrared.

    Returns:
        A scalar, the visible term plus the infrared one.
    """
    log_probability = F.log_softmax(logits, 1)
    own = log_probability[torch.arange(len(identity), device=identity.device), identity + 1].unsqueeze(1)
    entropy = -(mask * own + (1 - mask) * log_probability[:, :1])
    return _sum_of_modality_means(entropy.mean((1, 2, 3)), modality)


def reid_losses(
    parts: Tensor, scores: Tensor, identity: Tensor, modality: Tensor, settings: LossConfig
) -> dict[str, Tensor]:
    """The weighted identity and hetero-center terms of one part module (Eq. 9, and the first two of Eq. 18).

    Args:
        parts: part features, (B, P, C2).
        scores: (B, P, L).
        identity: (B,), labels in 0...L-1.
        modality: (B,), 0 visible and 1 infrared.
        settings: weights, and how to read Eq. 7.
    """
    center = hetero_center_loss(
        parts, identity, modality, settings.center_squared, settings.center_normalize, settings.center_reduction
    )
    return {
        "identity": settings.identity * identity_loss(scores, identity, modality),
        "center": settings.center * center,
    }


def mask_target(mask: Tensor, height: int, width: int) -> Tensor:
    """Masks at a quarter of their size by area averaging, on the grid of the decoder (Eq. 17).

    The backbone's cells are 16 pixels wide; where they reach beyond the image there is no person. Stretching the mask
    over them instead would shift its right side by up to a cell.

    Args:
        mask: (B, 1, H, W) in [0, 1].
        height, width: of the decoder's output, at least H/4 and W/4.

    Returns:
        (B, 1, height, width) in [0, 1].
    """
    beyond = (0, 4 * width - mask.shape[3], 0, 4 * height - mask.shape[2])
    return F.avg_pool2d(F.pad(mask, beyond), 4)


def _sum_of_modality_means(values: Tensor, modality: Tensor) -> Tensor:
    """Mean of the visible images' values plus mean of the infrared ones', (B,) to a scalar."""
    member = torch.stack([modality == 0, modality == 1]).to(values.dtype)
    return ((member @ values) / member.sum(1).clamp(min=1)).sum()

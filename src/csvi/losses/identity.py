"""Identity losses: whom an image shows."""

from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import full_precision, sum_of_modality_means


@full_precision
def identity_loss(scores: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Cross-entropy summed over the parts, the mean of the visible images plus that of the infrared ones (Eq. 4, 15).

    Eq. 5 also divides by the number of classes, a constant that the weight of this loss may hold. A modality that is
    not in the batch adds nothing. The scores, (B, P, L), come before the softmax; identities are labels in 0...L-1.
    """
    labels = identity[:, None].expand(scores.shape[:2])
    entropy = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    return sum_of_modality_means(entropy.sum(1), modality)

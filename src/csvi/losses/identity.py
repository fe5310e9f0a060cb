"""Identity losses: whom an image shows."""

from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import full_precision, sum_of_modality_means


@full_precision
def identity_loss(scores: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Cross-entropy summed over the parts, the mean of the visible images plus that of the infrared ones (Eq. 4, 15).

    Eq. 5 also divides by the number of classes, a constant that the weight of this loss may hold. A modality that is
    not in the batch adds nothing. The scores, (B, L) or (B, P, L), come before the softmax; identities are labels in
    0...L-1.
    """
    return sum_of_modality_means(_entropy(scores, identity), modality)


@full_precision
def cross_entropy(scores: Tensor, identity: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the parts, its mean over all images: the identity loss of most public code.

    Half of `identity_loss` where the batch has as many visible images as infrared ones. The scores, (B, L) or
    (B, P, L), come before the softmax; identities are labels in 0...L-1. With `smoothing` e the target is 1 - e on the
    identity plus e / L on every class.
    """
    return _entropy(scores, identity, smoothing).mean()


@full_precision
def soft_cross_entropy(scores: Tensor, target_scores: Tensor) -> Tensor:
    """Cross-entropy between the scores of two views of the same images, both (B, L), a mean over the images.

    The softmax of the target's scores is the target and gets no gradient: the loss between a weakly and a strongly
    augmented view, as the public code of CAJ+ (TPAMI 2024) computes it.
    """
    return F.cross_entropy(scores, target_scores.detach().softmax(1))


@full_precision
def mutual_learning(scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Divergence KL(student || teacher) of the scores of a student and a teacher, both (B, L), a mean over the images.

    As the public code of MPANet (CVPR 2021) computes it: the student stands where a target usually stands, and the
    teacher gets no gradient. There the teacher of an image is the averaged classifier of the other modality.
    """
    log_student, log_teacher = scores.log_softmax(1), teacher_scores.detach().log_softmax(1)
    return (log_student.exp() * (log_student - log_teacher)).sum(1).mean()


def _entropy(scores: Tensor, identity: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image, summed over its parts: (B,)."""
    parts = scores if scores.ndim == 3 else scores[:, None]  # (B, P, L)
    labels = identity[:, None].expand(parts.shape[:2])
    entropy = F.cross_entropy(parts.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing)
    return entropy.view(labels.shape).sum(1)

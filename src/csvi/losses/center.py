"""Center losses: how far the modalities of an identity lie apart."""

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.losses.loss import full_precision


@full_precision
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
        identity, modality: see `csvi.losses`.
        squared: square the norm of Eq. 7, as the code of the paper's reference 24 does.
        normalize: L2-normalise the features first, as that code does.
        reduction: `sum` over the identities (Eq. 7) or their `mean`.

    Identities with one modality only do not count; without any other the loss is 0.
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

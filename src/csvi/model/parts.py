"""Part head: horizontal strips, an embedding and a classifier for each (Eq. 3)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PartHead(nn.Module):
    """The part module: six strips, global average pooling, FC(gamma_p) and classifier FC(gamma_s), Eq. 3.

    Args:
        channels: C1, channels of the features.
        identities: L, classes.
        parts: P, horizontal strips; a height that P does not divide is pooled adaptively.
        dim: C2, length of a part's embedding.
        norm: BatchNorm1d after each part's embedding.
        share_classifier: one classifier for all parts instead of one each.
    """

    def __init__(
        self,
        channels: int,
        identities: int,
        parts: int = 6,
        dim: int = 512,
        norm: bool = True,
        share_classifier: bool = False,
    ):
        super().__init__()
        self.parts = parts
        self.embed = PartLinear(parts, channels, dim)
        # BatchNorm over P*C2 features is a BatchNorm1d(C2) for each part.
        self.norm = nn.BatchNorm1d(parts * dim) if norm else nn.Identity()
        self.classify = PartLinear(1 if share_classifier else parts, dim, identities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embed and classify the parts.

        Args:
            features: (B, C1, h, w).

        Returns:
            The part features F^p, (B, P, C2), and the scores cls^p, (B, P, L).
        """
        strips = F.adaptive_avg_pool2d(features, (self.parts, 1)).squeeze(3).mT  # (B, P, C1)
        embedded = self.embed(strips)
        embedded = self.norm(embedded.flatten(1)).view_as(embedded)
        return embedded, self.classify(embedded)


class PartLinear(nn.Module):
    """A Linear for each part, as one batched product: (B, P, in) to (B, P, out). With parts=1 all parts share it."""

    def __init__(self, parts: int, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(parts, out_features))
        bound = math.sqrt(6 / (in_features + out_features))  # Xavier (Section 4.3), for each part alone
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return (x.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias

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
        self.norm = PartNorm(parts, dim) if norm else nn.Identity()
        self.classify = PartLinear(1 if share_classifier else parts, dim, identities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embed and classify the parts.

        Args:
            features: (B, C1, h, w).

        Returns:
            The part features F^p, (B, P, C2), and the scores cls^p, (B, P, L).
        """
        strips = F.adaptive_avg_pool2d(features, (self.parts, 1)).squeeze(3).mT  # (B, P, C1)
        embedded = self.norm(self.embed(strips))
        return embedded, self.classify(embedded)


class PartLinear(nn.Module):
    """A Linear for each part, as one batched product. With parts=1 all parts share it.

    Biases are 0 at first; weights are Xavier's for each part alone (Section 4.3), or normal with a deviation of `std`.
    """

    def __init__(self, parts: int, in_features: int, out_features: int, std: float | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(parts, out_features))
        if std is None:
            bound = math.sqrt(6 / (in_features + out_features))
            nn.init.uniform_(self.weight, -bound, bound)
        else:
            nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, in) to (B, P, out); with parts=1, whatever P is."""
        return (x.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias


class PartNorm(nn.BatchNorm1d):
    """A BatchNorm1d for each part, as one over P * C2 features.

    Args:
        parts, dim: P and C2.
        weight_std: standard deviation of the initial weights around 1.
    """

    def __init__(self, parts: int, dim: int, weight_std: float = 0.0):
        super().__init__(parts * dim)
        if weight_std:
            nn.init.normal_(self.weight, 1, weight_std)

    def forward(self, parts: Tensor) -> Tensor:
        """(B, P, C2) to the same."""
        return super().forward(parts.flatten(1)).view_as(parts)


def strip_embedding(channels: int, parts: int, dim: int) -> nn.Sequential:
    """Build the embedding of pooled strips as the public code of HC and MTL has it: (B, P, C1) to (B, P, C2).

    FC and batch norm for each part; Kaiming's initial weights by the FC's outputs.
    """
    return nn.Sequential(PartLinear(parts, channels, dim, math.sqrt(2 / dim)), PartNorm(parts, dim, 0.01))


def strip_classifier(dim: int, parts: int, identities: int) -> nn.Sequential:
    """Build the classifier of each part as the public code of HC and MTL has it: (B, P, C2) to scores (B, P, L)."""
    return nn.Sequential(nn.LeakyReLU(0.1), PartLinear(parts, dim, identities, 0.001))


def joined(parts: Tensor) -> Tensor:
    """L2-normalise each part, then concatenate them: (B, P, C2) to embeddings (B, P * C2)."""
    return F.normalize(parts, dim=2).flatten(1)

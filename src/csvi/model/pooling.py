"""Pooling of feature maps: generalised means, horizontal strips and learned pattern maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.errors import CsviError


def average_strips(features: Tensor, parts: int) -> Tensor:
    """Average horizontal strips of equal height, as the public code of HC and MTL does.

    They begin every h // P rows, and the last one ends with the map: where P does not divide h, neighbours overlap by
    the remainder, and no row is left out. Otherwise they are those of `PartHead`.

    Args:
        features: (B, C, h, w).
        parts: P.

    Returns:
        (B, P, C), from the top down.

    Raises:
        CsviError: there are fewer rows than strips.
    """
    height, width = features.shape[2:]
    step = height // parts
    if step == 0:
        raise CsviError(f"a feature map of {height} rows has no {parts} strips: use taller images or fewer parts")
    size = height - (parts - 1) * step, width
    return F.avg_pool2d(features, size, (step, width)).squeeze(3).mT


class GeM(nn.Module):
    """Generalised-mean pooling with a fixed exponent, (mean(x^p) + eps)^(1/p) (Radenović et al., TPAMI 2019).

    Of AGW, over all positions, and of HcTri, by strips. Negative values count as 0: a ResNet has none behind its last
    ReLU, MobileNetV2 has some. A channel that is 0 everywhere gives eps^(1/p): with eps = 1e-12 that is 1e-4 for p = 3,
    but .063 for p = 10. Powers are computed in at least 32 bits.

    Args:
        p: exponent; infinity would be the maximum, 1 is the plain mean.
        eps: summand below the root.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-12):
        super().__init__()
        self.p, self.eps = p, eps

    def forward(self, features: Tensor) -> Tensor:
        """Pool all positions: (B, C, h, w) to (B, C)."""
        return features.mean((2, 3)) if self.p == 1 else self.root(self.power(features).mean((2, 3)))

    def strips(self, features: Tensor, parts: int) -> Tensor:
        """Pool each of P strips, see `average_strips`: (B, C, h, w) to (B, P, C)."""
        strips = average_strips(features if self.p == 1 else self.power(features), parts)
        return strips if self.p == 1 else self.root(strips)

    def power(self, features: Tensor) -> Tensor:
        """Compute x^p."""
        return features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=0).pow(self.p)

    def root(self, means: Tensor) -> Tensor:
        """Compute (m + eps)^(1/p)."""
        scale = self.eps**-0.5  # PyTorch's ONNX exporter drops summands below 1e-8: eps, but not eps * scale
        return (means * scale + self.eps * scale).pow(1 / self.p) * scale ** (-1 / self.p)


class PatternMaps(nn.Module):
    """Parts that are learned and not cut: one soft mask for each of K patterns, then masked averages (MPANet).

    As the public code of MPANet computes it: a masked sum is divided by the number of positions, not by the mask's sum.

    Args:
        channels: C.
        patterns: K.
    """

    def __init__(self, channels: int, patterns: int = 6):
        super().__init__()
        self.score = nn.Conv2d(channels, patterns, 1)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Pool features (B, C, h, w).

        Returns:
            The K parts and behind them the global average, (B, (K + 1) * C), and the masks, (B, K, h, w) in [0, 1].
        """
        maps = self.score(features).sigmoid()
        positions = features.flatten(2).mT  # (B, h*w, C)
        parts = maps.flatten(2) @ positions / positions.shape[1]  # (B, K, C)
        return torch.cat([parts.flatten(1), positions.mean(1)], 1), maps

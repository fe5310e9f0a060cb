"""Pooling of feature maps: generalised means, horizontal strips and learned pattern maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.errors import CsviError


def strips_of(features: Tensor, parts: int) -> tuple[int, int]:
    """Cut a map into horizontal strips of equal height, as the public code of HC and MTL does.

    They begin every h // P rows, and the last one ends with the map: where P does not divide h, neighbours overlap by
    the remainder, and no row is left out. Otherwise they are those of `PartHead`.

    Args:
        features: (B, C, h, w).
        parts: P.

    Returns:
        Rows of a strip, and from the beginning of one to that of the next.

    Raises:
        CsviError: there are fewer rows than strips.
    """
    height = int(features.shape[2])
    step = height // parts
    if step == 0:
        raise CsviError(f"a feature map of {height} rows has no {parts} strips: use taller images or fewer parts")
    return height - (parts - 1) * step, step


def average_strips(features: Tensor, parts: int) -> Tensor:
    """Average each of P horizontal strips, see `strips_of`: (B, C, h, w) to (B, P, C), from the top down."""
    size, step = strips_of(features, parts)
    return F.avg_pool2d(features, (size, features.shape[3]), (step, features.shape[3])).squeeze(3).mT


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
        if self.p == 1:
            return features.mean((2, 3))
        features = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=0)
        least = self.eps ** (1 / self.p)
        # Divided by the greatest value, no power overflows; and what is added is no constant below 1e-8, which
        # PyTorch's ONNX exporter drops.
        greatest = features.detach().amax((2, 3)).clamp(min=least)
        mean = (features / greatest[:, :, None, None]).pow(self.p).mean((2, 3))
        return (mean + (least / greatest).pow(self.p)).pow(1 / self.p) * greatest

    def strips(self, features: Tensor, parts: int) -> Tensor:
        """Pool each of P strips, see `strips_of`: (B, C, h, w) to (B, P, C)."""
        size, step = strips_of(features, parts)
        return torch.stack([self(features[:, :, top : top + size]) for top in range(0, parts * step, step)], 1)


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

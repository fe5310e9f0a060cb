"""Layers between the stages of a backbone: modality alleviation (MPANet), aggregation and diverse embeddings (DEEN)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.model.attention import residual


class ModalityAlleviation(nn.Module):
    """Modality alleviation module (MAM) of MPANet (Wu et al., CVPR 2021): instance norm where a gate m is closed.

    m x + (1 - m) IN(x), with one gate a channel and image, and statistics of the image also in evaluation.

    Args:
        channels: C.
        reduction: C / reduction channels between the two layers of the gate.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        inner = max(1, channels // reduction)
        squeeze, excite = nn.Conv2d(channels, inner, 1, bias=False), nn.Conv2d(inner, channels, 1, bias=False)
        for convolution in (squeeze, excite):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        gate = self.gate(features)  # (B, C, 1, 1)
        return gate * features + (1 - gate) * F.instance_norm(features)


class MultiFeatureAggregation(nn.Module):
    """Multi-stage feature aggregation (MFA) of DEEN (Zhang et al., CVPR 2023): a stage's output attends to its input.

    First by channels, then by positions, each added with a batch norm that is 0 at first; as the public code computes
    it. Products are associated so that no matrix of positions by positions is formed.

    Args:
        high: channels H of the stage's output.
        low: channels L of its input, an even number.
        stride: of the stage.
    """

    def __init__(self, high: int, low: int, stride: int = 1):
        super().__init__()
        self.channels = ChannelAggregation(high, low, stride)
        self.positions = PositionAggregation(high, low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Aggregate.

        Args:
            high: output of the stage, (B, H, h, w).
            low: input of the stage, (B, L, h * stride, w * stride).

        Returns:
            (B, H, h, w).
        """
        return self.positions(self.channels(high, low), low)


class ChannelAggregation(nn.Module):
    """The first half of `MultiFeatureAggregation`: y = (theta phi^T / L) g, between L channels of either map.

    Args:
        high, low, stride: H, L and the stride, see `MultiFeatureAggregation`.
    """

    def __init__(self, high: int, low: int, stride: int):
        super().__init__()
        self.theta, self.phi = nn.Conv2d(high, low, 1), nn.Conv2d(low, low, 1, stride)
        self.g, self.out = nn.Conv2d(low, low, 1), residual(low, high, stride)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Add to the stage's output (B, H, h, w) what its input gives, (B, L, h * stride, w * stride): (B, H, h, w)."""
        theta, phi, g = self.theta(high).flatten(2), self.phi(low).flatten(2), self.g(low).flatten(2)
        affinity = theta @ (phi / phi.shape[1]).mT  # (B, L, L)
        return high + self.out((affinity @ g).unflatten(2, low.shape[2:]))


class PositionAggregation(nn.Module):
    """The second half of `MultiFeatureAggregation`: y = theta (phi^T g) between positions, as in `NonLocal`.

    The public code reads its L/2 channels of P positions as L channels of P/2: the first and the second half of the
    positions of a channel become two channels. That is kept here, as what was published was trained like this.

    Args:
        high, low: H and L, see `MultiFeatureAggregation`.
    """

    def __init__(self, high: int, low: int):
        super().__init__()
        self.theta = nn.Conv2d(high, low // 2, 1)
        self.phi, self.g = (nn.Conv2d(low, low // 2, 1) for _ in range(2))
        self.out = residual(low // 2, high)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Add to the stage's output (B, H, h, w) what its input gives, (B, L, h', w') of any size: (B, H, h, w)."""
        theta, phi, g = (halves(x) for x in (self.theta(high), self.phi(low), self.g(low)))
        y = g @ (phi / phi.shape[2]).mT @ theta  # (B, L, P/2)
        height, width = high.shape[2:]
        y = y.unflatten(1, (-1, 2)).flatten(2)[..., : height * width]  # (B, L/2, P)
        return high + self.out(y.unflatten(2, (height, width)))


def halves(x: Tensor) -> Tensor:
    """Read the two halves of the P positions of each channel as channels: (B, C, h, w) to (B, 2C, P/2).

    The public code takes an even P only. An odd one is made even by a position of zeros at the end, which adds nothing
    to a sum over positions.
    """
    positions = x.flatten(2)
    even = F.pad(positions, (0, positions.shape[2] % 2))
    return even.unflatten(2, (2, -1)).flatten(1, 2)


class DiverseEmbedding(nn.Module):
    """Diverse embedding expansion (DEE) of DEEN (Zhang et al., CVPR 2023): more embeddings of each image.

    A branch is a 1x1 convolution of the ReLU of the mean of three dilated convolutions, and its output is not added to
    its input.

    Args:
        channels: C.
        branches: N.
        dropout: of all outputs.
    """

    def __init__(self, channels: int, branches: int = 2, dropout: float = 0.01):
        super().__init__()
        self.branches = nn.ModuleList(DiverseBranch(channels) for _ in range(branches))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to ((1 + N) * B, C, h, w): all images, then what the first branch makes of them, and so on."""
        return self.dropout(torch.cat([features, *(branch(features) for branch in self.branches)]))


class DiverseBranch(nn.Module):
    """A branch of `DiverseEmbedding`, by way of C / 4 channels."""

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 3)):
        super().__init__()
        inner = channels // 4
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, inner, 3, padding=dilation, dilation=dilation, bias=False) for dilation in dilations
        )
        self.expand = nn.Conv2d(inner, channels, 1)
        for convolution in (*self.dilated, self.expand):
            nn.init.kaiming_normal_(convolution.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        mean = torch.stack([convolution(features) for convolution in self.dilated]).mean(0)
        return self.expand(mean.relu())

"""Layers that stand together in several networks."""

from torch import nn


def convolution_block(channels: int, width: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias, which keeps the resolution but for its stride, then batch norm and ReLU.

    Args:
        channels, width: of its input and of its output, (B, channels, h, w) to (B, width, h / stride, w / stride).
        size: of its kernel, odd.
        stride: of the convolution.
    """
    convolution = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

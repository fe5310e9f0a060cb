"""What the field's methods do to the channels of an image: copy one into all, change the contrast, blur.

Their public code exchanges channels and erases after normalisation; here both are done to bytes, before it, and give
the nearest byte: each of the two differs from theirs by at most half a grey level, less than 0.009 after normalisation,
where theirs lies within [0, 255].
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast

from csvi.data.batch import MEAN, STD
from csvi.data.views import Erase, Operation

Weights = tuple[float, float, float]
"""Weights of red, green and blue."""

COPY: tuple[Weights, ...] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
GREY: Weights = 0.2989, 0.587, 0.114


def nearest_color(normalized: tuple[float, float, float]) -> tuple[int, int, int]:
    """Find the colour, in bytes, that comes nearest to these values of red, green and blue once it is normalised."""
    values = ((value * std + mean) * 255 for value, mean, std in zip(normalized, MEAN, STD, strict=True))
    red, green, blue = (min(max(round(value), 0), 255) for value in values)
    return red, green, blue


def caj_erase(
    p: float, area: tuple[float, float] = (0.02, 0.4), fill: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
) -> Erase:
    """Erase with probability p as the public code of CAJ (Ye et al., ICCV 2021) does, which DEEN and PMT share.

    Args:
        p: probability.
        area: least and greatest share of the image.
        fill: colour after normalisation; by default CAJ's, which is neither the mean colour nor black.
    """
    return Erase(p, area, (0.3, 1 / 0.3), nearest_color(fill), "uniform", tries=100)


@dataclass(frozen=True)
class ExchangeChannels(Operation):
    """Set all channels, as they are after normalisation, to one of them or to a grey, as the public code of CAJ does.

    (Ye et al., ICCV 2021: the second visible view always copies a channel; infrared images do so with probability 3/4,
    and otherwise turn grey with probability 1/2.) The channels of ImageNet differ in mean and standard deviation:
    afterwards all three are equal when they are normalised, and their bytes are not. White copied from blue into red
    and black from red into blue want bytes outside of [0, 255] and are clipped, by up to 23 levels, 0.4 after
    normalisation; nothing else differs from the public code by more than half a level.
    """

    copy: float = 1.0
    """Probability of copying a channel, red, green or blue alike."""
    grey: float = 0.0
    """Probability of a grey, 0.2989 R + 0.587 G + 0.114 B, where no channel is copied; otherwise nothing changes."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Weights | None:
        """Draw the weights of the channels in the sum that all channels become; None to leave them as they are."""
        if rng.random() < self.copy:
            return COPY[int(rng.integers(3))]
        return GREY if rng.random() < self.grey else None

    def apply(self, image: Tensor, mask: Tensor | None, drawn: Weights | None) -> tuple[Tensor, Tensor | None]:
        if drawn:
            rows = zip(drawn, image, MEAN, STD, strict=True)
            common = sum((channel - 255 * mean) * (weight / std) for weight, channel, mean, std in rows if weight)
            for channel, mean, std in zip(image, MEAN, STD, strict=True):  # each (H, W): in place
                channel.copy_((common * std + 255 * mean).round_().clamp_(0, 255))
        return image, mask


@dataclass(frozen=True)
class Jitter(Operation):
    """Change brightness and contrast by random factors, one after the other in either order: torchvision's ColorJitter.

    The defaults are those of PMT (Lu et al., arXiv:2212.00226) for infrared images. Its public code works with Pillow,
    which rounds the mean grey that contrast is measured from: bytes differ by at most 1 after each of the two changes.
    """

    brightness: float = 0.3
    """Greatest difference of the factor from 1; at most 1."""
    contrast: float = 0.3
    """The same of the contrast."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[tuple[str, float]]:
        """Draw what is changed first and what then, each with its factor."""
        amounts = ("brightness", self.brightness), ("contrast", self.contrast)
        order = amounts[:: 1 if rng.random() < 0.5 else -1]
        return [(name, rng.uniform(1 - amount, 1 + amount)) for name, amount in order]

    def apply(self, image: Tensor, mask: Tensor | None, drawn: list[tuple[str, float]]) -> tuple[Tensor, Tensor | None]:
        adjust = {"brightness": adjust_brightness, "contrast": adjust_contrast}
        for name, factor in drawn:
            image.copy_(adjust[name](image, factor))
        return image, mask


@dataclass(frozen=True)
class Blur(Operation):
    """Blur an image with a Gaussian kernel, reflecting it at its edges: torchvision's GaussianBlur.

    The defaults are those of PMT (Lu et al., arXiv:2212.00226) for infrared images. Both sides of an image have to be
    longer than half the kernel.
    """

    size: int = 21
    """Length of the kernel in pixels, odd."""
    sigma: tuple[float, float] = (0.1, 3.0)
    """Least and greatest standard deviation of the kernel in pixels, drawn uniformly."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> float:
        """Draw the standard deviation."""
        return rng.uniform(*self.sigma)

    def apply(self, image: Tensor, mask: Tensor | None, drawn: float) -> tuple[Tensor, Tensor | None]:
        down, across = (self._matrix(length, drawn) for length in image.shape[1:])
        return image.copy_((down @ image.float() @ across.T).round_()), mask

    def _matrix(self, length: int, sigma: float) -> Tensor:
        """The kernel at each pixel of a line, folded back where it reaches over an end: (length, length)."""
        offset = torch.arange(self.size) - self.size // 2
        kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
        position = (torch.arange(length)[:, None] + offset).abs()  # (length, size)
        position = length - 1 - (length - 1 - position).abs()
        return torch.zeros(length, length).scatter_add_(1, position, (kernel / kernel.sum()).expand(length, -1))

"""Augmentation as views: a view is a list of operations, and a method chooses the views of each modality.

Images are augmented as bytes, in the loader processes. What the field's methods do to the channels of an image is in
`csvi.data.channel_views`. An operation that the package does not have is a class in the method's own file:

    @dataclass(frozen=True)
    class Posterize(Operation):
        def draw(self, rng, height, width):
            return int(rng.integers(4))

        def apply(self, image, mask, drawn):
            return image >> drawn << drawn, mask
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from csvi.config import DataConfig
from csvi.data.records import Modality

MEAN_COLOR = 124, 116, 104
"""The mean of ImageNet as bytes; it becomes 0 when it is normalised, but for the rounding: within 0.01."""


class Operation:
    """One step of augmentation: a frozen dataclass, random by the given generator alone, so that runs can resume."""

    def happens(self, rng: np.random.Generator, epoch: int) -> bool:
        """Decide whether an image is changed at all, in this epoch (from 0); draws once if this is left to chance."""
        return True

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Any:
        """Draw what `apply` needs to know, for an image of this size in pixels."""
        return None

    def apply(self, image: Tensor, mask: Tensor | None, drawn: Any) -> tuple[Tensor, Tensor | None]:
        """Change an image (3, H, W) uint8 and its mask (1, H, W) uint8, if it has one, in place or into new tensors."""
        raise NotImplementedError


View = tuple[Operation, ...]
"""Operations in the order in which they are applied."""

Views = Mapping[Modality, Sequence[View]]
"""The views of each modality; an image gives one row of a batch for each."""


@dataclass(frozen=True)
class ByChance(Operation):
    """An operation that happens with probability p."""

    p: float

    def happens(self, rng: np.random.Generator, epoch: int) -> bool:
        return rng.random() < self.p


@dataclass(frozen=True)
class OneOf(Operation):
    """Exactly one of these operations, each as likely as the others, whatever its own chance to happen."""

    operations: tuple[Operation, ...]

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[Operation, Any]:
        """Draw one of the operations, and what it needs to know."""
        operation = self.operations[int(rng.integers(len(self.operations)))]
        return operation, operation.draw(rng, height, width)

    def apply(self, image: Tensor, mask: Tensor | None, drawn: tuple[Operation, Any]) -> tuple[Tensor, Tensor | None]:
        operation, values = drawn
        return operation.apply(image, mask, values)


@dataclass(frozen=True)
class Flip(ByChance):
    """Mirror image and mask horizontally."""

    def apply(self, image: Tensor, mask: Tensor | None, drawn: Any) -> tuple[Tensor, Tensor | None]:
        return image.flip(-1), None if mask is None else mask.flip(-1)


@dataclass(frozen=True)
class Shift(Operation):
    """Move image and mask by up to `pad` pixels: the same as padding and cropping at random."""

    pad: int
    fill: int = 0
    """Byte in all channels of the padding: black; MPANet (Wu et al., CVPR 2021) has 127. A mask is 0 there."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int]:
        """Draw by how many pixels to move down and to the right."""
        down, right = rng.integers(-self.pad, self.pad, 2, endpoint=True).tolist()
        return down, right

    def apply(self, image: Tensor, mask: Tensor | None, drawn: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        return _moved(image, *drawn, self.fill), None if mask is None else _moved(mask, *drawn)


@dataclass(frozen=True)
class Grayscale(ByChance):
    """Turn an image grey; it keeps three channels."""

    epochs: float = math.inf
    """First epochs, in which it may happen; 6 with p = 1 is the first stage of PMT (Lu et al., arXiv:2212.00226)."""

    def happens(self, rng: np.random.Generator, epoch: int) -> bool:
        return epoch < self.epochs and super().happens(rng, epoch)

    def apply(self, image: Tensor, mask: Tensor | None, drawn: Any) -> tuple[Tensor, Tensor | None]:
        return image.copy_(rgb_to_grayscale(image, 3)), mask


@dataclass(frozen=True)
class Erase(ByChance):
    """Fill a rectangle of an image with one colour; its mask stays. The defaults are torchvision's.

    The code of CAJ (Ye et al., ICCV 2021), which DEEN and PMT share, draws the ratio uniformly and tries 100 times; its
    colours are given after normalisation (`csvi.data.channel_views.nearest_color`).
    """

    area: tuple[float, float] = (0.02, 0.33)
    """Least and greatest share of the image."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Least and greatest ratio of height to width."""
    fill: tuple[int, int, int] = MEAN_COLOR
    """Colour."""
    ratio_law: Literal["log-uniform", "uniform"] = "log-uniform"
    """How the ratio is distributed."""
    tries: int = 10
    """Rectangles that are drawn until one fits into the image."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int] | None:
        """Draw top, left, height and width of a rectangle; None if none of the tries fits into the image."""
        for _ in range(self.tries):
            area = rng.uniform(*self.area) * height * width
            uniform = self.ratio_law == "uniform"
            ratio = rng.uniform(*self.ratio) if uniform else math.exp(rng.uniform(*np.log(self.ratio)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                return int(rng.integers(height - h, endpoint=True)), int(rng.integers(width - w, endpoint=True)), h, w
        return None

    def apply(self, image: Tensor, mask: Tensor | None, drawn: Any) -> tuple[Tensor, Tensor | None]:
        if drawn:
            top, left, height, width = drawn
            image[:, top : top + height, left : left + width] = torch.tensor(self.fill, dtype=image.dtype).view(3, 1, 1)
        return image, mask


def standard_views(data: DataConfig) -> Views:
    """One view a modality, as in Section 4.3: flip, pad and crop, grey if visible, erase."""

    def view(grayscale: float) -> View:
        return Flip(data.flip), Shift(data.pad), Grayscale(grayscale), Erase(data.erase)

    return {Modality.VISIBLE: (view(data.grayscale),), Modality.INFRARED: (view(0.0),)}


def draw(
    view: View, seed: int | tuple[int, ...], height: int, width: int, epoch: int = 0
) -> list[tuple[Operation, Any]]:
    """Draw the operations of a view that happen to one image, and with each what it drew.

    First every operation decides whether it happens, in their order; then those that do draw, in the same order. The
    seed fixes all that is drawn; the epoch is counted from 0, the size is in pixels.
    """
    rng = np.random.default_rng(seed)
    happening = [operation for operation in view if operation.happens(rng, epoch)]
    return [(operation, operation.draw(rng, height, width)) for operation in happening]


def augment(
    view: View, image: Tensor, mask: Tensor | None, seed: int | tuple[int, ...], epoch: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Apply a view to an image (3, H, W) uint8 and its mask (1, H, W) uint8, which may be changed in place.

    Other arguments are those of `draw`.
    """
    height, width = image.shape[1:]
    for operation, drawn in draw(view, seed, height, width, epoch):
        image, mask = operation.apply(image, mask, drawn)
    return image, mask


def _moved(pixels: Tensor, down: int, right: int, fill: int = 0) -> Tensor:
    """Move (C, H, W) pixels; what comes in from outside has the byte `fill`."""
    rows, columns = (_overlap(shift, size) for shift, size in ((down, pixels.shape[1]), (right, pixels.shape[2])))
    moved = torch.full_like(pixels, fill)
    moved[:, rows[1], columns[1]] = pixels[:, rows[0], columns[0]]
    return moved


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """The part of a row that stays inside after a shift: its source and its destination."""
    left = max(size - abs(shift), 0)
    start = max(-shift, 0), max(shift, 0)
    return slice(start[0], start[0] + left), slice(start[1], start[1] + left)

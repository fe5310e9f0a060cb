"""From stored pixels to the network's input; geometry moves an image and its mask together.

Images are varied as bytes, and made numbers a batch at a time where the network is: `normalize`.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from csvi.config import DataConfig
from csvi.data.records import Modality

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the pretrained backbones expect."""

MEAN_COLOR = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8).view(3, 1, 1)
"""What is erased becomes 0 when it is normalised, but for the rounding: within 0.01."""

ERASED_SHARE, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
"""Of an image, and height by width; torchvision's defaults."""


class Variation(NamedTuple):
    """How an image is varied (Section 4.3)."""

    flip: bool
    """Mirrored, before all else."""
    down: int
    """Pixels that it is moved by; what is not in it is black."""
    right: int
    grey: bool
    erase: tuple[int, int, int, int] | None
    """Top, left, height and width of what is erased; the mask is never erased."""


def draw_variation(seed: int, modality: Modality, config: DataConfig) -> Variation:
    """Flip; pad and crop, which is to move; grey, if it is visible; erase. The same seed gives the same."""
    rng = np.random.default_rng(seed)
    flip, grey, erase = rng.random(3) < (config.flip, config.grayscale, config.erase)
    down, right = rng.integers(-config.pad, config.pad, 2, endpoint=True).tolist()
    box = _draw_box(rng, config.height, config.width) if erase else None
    return Variation(bool(flip), down, right, bool(grey) and modality == Modality.VISIBLE, box)


def _draw_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int] | None:
    """As torchvision's RandomErasing: top, left, height and width of a rectangle; None if ten do not fit."""
    for _ in range(10):
        area = rng.uniform(*ERASED_SHARE) * height * width
        ratio = math.exp(rng.uniform(*np.log(ERASED_RATIO)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            return int(rng.integers(height - h, endpoint=True)), int(rng.integers(width - w, endpoint=True)), h, w
    return None


def vary(batch: dict[str, Tensor], variations: Sequence[Variation]) -> dict[str, Tensor]:
    """A batch whose images are varied, each in its own way, and whose masks are moved with them.

    Args:
        batch: `image` (B, 3, H, W) uint8 and, if there is one, `mask` (B, 1, H, W) uint8.
        variations: B.
    """
    moved = {key: _move(batch[key], variations) for key in ("image", "mask") if key in batch}
    for image, variation in zip(moved["image"], variations, strict=True):
        if variation.grey:
            image.copy_(rgb_to_grayscale(image, 3))
        if variation.erase:
            top, left, height, width = variation.erase
            image[:, top : top + height, left : left + width] = MEAN_COLOR
    return batch | moved


def _move(images: Tensor, variations: Sequence[Variation]) -> Tensor:
    moved = torch.zeros_like(images)
    for image, out, (flip, down, right, *_) in zip(images, moved, variations, strict=True):
        rows, columns = (_overlap(shift, size) for shift, size in ((down, image.shape[1]), (right, image.shape[2])))
        source = image.flip(2) if flip else image
        out[:, rows[1], columns[1]] = source[:, rows[0], columns[0]]
    return moved


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """What of a line is still inside when it is shifted, and where it then is."""
    left = max(size - abs(shift), 0)
    start = max(-shift, 0), max(shift, 0)
    return slice(start[0], start[0] + left), slice(start[1], start[1] + left)


def normalize(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make numbers of a batch of bytes, on whatever device it is; a batch of numbers stays as it is.

    Args:
        batch: `image` (B, 3, H, W) uint8 and, if there is one, `mask` (B, 1, H, W) uint8.

    Returns:
        The same with `image` float32 of the mean and deviation of ImageNet, and `mask` float32 in [0, 1].
    """
    if batch["image"].dtype != torch.uint8:
        return batch
    width = batch["image"].shape[3]
    rows = batch["image"].permute(0, 2, 3, 1).flatten(2)  # as in memory: on a CPU ten times as fast as by channel
    mean, std = _mean_and_std(width, rows.device)
    image = rows.float().mul_(1 / 255).sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
    numbers = {"image": image}
    if "mask" in batch:
        numbers["mask"] = batch["mask"].float().mul_(1 / 255)
    return batch | numbers


@cache  # copying them to a GPU at every step would wait for it
def _mean_and_std(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of a row of pixels, (W * 3,) each."""
    mean, std = (torch.tensor(values, device=device).repeat(width) for values in (MEAN, STD))
    return mean, std

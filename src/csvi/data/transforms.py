"""From stored pixels to the network's input; geometry moves an image and its mask together."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from csvi.config import DataConfig
from csvi.data.records import Modality

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the pretrained backbones expect."""

Transform = Callable[[Tensor, Tensor | None, Modality], tuple[Tensor, Tensor | None]]
"""image (3, H, W) uint8, mask (1, H, W) uint8 or None, modality -> the same as float, the mask in [0, 1]."""

normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def evaluation_transform(image: Tensor, mask: Tensor | None, modality: Modality) -> tuple[Tensor, Tensor | None]:
    """Normalise, nothing else."""
    return normalize(image), None if mask is None else mask.float() / 255


class TrainingTransform:
    """Flip, pad and crop, grey, erase (Section 4.3), by torch's global random numbers; the mask is never erased.

    A class and not a closure, so that it can be sent to loader processes that are spawned and not forked.
    """

    def __init__(self, config: DataConfig):
        self.move = v2.Compose(
            [v2.RandomHorizontalFlip(config.flip), v2.RandomCrop((config.height, config.width), padding=config.pad)]
        )
        self.grey = v2.RandomGrayscale(config.grayscale)
        self.erase = v2.RandomErasing(config.erase)

    def __call__(self, image: Tensor, mask: Tensor | None, modality: Modality) -> tuple[Tensor, Tensor | None]:
        if mask is None:
            image = self.move(image)
        else:
            image, mask = self.move(tv_tensors.Image(image), tv_tensors.Mask(mask))
        if modality == Modality.VISIBLE:
            image = self.grey(image)
        image, mask = evaluation_transform(image, mask, modality)
        return self.erase(image), mask

"""A batch: one object from the loader to the losses, and its preparation for the device."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from csvi.model.two_stream import Route

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, which the pretrained trunks expect."""


class Batch(NamedTuple):
    """B images and what is known about them; in training the visible images come first."""

    image: Tensor
    """(B, 3, H, W): uint8 as loaded, float32 and normalised once prepared."""
    modality: Tensor
    """(B,), 0 for visible and 1 for infrared."""
    identity: Tensor
    """(B,): the label in training, otherwise the dataset's own number."""
    mask: Tensor | None = None
    """(B, 1, H, W), masks of the people: uint8 up to 255 as loaded, float32 up to 1 once prepared."""
    view: Tensor | None = None
    """(B,), number of the row's view among those of its modality; None if images are not augmented."""
    has_mask: Tensor | None = None
    """(B,) bool: whether the row's image has a mask, which is 0 everywhere where not; None if all have one."""
    route: Route | None = None
    """Streams of the network that the rows go through; only in a prepared batch."""

    @classmethod
    def of(cls, images: np.ndarray, modality: int | Sequence[int] = 0) -> "Batch":
        """Images (B, H, W, 3) uint8 of no identity, all of one modality or each of its own."""
        modalities = torch.tensor(modality).expand(len(images))
        return cls(torch.from_numpy(images).permute(0, 3, 1, 2), modalities, torch.zeros(len(images)))

    @property
    def streams(self) -> Route | Tensor:
        """The route of the rows through the streams or, in a batch that is not prepared, their modalities."""
        return self.route or self.modality

    def subset(self, index: Tensor) -> "Batch":
        """Select rows, by their numbers (n,) or by a bool for each (B,); those of a prepared batch have their route."""
        some = Batch(*(None if rows is None else rows[index] for rows in self[:-1]))  # type: ignore[arg-type]
        if self.route is None:
            return some
        return some._replace(route=Route.of(some.modality, len(some.image), some.image.device))


def prepare(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device, normalise it there, and add its route.

    Nothing waits for the device: the route is made while the modalities are still on the CPU, where loaders leave them.
    Images then lie in memory as the networks want, `channels_last`.
    """
    route = Route.of(batch.modality, len(batch.image), device)
    non_blocking = device.type not in ("cpu", "mps")  # MPS would read what is not there yet
    moved = (rows if rows is None else rows.to(device, non_blocking=non_blocking) for rows in batch[:-1])
    batch = normalize(Batch(*moved))  # type: ignore[arg-type]
    return batch._replace(image=batch.image.contiguous(memory_format=torch.channels_last), route=route)


def normalize(batch: Batch) -> Batch:
    """Turn bytes into float32: images normalised by ImageNet's mean and standard deviation, masks in [0, 1].

    A batch of numbers is returned as it is.
    """
    if batch.image.dtype != torch.uint8:
        return batch
    width = batch.image.shape[3]
    rows = batch.image.permute(0, 2, 3, 1).flatten(2)  # as in memory: on a CPU ten times as fast as by channel
    mean, std = _mean_and_std(width, rows.device)
    image = rows.float().mul_(1 / 255).sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
    return batch._replace(image=image, mask=None if batch.mask is None else batch.mask.float().mul_(1 / 255))


@cache  # copying them to a GPU at every step would wait for it
def _mean_and_std(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each value in a row of pixels, (W * 3,) each."""
    mean, std = (torch.tensor(values, device=device).repeat(width) for values in (MEAN, STD))
    return mean, std

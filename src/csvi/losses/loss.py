"""The parts that losses share."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


def full_precision(loss: Loss) -> Loss:
    """Decorate a loss so that it is computed in at least 32 bits, also where autocast computes the network in fewer."""

    @functools.wraps(loss)
    def computed(first: Tensor, *others: object, **options: object) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            options = {name: _at_least_32_bits(value) for name, value in options.items()}
            return loss(*map(_at_least_32_bits, (first, *others)), **options)

    return computed


def _at_least_32_bits(value: object) -> object:
    narrow = isinstance(value, Tensor) and value.is_floating_point() and value.itemsize < 4
    return value.float() if narrow else value  # type: ignore[attr-defined]


def sum_of_modality_means(values: Tensor, modality: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean of the visible images' values plus mean of the infrared ones', (B,) to a scalar.

    Where `counted`, (B,) bool, is given, the means are over these images; a modality with none of them adds 0.
    """
    member = torch.stack([modality == 0, modality == 1])
    if counted is not None:
        member = member & counted
    member = member.to(values.dtype)
    return ((member @ values) / member.sum(1).clamp(min=1)).sum()

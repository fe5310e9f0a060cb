"""The parts that losses share."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[..., Tensor]

FLOOR = 1e-6
"""The smallest distance between two rows, as in public code. What is nearer has this distance, and no gradient."""


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


def mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count, both of one shape, the latter bool; 0 if none does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances, not squared, of each row of (..., A, D) to each of (..., B, D): (..., A, B), from `FLOOR`.

    Public code takes the root of |a|^2 + |b|^2 - 2ab. The differences themselves, as here, give the same up to
    rounding, and keep their digits where two long rows lie close, on GPUs with products in TF32 too. On a GPU their
    gradient takes A·B·D numbers of memory for a moment.
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=FLOOR)


def averages(members: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights of means: bool (..., A, B), the members of each of A groups, to rows that sum to 1, without members to 0.

    Their product with features (B, D) is the groups' centers, (..., A, D).
    """
    return members.to(dtype) / members.sum(-1, keepdim=True).clamp(min=1)


def row_means(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of each row's values that count, (..., A, B) to (..., A); 0 if none does. `counted` is bool."""
    return (averages(counted, values.dtype) * values).sum(-1)


def firsts(alike: Tensor) -> Tensor:
    """The first row of each group, so that a group counts once, without a wait for how many there are.

    `alike`, bool (B, B), says which rows are in one group; (B,) bool comes back.
    """
    return ~alike.tril(-1).any(1)

"""The parts that losses share."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed

Loss = Callable[..., Tensor]

FLOOR = 1e-6
"""The smallest distance between two rows, as in public code. What is nearer has this distance, and no gradient."""


_parts, _gathered = 1, False


@contextlib.contextmanager
def part_of_batch(parts: int = 1, gathered: bool = False) -> Iterator[None]:
    """Tell the losses inside which share of a batch they see; their mean over all shares is then the batch's loss.

    Args:
        parts: micro-batches of the batch, one of which the losses are computed on.
        gathered: processes train together, and each computes every loss on the rows of them all, which it gathers with
            their gradients. The batch is then that of all processes; otherwise it is each one's own.
    """
    global _parts, _gathered
    before = _parts, _gathered
    _parts, _gathered = parts, gathered
    try:
        yield
    finally:
        _parts, _gathered = before


def parts_of_batch() -> int:
    """Micro-batches of the batch that a loss is computed on: a sum over identities is multiplied by it, a mean not."""
    return _parts


def full_precision(loss: Loss, gathers: bool = True) -> Loss:
    """Decorate a loss so that it is computed in at least 32 bits, also where autocast computes the network in fewer.

    Where `part_of_batch` says so, it is also computed on the rows of all processes: those of its first argument and of
    all tensors with as many rows. Without `gathers` it is not, as what is no loss and gives rows back.
    """

    @functools.wraps(loss)
    def computed(first: Tensor, *others: object, **options: object) -> Tensor:
        rows = len(first) if _gathered and gathers else None

        def read(value: Any) -> Any:
            of_batch = rows is not None and isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows
            return _at_least_32_bits(_OfAllProcesses.apply(value) if of_batch else value)

        with torch.autocast(first.device.type, enabled=False):
            options = {name: read(value) for name, value in options.items()}
            return loss(*map(read, (first, *others)), **options)

    return computed


class _OfAllProcesses(torch.autograd.Function):
    """Rows (B, ...) of this process to those of all W processes in the order of their ranks, (W * B, ...).

    Every process computes the same loss of these rows, so that its own part of the gradient needs no communication. It
    comes back W times, as gradients are averaged over the processes afterwards.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        every = rows.new_empty(distributed.get_world_size() * len(rows), *rows.shape[1:])
        distributed.all_gather(list(every.chunk(distributed.get_world_size())), rows.contiguous())
        return every

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        world_size = distributed.get_world_size()
        return world_size * gradients[0].chunk(world_size)[distributed.get_rank()]


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

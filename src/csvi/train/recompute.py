"""Activation checkpointing: memory of a step for arithmetic."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from csvi.errors import CsviError
from csvi.model.timm_trunk import TimmBackbone
from csvi.model.two_stream import TwoStream
from csvi.model.vit import VisionTransformer


def checkpoint_activations(module: nn.Module) -> None:
    """Let the blocks of all backbones in a module keep only their input until the backward pass, in place.

    They are computed again there, on the same random numbers and without a second update of running statistics, so that
    a step is the same; see Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174. What comes
    before the first block of a ResNet and behind the last one is kept as before.

    Raises:
        CsviError: a network of timm cannot do so.
    """
    for block in _blocks(module):
        norms = [norm for norm in block.modules() if isinstance(norm, _BatchNorm)]
        block.forward = functools.partial(_recomputed, block.forward, norms)
    for part in module.modules():
        if isinstance(part, TimmBackbone):
            try:
                part.network.set_grad_checkpointing()
            except (AssertionError, AttributeError) as error:
                raise CsviError("this network of timm cannot compute its activations again: leave out "
                                "--train.checkpoint_activations") from error  # fmt: skip


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.modules():
        if isinstance(part, VisionTransformer):
            yield from part.blocks
        elif isinstance(part, TwoStream):
            for stage, names in enumerate(part.blocks):
                streams = [part.visible, part.infrared] if stage < part.cut else [part.shared]
                yield from (stream.get_submodule(name) for stream in streams for name in names)


def _recomputed(forward: Callable[..., Any], norms: Sequence[_BatchNorm], *inputs: Tensor) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    if torch.compiler.is_compiling():  # such a graph updates running statistics once by itself
        return checkpoint(forward, *inputs, use_reentrant=False)
    contexts = lambda: (contextlib.nullcontext(), _statistics_kept(norms))  # noqa: E731
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Leave running statistics as they are while batches are normalised again."""
    counts = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        tracked = (norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None)
        for now, before in zip(tracked, counts, strict=True):
            now.copy_(before)

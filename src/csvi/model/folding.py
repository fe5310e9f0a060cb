"""Networks that are used and not trained: BatchNorm becomes part of the convolutions before it."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from csvi.model.two_stream import TwoStream

Module = TypeVar("Module", bound=nn.Module)


def folded(network: Module) -> Module:
    """Copy a network, in evaluation mode, with BatchNorm2d layers folded into the convolutions that they follow.

    In evaluation such a layer is a factor and a summand for each channel. Applied to the output of the convolution they
    cost as much memory traffic as the convolution itself; applied to its weights they cost nothing. Layers are folded
    where they are known to be computed in the order in which they are declared; others stay.
    """
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        for block in _in_order(network):
            for (name, convolution), (after, norm) in pairwise(list(block.named_children())):
                if isinstance(convolution, nn.Conv2d) and type(norm) is nn.BatchNorm2d:  # timm's subclass does more
                    setattr(block, name, fuse_conv_bn_eval(convolution, norm))
                    setattr(block, after, nn.Identity())
    return network


def _in_order(network: nn.Module) -> list[nn.Module]:
    """Modules that compute their layers in the order of declaration: torchvision's in streams, and nn.Sequential."""
    parts = [part for part in network.modules() if isinstance(part, TwoStream) and part.in_order]
    streams = [stream for part in parts for stream in (part.visible, part.infrared, part.shared)]
    sequences = [part for part in network.modules() if type(part).forward is nn.Sequential.forward]
    return [*(block for stream in streams for block in stream.modules()), *sequences]

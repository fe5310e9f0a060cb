"""Networks that are used and not trained: BatchNorm becomes part of the convolutions before it."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def folded(network: Module) -> Module:
    """Copy a network, in evaluation mode, with every BatchNorm2d that follows a convolution folded into its weights.

    In evaluation such a layer is a factor and a summand for each channel. Applied to the output of the convolution they
    cost as much memory traffic as the convolution itself; applied to its weights they cost nothing. The layers of a
    block are taken to be computed in their order, as those of torchvision's ResNets and MobileNetV2 are.
    """
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        for block in list(network.modules()):
            for (name, convolution), (after, norm) in pairwise(list(block.named_children())):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(block, name, fuse_conv_bn_eval(convolution, norm))
                    setattr(block, after, nn.Identity())
    return network

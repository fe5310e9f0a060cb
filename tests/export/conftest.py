"""Small networks to export, whose two streams differ."""

import pytest
import torch

from csvi.config import DataConfig
from csvi.export.trained import Trained
from csvi.methods import find_method


@pytest.fixture
def net_of(tiny_trunk):
    """Makes the network of a method, with numbers in each layer that it would not have at birth."""

    def make(method):
        torch.manual_seed(0)
        net = find_method(method).Net(method, 48, 24, 5, "resnet18", parts=3, part_dim=16)
        with torch.no_grad():
            for name, tensor in net.state_dict().items():
                if tensor.is_floating_point():
                    tensor.add_(torch.rand_like(tensor) if name.endswith("var") else 0.1 * torch.randn_like(tensor))
        return net.eval()

    return make


@pytest.fixture
def trained(tmp_path):
    """Makes of a network what is exported."""
    return lambda net: Trained("runs/test", tmp_path, net, "0123456789abcdef", DataConfig(), None)

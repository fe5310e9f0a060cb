"""Small networks to export, whose two streams differ."""

import pytest
import torch

from csvi.config import Config, DataConfig
from csvi.methods import build_method, find_method
from csvi.runs.trained import Trained


@pytest.fixture
def net_of():
    """Makes the network of a method, with numbers in each layer that it would not have at birth."""

    def make(method):
        torch.manual_seed(0)
        small = {"backbone": "resnet18", "parts": 3, "part_dim": 16}
        kind = find_method(method).Settings
        known = {name: value for name, value in small.items() if name in kind.__dataclass_fields__}
        net = build_method(Config(kind(**known), DataConfig(height=48, width=24)), 5).net
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

"""A folded network computes the same, without BatchNorm2d."""

import copy

import pytest
import torch
from torch import nn

from csvi.methods.segment import GuidedNet
from csvi.model.folding import folded
from csvi.model.net import PartNet
from csvi.model.trunk import Stage, Trunk
from csvi.model.two_stream import TwoStream

BACKBONES = ["resnet18", "resnet50", "mobilenet_v2"]  # basic blocks, bottlenecks, inverted residuals: all there are


def with_statistics(net):
    """BatchNorms as after training, each channel with its own mean, scale and shift."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return net


def small(kind=PartNet, backbone="resnet18"):
    return kind("its method", 48, 24, 4, backbone, parts=3, part_dim=8)


@pytest.mark.parametrize(
    ("kind", "backbone"), [*((PartNet, backbone) for backbone in BACKBONES), (GuidedNet, "resnet18")]
)
def test_folded_networks_embed_alike(kind, backbone):
    torch.manual_seed(0)
    net = with_statistics(small(kind, backbone)).double().eval()
    before = copy.deepcopy(net.state_dict())
    lean = folded(net)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in lean.modules())
    image, modality = torch.randn(3, 3, 48, 24, dtype=torch.float64), torch.tensor([1, 0, 1])
    with torch.inference_mode():
        torch.testing.assert_close(lean(image, modality), net(image, modality), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


class Preactivated(nn.Module):
    """Declares a convolution before a BatchNorm that it follows."""

    def __init__(self, channels=4):
        super().__init__()
        self.reduce, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.reduce(self.norm(x))


class Backwards(nn.Sequential):
    """Computes its layers from the last to the first."""

    def forward(self, x):
        for layer in reversed(self):
            x = layer(x)
        return x


class ActivatedNorm(nn.BatchNorm2d):
    """Does more than its base class, as that of timm."""

    def forward(self, x):
        return super().forward(x).relu()


@pytest.mark.parametrize(
    "kind",
    [
        Preactivated,
        lambda: Backwards(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), ActivatedNorm(4)),
    ],
)
def test_layers_of_another_order_or_kind_stay(kind):
    torch.manual_seed(0)
    net = with_statistics(nn.Sequential(kind(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double()).eval()
    lean, image = folded(net), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in lean.modules()) == 1
    torch.testing.assert_close(lean(image), net(image), rtol=1e-9, atol=1e-9)


def test_a_trunk_says_that_its_layers_are_computed_in_another_order():
    torch.manual_seed(0)
    net = with_statistics(TwoStream(Trunk([Stage({"layer": Preactivated(3)}, 3, 1)], in_order=False), cut=0)).eval()
    image = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(net)(image, 0), net(image, 0))


def test_what_is_trained_is_left_in_training():
    net = small()
    assert not folded(net).training
    assert net.training


def test_memory_formats_stay():
    net = folded(small().to(memory_format=torch.channels_last))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)

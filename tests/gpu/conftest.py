"""Tests of what only a GPU can show; the same code runs on a CPU too, among the long ones."""

import pytest
import torch
from torchvision.ops import StochasticDepth

from csvi.methods import build_method
from csvi.runs.settings import as_method
from csvi.train.cost import random_batch

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(
    params=[pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU]), pytest.param("cpu", marks=pytest.mark.long)]
)
def device(request):
    """The kind of the device, as Fabric names it."""
    return request.param


@pytest.fixture
def build(config):
    """Build a method for eight people with weights that follow from its name, and a batch as its loader gives it.

    Dropouts let all through, as devices draw differently; the epoch is one in which all losses have a weight.
    """

    def built(name, backbone="mobilenet_v2"):
        config.method.backbone = backbone
        config.method = as_method(config.method, name)
        torch.manual_seed(0)
        method = build_method(config, 8)
        for layer in method.modules():
            if isinstance(layer, (torch.nn.Dropout, StochasticDepth)):
                layer.p = 0.0
        method.begin_epoch(7)
        return method, random_batch(config, 8, method.views(config.data))

    return built

"""Methods at a size that a step takes milliseconds, and a batch of theirs."""

import pytest
import torch
from torch import nn

from csvi.config import Config, DataConfig
from csvi.data.batch import Batch
from csvi.methods import build_method, find_method
from csvi.model.trunk import Stage, Trunk

HEIGHT, WIDTH = 48, 40  # 16 does not divide the width


@pytest.fixture(autouse=True)
def tiny_trunk(monkeypatch):
    """Every trunk is five convolutions; tests/test_goldens.py and tests/model have real ones."""

    def build_trunk(name):
        stages, channels = [], 3
        for number, (width, stride, total) in enumerate([(8, 4, 4), (8, 1, 4), (8, 2, 8), (16, 2, 16), (16, 1, 16)]):
            convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            layers = {"conv": convolution, "norm": nn.BatchNorm2d(width), "relu": nn.ReLU()}
            stages.append(Stage({f"{key}{number}": layer for key, layer in layers.items()}, width, total))
            channels = width
        return Trunk(stages)

    monkeypatch.setattr("csvi.model.two_stream.build_trunk", build_trunk)


@pytest.fixture
def config_of():
    """Settings of a small run of a method; those that it does not have are left out."""

    def configured(name, **settings):
        small = {"backbone": "mobilenet_v2", "weights": "none", "parts": 3, "part_dim": 8, "widths": (8, 4)}
        kind = find_method(name).Settings
        known = {key: value for key, value in (small | settings).items() if key in kind.__dataclass_fields__}
        return Config(kind(**known), data=DataConfig(height=HEIGHT, width=WIDTH))

    return configured


@pytest.fixture
def build(config_of):
    """Build a method with these settings, for four people."""

    def built(name, seed=0, **settings):
        torch.manual_seed(seed)
        return build_method(config_of(name, **settings), identities=4)

    return built


@pytest.fixture
def batch():
    """Two visible and two infrared images of each of four people."""
    torch.manual_seed(1)
    return Batch(
        image=torch.randn(16, 3, HEIGHT, WIDTH),
        modality=torch.arange(2).repeat_interleave(8),
        identity=torch.arange(4).repeat_interleave(2).repeat(2),
        mask=torch.rand(16, 1, HEIGHT, WIDTH),
    )

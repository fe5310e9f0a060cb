"""Methods at a size that a step takes milliseconds, and a batch of theirs."""

import pytest
import torch

from csvi.config import Config, DataConfig
from csvi.data.batch import Batch
from csvi.methods import build_method, find_method

HEIGHT, WIDTH = 48, 40  # 16 does not divide the width


@pytest.fixture(autouse=True)
def tiny_everywhere(tiny_trunk):
    """Every method here has the tiny trunk."""


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

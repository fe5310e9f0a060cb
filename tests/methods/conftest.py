"""Methods at a size that a step takes milliseconds, and a batch of theirs."""

from pathlib import Path

import pytest
import torch

from csvi.config import Config, DataConfig
from csvi.data.batch import Batch
from csvi.data.views import standard_views
from csvi.methods import build_method, find_method
from csvi.model.vit import SIZES
from csvi.runs import load_config
from csvi.train.loop import seed_step
from csvi.train.optimizer import build_optimizer, set_learning_rate

CONFIGS = Path(__file__).parents[2] / "configs/methods"
HEIGHT, WIDTH = 48, 40  # 16 does not divide the width


@pytest.fixture(autouse=True)
def narrow_transformer(monkeypatch):
    """The smallest transformer is a narrow one, with 3x3 patches an image."""
    monkeypatch.setitem(SIZES, "vit_tiny", (12, 3))


@pytest.fixture
def backbone():
    """The trunk that methods have where a test does not say."""
    return "mobilenet_v2"


@pytest.fixture
def config_of(backbone):
    """Settings of a small run of a method; those that it does not have are left out."""

    def configured(name, **settings):
        small = {"backbone": backbone, "weights": "none", "parts": 3, "part_dim": 8, "widths": (8, 4)}
        kind = find_method(name).Settings
        known = {key: value for key, value in (small | settings).items() if key in kind.__dataclass_fields__}
        return Config(kind(**known), data=DataConfig(height=HEIGHT, width=WIDTH))

    return configured


@pytest.fixture
def build(config_of):
    """Build a method with these settings, for four people; as in training a step draws by its number alone."""

    def built(name, seed=0, **settings):
        torch.manual_seed(seed)
        method = build_method(config_of(name, **settings), identities=4)
        method.register_forward_pre_hook(lambda _, arguments: seed_step(0, arguments[1], 0))
        return method

    return built


@pytest.fixture
def batch_of():
    """Two visible and two infrared images of each of four people: a batch with a row for each view, as of a loader."""

    def of(views):
        torch.manual_seed(1)
        rows = [(int(modality), view) for modality, lists in views.items() for view in range(len(lists))]
        modality, view = torch.tensor(rows).repeat_interleave(8, 0).unbind(1)
        return Batch(
            image=torch.randn(len(view), 3, HEIGHT, WIDTH),
            modality=modality,
            identity=torch.arange(4).repeat_interleave(2).repeat(len(rows)),
            mask=torch.rand(len(view), 1, HEIGHT, WIDTH),
            view=view,
        )

    return of


@pytest.fixture
def batch(batch_of):
    """Such a batch with one view a modality, as most methods have."""
    return batch_of(standard_views(DataConfig()))


@pytest.fixture
def rates_of():
    """Learning rates of the groups of a method in these epochs, from 0, as a file in configs/methods trains it."""

    def of(file, epochs):
        config = load_config(CONFIGS / f"{file}.yaml")
        method = build_method(config, identities=4)
        optimizer = build_optimizer(method.groups(config.train), config.train)
        rates = []
        for epoch in epochs:
            set_learning_rate(optimizer, 10 * epoch, 10, config.train)
            rates.append([group["lr"] for group in optimizer.param_groups])
        return rates

    return of

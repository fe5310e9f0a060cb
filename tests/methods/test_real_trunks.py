"""Every method takes a step on real trunks, at a size that strides do not divide. Long: `pytest -m long`."""

import pytest
import torch

from csvi.config import Config, DataConfig
from csvi.methods import METHODS, build_method, find_method
from csvi.train.cost import random_training

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("real_trunk")]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_finite_and_its_network_embeds(name, backbone):
    settings = find_method(name).Settings(backbone=backbone, weights="none")
    config = Config(settings, DataConfig(height=150, width=70, identities=2, images=2), precision="32-true")
    method, step = random_training(config, identities=3)
    assert all(term.isfinite() for term in step().values())
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())
    net = build_method(config, 3).net.eval()
    with torch.no_grad():
        embeddings = net(torch.randn(3, 3, 150, 70), torch.tensor([1, 0, 1]))
    assert embeddings.isfinite().all()
    assert len(embeddings) == 3

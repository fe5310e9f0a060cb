"""The cost of a step, measured in a process of its own."""

import pytest

from csvi.methods import build_method
from csvi.train.cost import training_cost


@pytest.mark.slow
def test_cost_of_training(config, real_trunk):
    config.data.identities, config.data.images = 4, 2
    cost = training_cost(config, identities=8, steps=2)
    method = build_method(config, identities=8)
    assert cost.parameters_training == sum(p.numel() for p in method.parameters())
    assert cost.parameters_testing == sum(p.numel() for p in method.net.parameters()) < cost.parameters_training
    assert 0 < cost.seconds_a_step < 60
    assert cost.bytes > 2**27  # PyTorch alone takes more
    assert cost.device

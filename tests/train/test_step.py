"""One step: gradient descent on the sum of the terms, and no wait for the device."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from csvi.data.batch import Batch
from csvi.methods import build_method
from csvi.train.cost import random_batch
from csvi.train.loop import train_step


def test_a_step_is_one_of_gradient_descent_on_the_sum_of_the_terms(config):
    torch.manual_seed(0)
    method, fabric = build_method(config, 4).double(), Fabric(accelerator="cpu", devices=1, precision="64-true")
    plain = copy.deepcopy(method)
    wrapped, optimizer = fabric.setup(method, torch.optim.SGD(method.parameters(), 0.001))
    batch = Batch(
        image=torch.randn(8, 3, 48, 24, dtype=torch.float64),
        modality=torch.arange(8) // 4,
        identity=torch.arange(8) % 4,
        mask=torch.rand(8, 1, 48, 24, dtype=torch.float64),
    )
    for step in range(3):  # the gradient of the first step must not come back in the second
        terms, finite = train_step(fabric, method, wrapped, optimizer, batch, step)
        assert finite
        expected = plain(batch, step)
        gradients = torch.autograd.grad(sum(expected.values()), list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                parameter -= 0.001 * gradient
    torch.testing.assert_close(terms, expected, check_dtype=False, rtol=1e-3, atol=1e-4)


def test_without_a_route_the_modalities_are_asked_for(config):
    """tests/methods/test_every_method.py has the steps that ask for nothing: here one would be found that does."""
    with torch.device("meta"):
        method = build_method(config, 8)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        method.to_empty(device="cuda")
        with pytest.raises(DataDependentOutputException):
            method(random_batch(config, 8), 0)

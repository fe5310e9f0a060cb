"""How far a ResNet in bfloat16 and in float32 is from float64.

MobileNetV2 is further away in bfloat16: some of its channels vary far less than they are large, which is all that is
left of them after normalisation.
"""

import copy

import pytest
import torch
from torch.nn import functional as F

from csvi.evaluate.embed import embed
from csvi.fabric import make_fabric, on_device
from csvi.model import build_network
from csvi.model.network import AUXILIARIES

LOSS = {"32-true": 1e-5, "bf16-mixed": 0.03}
"""Relative error allowed."""
COSINE = {"32-true": 1 - 1e-6, "bf16-mixed": 0.998}
"""Least similarity of an embedding to the exact one."""


@pytest.fixture(params=LOSS)
def precision(request):
    return request.param


@pytest.fixture
def batch(config):
    """Of images with something in them: noise is the same in every strip once it is averaged."""
    torch.manual_seed(1)
    config.model.backbone = "resnet18"
    identity, modality = torch.arange(32) % 4, torch.arange(32) // 16
    image = F.interpolate(torch.randn(32, 3, 6, 3), (48, 24), mode="bilinear")
    return {"image": image, "identity": identity, "modality": modality, "mask": torch.rand(32, 1, 48, 24)}


def exact(network, batch):
    """Network and batch in float64."""
    double = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
    return copy.deepcopy(network).double(), double


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_losses_agree_with_float64(config, batch, precision, auxiliary):
    config.model.auxiliary, config.precision = auxiliary, precision
    torch.manual_seed(0)
    network = build_network(config, 4)
    double, double_batch = exact(network, batch)
    fabric = make_fabric(config)
    terms = network.losses(fabric.setup(network)(on_device(batch, fabric)), batch, config.loss)
    expected = double.losses(double(double_batch), double_batch, config.loss)
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(
        {name: float(term.detach()) for name, term in expected.items()}, rel=LOSS[precision]
    )


def test_embeddings_agree_with_float64(config, batch, precision):
    config.precision = precision
    torch.manual_seed(0)
    network = build_network(config, 4)
    for _ in range(20):  # so that the running statistics are those of these images
        network.train()(batch)
    double, double_batch = exact(network.net.eval(), batch)
    embeddings = embed(network.net, [batch], make_fabric(config))
    assert embeddings.dtype == torch.float32
    cosine = F.cosine_similarity(embeddings.double(), double(double_batch["image"], batch["modality"]))
    assert cosine.min() > COSINE[precision]
    assert F.cosine_similarity(embeddings[:1], embeddings[1:]).max() < 0.9  # or any precision would do

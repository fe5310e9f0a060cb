"""How far a ResNet in bfloat16 and in float32 is from float64.

MobileNetV2 is further away in bfloat16: some of its channels vary far less than they are large, which is all that is
left of them after normalisation.
"""

import copy

import pytest
import torch
from torch.nn import functional as F

from csvi.data.batch import Batch, prepare
from csvi.fabric import make_fabric
from csvi.methods import METHODS, build_method
from csvi.runs.embeddings import embed
from csvi.runs.settings import as_method

pytestmark = pytest.mark.usefixtures("real_trunk")

LOSS = {"32-true": 1e-5, "bf16-mixed": 0.03}
"""Relative error allowed."""
COSINE = {"32-true": 1 - 1e-6, "bf16-mixed": 0.998}
"""Least similarity of an embedding to the exact one."""


@pytest.fixture
def batch(config):
    """Of images with something in them: noise is the same in every strip once it is averaged."""
    torch.manual_seed(1)
    config.method.backbone = "resnet18"
    image = F.interpolate(torch.randn(32, 3, 6, 3), (48, 24), mode="bilinear")
    return Batch(image, torch.arange(32) // 16, torch.arange(32) % 4, torch.rand(32, 1, 48, 24))


def exact(module, batch):
    """Module and batch in float64."""
    double = batch._replace(image=batch.image.double(), mask=batch.mask.double())
    return copy.deepcopy(module).double(), double


@pytest.mark.parametrize("name", METHODS)
def test_losses_agree_with_float64(config, batch, name):
    config.method = as_method(config.method, name)
    torch.manual_seed(0)
    method = build_method(config, 4)
    for layer in method.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0  # which draws otherwise in 64 bits
    double, double_batch = exact(method, batch)
    expected = {term: float(value.detach()) for term, value in double(double_batch, 0).items()}
    for precision, error in LOSS.items():
        fabric = make_fabric(precision)
        terms = fabric.setup(method)(prepare(batch, fabric.device), 0)
        assert {term: float(value.detach()) for term, value in terms.items()} == pytest.approx(expected, rel=error)


@pytest.mark.slow
def test_embeddings_agree_with_float64(config, batch):
    torch.manual_seed(0)
    method = build_method(config, 4)
    with torch.no_grad():
        for _ in range(20):  # so that the running statistics are those of these images
            method.train()(batch, 0)
    double, double_batch = exact(method.net.eval(), batch)
    with torch.no_grad():
        expected = double(double_batch.image, batch.modality)
    for precision, least in COSINE.items():
        embeddings = embed(method.net, [batch], make_fabric(precision))
        assert embeddings.dtype == torch.float32
        assert F.cosine_similarity(embeddings.double(), expected).min() > least
        assert F.cosine_similarity(embeddings[:1], embeddings[1:]).max() < 0.9  # or any precision would do

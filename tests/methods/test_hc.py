"""HC against its public code: sizes and learning rates; its losses and embeddings written out.

goldens_of_hc_hctri_and_mtl.json has the values of the public code.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csvi.config import DataConfig
from csvi.data.views import Flip, draw
from csvi.methods import build_method
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_hc_hctri_and_mtl.json").read_text())["HC"]
CONFIG = Path(__file__).parents[2] / "configs/methods/hc.yaml"


def test_numbers_of_parameters_are_the_public_codes(real_trunk):
    with torch.device("meta"):
        method = build_method(load_config(CONFIG), identities=395)
        embedding = method.net.eval()(torch.empty(1, 3, 288, 144), 1)
    assert [sum(p.numel() for p in module.parameters()) for module in (method, method.net)] == GOLDENS["parameters"]
    assert embedding.shape == (1, GOLDENS["dim"])


def test_settings_are_the_public_codes(rates_of):
    epochs, *expected = zip(*GOLDENS["rates"], strict=True)
    np.testing.assert_allclose(rates_of("hc", epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIG)
    assert config.method.name == "hc"
    assert config.train.epochs == GOLDENS["epochs"]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.identities, config.data.images, config.data.replacement) == (4, 8, False)


def test_images_are_mirrored_and_nothing_else_by_the_configuration(build):
    views = build("hc").views(load_config(CONFIG).data)
    for (view,) in views.values():
        drawn = [each for seed in range(50) for each in draw(view, seed, 48, 40)]
        happening = [operation for operation, values in drawn if values != (0, 0)]  # a shift by nothing
        assert {type(operation) for operation in happening} == {Flip}
        assert 10 < len(happening) < 40
    assert build("hc").unused(DataConfig(pad=3)) == []  # padding may be switched on


def strips_of(method, batch):
    """Part by part: the mean of a row of the map, FC, batch norm in training."""
    net, (embed, norm) = method.net, method.net.embed
    features = torch.cat([net.backbone(batch.image[batch.modality == m], m) for m in (0, 1)])
    assert features.shape[2:] == (3, 3)
    found = []
    for p in range(3):
        y = features[:, :, p].mean(2) @ embed.weight[p] + embed.bias[p]
        gamma, beta = (values.view(3, -1)[p] for values in (norm.weight, norm.bias))
        found.append((y - y.mean(0)) / (y.var(0, correction=0) + 1e-5).sqrt() * gamma + beta)
    return found


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_terms_are_those_of_the_public_code(build, batch, distance):
    method = build("hc", center_distance=distance, center_weight=0.7)
    for parameter in [*method.classify.parameters(), *method.net.embed.parameters()]:
        torch.nn.init.normal_(parameter)  # biases too, and scores that differ
    terms, classify = method(batch, 0), method.classify[1]
    identity = center = 0.0
    for p, y in enumerate(strips_of(method, batch)):
        scores = F.leaky_relu(y, 0.1) @ classify.weight[p] + classify.bias[p]
        identity = identity + F.cross_entropy(scores, batch.identity)
        y = F.normalize(y)
        for person in range(4):
            of_person = batch.identity == person
            v, t = (y[of_person & (batch.modality == m)].mean(0) for m in (0, 1))
            center += {
                "l2": (v - t).square().sum(), "l1": (v - t).abs().mean(), "cosine": 1 - F.cosine_similarity(v, t, 0),
            }[distance]  # fmt: skip
    torch.testing.assert_close(terms, {"identity": identity, "center": 0.7 * center})


def test_of_the_trunk_nothing_is_shared(build, batch):
    net = build("hc").net.eval()
    before = net(batch.image, batch.modality)
    for parameter in net.backbone.infrared.parameters():
        torch.nn.init.normal_(parameter)
    same = (net(batch.image, batch.modality) == before).all(1)
    assert torch.equal(same, batch.modality == 0)
    assert len(net.backbone.shared) == 0


def test_each_strip_of_an_embedding_has_the_length_1(build, batch):
    net = build("hc").net.eval()
    embedding = net(batch.image, batch.modality)
    strips = net.strips(batch.image, batch.modality)
    expected = strips / strips.norm(dim=2, keepdim=True)
    torch.testing.assert_close(embedding, expected.flatten(1))


def test_initial_weights_are_those_of_the_public_code(real_trunk, build):
    torch.manual_seed(0)
    method = build("hc", backbone="resnet18", part_dim=128)
    embed, norm = method.net.embed
    classify = method.classify[1]
    assert embed.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.02)  # Kaiming, by the outputs
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.002)
    assert norm.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert classify.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert all((bias == 0).all() for bias in (embed.bias, norm.bias, classify.bias))

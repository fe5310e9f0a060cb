"""HcTri against its public code: sizes and learning rates; its losses and embeddings written out.

goldens_of_hc_hctri_and_mtl.json has the values of the public code.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csvi.methods import build_method
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_hc_hctri_and_mtl.json").read_text())["HcTri"]
CONFIGS = Path(__file__).parents[2] / "configs/methods"


def test_numbers_of_parameters_are_the_public_codes(real_trunk):
    with torch.device("meta"):
        method = build_method(load_config(CONFIGS / "hctri.yaml"), identities=395)
        embedding = method.net.eval()(torch.empty(1, 3, 288, 144), 1)
    assert [sum(p.numel() for p in module.parameters()) for module in (method, method.net)] == GOLDENS["parameters"]
    assert embedding.shape == (1, GOLDENS["dim"])


@pytest.mark.parametrize(
    ("file", "of_data", "of_method"),
    [("hctri", ("sysu", 6, 8), (3, 1, 0)), ("hctri-regdb", ("regdb", 8, 4), (10, 2, 0.1))],
)
def test_settings_are_the_public_codes(rates_of, file, of_data, of_method):
    epochs, *expected = zip(*GOLDENS["rates"], strict=True)
    np.testing.assert_allclose(rates_of(file, epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIGS / f"{file}.yaml")
    assert config.train.epochs == GOLDENS["epochs"]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.layout, config.data.identities, config.data.images) == of_data
    assert (config.data.pad, config.data.flip, config.data.erase, config.data.replacement) == (10, 0.5, 0, True)
    assert (config.method.power, config.method.part_weight, config.method.smoothing) == of_method


def triplet(features, batch):
    """Of each center: the distance to its person's other center, less that of the nearest other person's, plus 0.3."""
    people, found = range(4), []
    centers = {(n, m): features[(batch.identity == n) & (batch.modality == m)].mean(0) for n in people for m in (0, 1)}
    for (n, m), center in centers.items():
        negative = min((center - other).norm() for (k, _), other in centers.items() if k != n)
        found.append(F.relu((center - centers[n, 1 - m]).norm() - negative + 0.3))
    return sum(found) / len(found)


@pytest.mark.parametrize(("power", "smoothing"), [(3.0, 0.0), (10.0, 0.1)])
def test_terms_are_those_of_the_public_code(build, batch, power, smoothing):
    method = build("hctri", power=power, smoothing=smoothing, part_weight=0.7)
    for parameter in [*method.classify.parameters(), *method.net.embed.parameters()]:
        torch.nn.init.normal_(parameter)  # biases too, and scores that differ
    terms, net = method(batch, 0), method.net
    features, (embed, norm, _) = net.features(batch.image, batch.modality), net.embed
    identity, strips = 0.0, []
    for p in range(3):
        pooled = (features[:, :, p].pow(power).mean(2) + 1e-12).pow(1 / power)
        y = pooled @ embed.weight[p] + embed.bias[p]
        gamma, beta = (values.view(3, -1)[p] for values in (norm.weight, norm.bias))
        y = ((y - y.mean(0)) / (y.var(0, correction=0) + 1e-5).sqrt() * gamma + beta).clamp(min=0)
        log_share = (y @ method.classify.weight[p] + method.classify.bias[p]).log_softmax(1)
        target = (1 - smoothing) * F.one_hot(batch.identity, 4) + smoothing / 4
        identity = identity - (target * log_share).sum(1).mean()
        strips.append(y)
    expected = {
        "identity": identity,
        "triplet": triplet(torch.cat(strips, 1), batch),
        "part_triplet": 0.7 * sum(triplet(strip, batch) for strip in strips),
    }
    torch.testing.assert_close(terms, expected, rtol=1e-4, atol=1e-5)


def test_all_strips_together_have_the_length_1(build, batch):
    net = build("hctri").net.eval()
    embedding = net(batch.image, batch.modality)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(16))
    strips = net.strips(batch.image, batch.modality).flatten(1)
    torch.testing.assert_close(F.cosine_similarity(embedding, strips), torch.ones(16))
    assert (strips >= 0).all()


def test_two_stages_are_each_modalitys_own_and_three_are_shared(build):
    backbone = build("hctri").net.backbone
    parts = backbone.visible, backbone.infrared, backbone.shared
    names = [[name for name, _ in part.named_children()] for part in parts]
    assert names == [["block0", "block1"]] * 2 + [["block2", "block3", "block4"]]


def test_initial_weights_are_those_of_the_public_code(real_trunk, build):
    method = build("hctri", backbone="resnet18", part_dim=128)
    embed, norm, _ = method.net.embed
    assert embed.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)  # Kaiming, by the inputs
    assert method.classify.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert (norm.weight == 1).all()

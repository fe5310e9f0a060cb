"""MTL against its public code: sizes, part by part, and learning rates; its features and losses written out.

goldens_of_hc_hctri_and_mtl.json has the values of the public code.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csvi.config import TrainConfig
from csvi.losses import cross_modal_center_contrastive
from csvi.methods import build_method
from csvi.methods.mtl import paired_difference
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_hc_hctri_and_mtl.json").read_text())["MTL"]
CONFIG = Path(__file__).parents[2] / "configs/methods/mtl.yaml"


def size(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_numbers_of_parameters_are_the_public_codes_part_by_part(real_trunk):
    with torch.device("meta"):
        method = build_method(load_config(CONFIG), identities=395)
        embedding = method.net.eval()(torch.empty(1, 3, 288, 144), 1)
    net, shared = method.net, method.net.backbone.shared
    assert [size(method), size(net)] == GOLDENS["parameters"]
    assert embedding.shape == (1, GOLDENS["dim"])
    parts = {
        "visible_net": net.backbone.visible, "thermal_net": net.backbone.infrared, "shared.b1": shared.layer2,
        "shared.b2": shared.layer3, "shared.b3": shared.layer4, "shared.clss1": method.classify_map,
        "shared.dconv1": net.reduce, "shared.dconv2": net.decode, "shared.pred": method.segment,
        "shared.conv1": net.translate, "shared.conv2": net.fuse, "shared.skip": net.skip,
    }  # fmt: skip
    assert {name: size(module) for name, module in parts.items()} == GOLDENS["by part"]


def test_settings_are_the_public_codes(rates_of):
    epochs, *expected = zip(*GOLDENS["rates"], strict=True)
    np.testing.assert_allclose(rates_of("mtl", epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIG)
    assert config.method.name == "mtl"
    assert config.train.epochs == GOLDENS["epochs"]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.identities, config.data.images, config.data.replacement) == (8, 4, False)
    assert (config.data.pad, config.data.flip, config.data.erase) == (10, 0.5, 0)


@pytest.mark.parametrize(("weights", "factor"), [("imagenet", 0.2), ("none", 1)])
def test_only_the_layers_of_each_modality_learn_slower(build, weights, factor):
    method = build("mtl", weights=weights)
    slow, _ = method.groups(TrainConfig(lr=0.5, lr_pretrained=0.2))
    streams = method.net.backbone.visible, method.net.backbone.infrared
    assert {id(p) for p in slow["params"]} == {id(p) for part in streams for p in part.parameters()}
    assert slow["lr"] == 0.5 * factor


def maps_of(net, batch):
    """The features as the public code computes them one after the other: m1, d2, t1, x2, x3, fus."""
    blocks = dict(net.backbone.shared.named_children())
    specific = net.backbone.specific(batch.image, batch.modality)
    m1 = blocks["block2"](specific)
    d1 = net.reduce(m1)
    d2 = net.decode(d1)
    t1 = net.translate(d2)
    fus = net.fuse(t1 + d1)
    x2 = blocks["block3"](m1) + net.skip(t1)
    x3 = blocks["block4"](x2) + fus
    return m1, d2, t1, x2, x3, fus


def test_masks_come_at_a_stride_of_4_and_go_into_two_shared_stages_and_strips(build, batch):
    net = build("mtl").net.eval()
    torch.nn.init.normal_(net.embed[1].bias)
    maps, expected = net.maps(batch.image, batch.modality), maps_of(net, batch)
    torch.testing.assert_close(tuple(maps), expected)
    shapes = [(8, 6, 5), (1, 12, 10), (2, 6, 5), *[(16, 3, 3)] * 3]
    assert [tuple(each.shape[1:]) for each in maps] == shapes
    assert torch.equal(net.features(batch.image, batch.modality), maps.top)
    rows = torch.cat([maps.top.mean(3), maps.fused.mean(3)], 2).mT  # (B, 6, C1), one a strip
    strips = net.embed(rows)
    torch.testing.assert_close(net.strips(maps), strips)
    embedding = net(batch.image, batch.modality)
    torch.testing.assert_close(embedding, (strips / strips.norm(dim=2, keepdim=True)).flatten(1))


def test_terms_are_those_of_the_public_code(build, batch):
    weights = {"center_weight": 0.3, "segmentation_weight": 0.7, "pair_weight": 0.9, "map_weight": 1.1}
    method = build("mtl", **weights)
    for parameter in [*method.classify.parameters(), *method.net.embed.parameters()]:
        torch.nn.init.normal_(parameter)  # biases too, and scores that differ
    terms = method(batch, 0)
    m1, d2, t1, x2, x3, fus = maps_of(method.net, batch)
    strips = method.net.embed(torch.cat([x3.mean(3), fus.mean(3)], 2).mT)
    identity, classify = batch.identity, method.classify[1]
    scores = [F.leaky_relu(strips[:, p], 0.1) @ classify.weight[p] + classify.bias[p] for p in range(6)]
    long = [5 * F.normalize(strips[:, p]) for p in range(6)]
    logits = method.segment(d2)
    map_of_pixels = F.interpolate(logits.sigmoid(), scale_factor=4, mode="nearest")
    of_images = [features.mean((2, 3)) for features in (x2, x3, t1, fus)]
    expected = {
        "identity": sum(F.cross_entropy(each, identity) for each in scores),
        "center": 0.3 * sum(cross_modal_center_contrastive(each, identity, batch.modality, 0.5) for each in long),
        "segmentation": 0.7 * F.binary_cross_entropy(map_of_pixels, batch.mask),
        "map_identity": 1.1 * F.cross_entropy(method.classify_map(m1).mean((2, 3)), identity),
        "pair": 0.9 * sum(F.mse_loss(each[:8], each[8:]) for each in of_images),  # both halves are in one order
    }
    torch.testing.assert_close(terms, expected)


def test_the_default_weights_are_the_public_codes(build):
    s = build("mtl").settings
    assert (s.center_weight, s.segmentation_weight, s.pair_weight, s.map_weight) == (0.2, 5, 5, 1)


IDENTITY = torch.tensor([7, 7, 3, 3, 7, 7, 3, 3])
MODALITY = torch.arange(2).repeat_interleave(4)


def features_of(images):
    torch.manual_seed(0)
    return torch.randn(images, 3, dtype=torch.float64, requires_grad=True)


def test_pairs_are_found_by_label_whatever_the_order_of_people_and_modalities():
    features = features_of(8)
    expected = F.mse_loss(features[:4], features[4:])
    for order in ([0, 1, 2, 3, 6, 7, 4, 5], [4, 0, 6, 5, 2, 1, 7, 3]):  # images of a group stay in theirs
        found = paired_difference(features[order], IDENTITY[order], MODALITY[order])
        torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, features)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, features)[0])


def test_images_without_a_partner_are_in_no_pair():
    features = features_of(6)
    identity, modality = torch.tensor([1, 1, 2, 1, 5, 1]), torch.tensor([0, 0, 0, 1, 1, 0])
    found = paired_difference(features, identity, modality)
    torch.testing.assert_close(found, (features[0] - features[3]).square().mean())
    assert paired_difference(features, identity, modality * 0) == 0

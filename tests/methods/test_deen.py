"""DEEN: what its public code counts, how it learns and what it compares, and images of every size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from csvi.data.channel_views import nearest_color
from csvi.errors import CsviError
from csvi.losses import center_pair_margin, feature_orthogonality
from csvi.methods.deen import DEEN, DEENSettings
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_deen.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"


def size(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.usefixtures("real_trunk")
@pytest.mark.parametrize("file", GOLDENS["parameters"])
def test_parameters_are_those_that_the_public_code_uses(file):
    golden, config = GOLDENS["parameters"][file], load_config(CONFIGS / f"{file}.yaml")
    with torch.device("meta"):
        method = DEEN(config.method, golden["classes"], config.data.height, config.data.width)
    frozen = golden["frozen"]
    assert size(method) + frozen == golden["used_in_training"]
    assert size(method.net) + frozen == golden["used_at_test"]
    slow, rest = (sum(p.numel() for p in group["params"]) for group in method.groups(config.train))
    assert rest == size(method.net.neck, method.classify)  # what is new in between learns as slowly as the backbone
    assert slow + rest == size(method)


@pytest.mark.parametrize(("file", "stages", "area"), [("deen", 5, (0.2, 0.8)), ("deen-regdb", 4, (0.02, 0.4))])
def test_it_is_trained_as_the_public_code_trains_it(rates_of, file, stages, area):
    epochs, *expected = zip(*GOLDENS["rates"], strict=True)
    np.testing.assert_allclose(rates_of(file, epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIGS / f"{file}.yaml")
    assert config.train.epochs == GOLDENS["epochs"]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.identities, config.data.images, config.data.replacement) == (6, 4, True)
    assert (config.data.height, config.data.width) == (384, 144)
    assert config.method == DEENSettings(stages=stages, erase_area=area)
    for (view,) in DEEN(config.method, 4, 48, 40).views(config.data).values():
        assert [getattr(operation, "p", None) for operation in view] == [None, 0.5, 0.5, 0.5]
        assert (view[0].pad, view[-1].area, view[-1].fill) == (10, area, nearest_color((0.485, 0.456, 0.406)))


def test_features_are_the_stages_and_aggregations_written_out(build, batch):
    """On the tiny trunk, whose shared stages have channels 8, 8, 16, 16 and strides 1, 2, 2, 1."""
    net = build("deen").net.eval()
    for parameter in net.aggregate.parameters():
        nn.init.normal_(parameter, std=0.1)
    shared = net.backbone.shared
    x0 = net.backbone.specific(batch.image, batch.modality)
    x1 = net.aggregate[0](shared.block1(x0), x0)
    x2 = net.aggregate[1](shared.block2(x1), x1)
    x3 = net.aggregate[2](shared.block3(x2), x2)
    maps = [shared.block4(x) for x in (x3, *(branch(x3) for branch in net.expand.branches))]
    torch.testing.assert_close(net.features(batch.image, batch.modality), torch.cat(maps, 1))
    pooled = [x.mean((2, 3)) for x in maps]
    torch.testing.assert_close(net.pooled(batch.image, batch.modality), torch.cat(pooled))
    parts = [part for x in pooled for part in (0.1**0.5 * F.normalize(x), 0.9**0.5 * F.normalize(net.neck(x)))]
    torch.testing.assert_close(3**0.5 * net(batch.image, batch.modality), torch.cat(parts, 1))


def test_without_a_stage_embeddings_are_generated_before_the_last_that_is_left(build, batch):
    net = build("deen", stages=4).net
    assert len(net.aggregate) == 2
    assert net.expand.branches[0].expand.out_channels == 8
    assert net.features(batch.image, batch.modality).shape == (16, 3 * 16, 3, 3)


def test_losses_are_the_weighted_four(build, batch):
    method = build("deen", dropout=0.0)
    found = method(batch, 0)
    pooled = method.net.pooled(batch.image, batch.modality)
    own, first, second = pooled.split(16)
    identity = torch.cat([batch.identity] * 3)
    same, distance = identity[:, None] == identity, torch.cdist(pooled, pooled)
    hardest = (distance - 1e6 * ~same).amax(1) - (distance + 1e6 * same).amin(1)
    pairs = sum(center_pair_margin(own, of, batch.identity, batch.modality, 0.2) for of in (first, second))
    expected = {
        "identity": F.cross_entropy(method.net.neck(pooled) @ method.classify.weight.T, identity),
        "triplet": (hardest + 0.3).relu().mean(),
        "pairs": 0.8 * pairs,
        "orthogonality": 0.01 * (first * second).sum() / 48,
    }
    torch.testing.assert_close(found, expected)


def test_generated_features_are_to_be_orthogonal_and_not_opposite():
    first = torch.randn(5, 4, generator=torch.manual_seed(0)).requires_grad_()
    assert feature_orthogonality(first, -first) == feature_orthogonality(first, first) > 0
    feature_orthogonality(first, -first.detach()).backward()
    assert ((first.grad * first.detach()).sum(1) > 0).all()  # a step against the gradient makes them smaller


class ToyNeck(nn.Module):
    """Takes the place of the batch norm in the golden values."""

    def forward(self, pooled):
        return pooled * torch.arange(1, 7) - 0.5


def test_similarities_are_a_third_of_those_of_the_public_code(build):
    golden, net = GOLDENS["similarity"], build("deen").net
    net.neck = ToyNeck()

    def embedding(images):
        halves = images.unflatten(3, (2, 2)).mean((2, 4))  # (n, 3 channels, 2 halves)
        pooled = halves.transpose(1, 2).flatten(1)
        return net.embedding(torch.cat([pooled * (branch + 1) + branch for branch in range(3)]))

    sums, averages = [], []
    for name in ("query_images", "gallery_images"):
        images = torch.tensor(golden[name], dtype=torch.float64)
        both = [embedding(images), embedding(images.flip(3))]
        torch.testing.assert_close(both[0].norm(dim=1), torch.ones(len(images), dtype=torch.float64))
        sums.append(sum(both))
        averages.append(net.average(both))
    expected = torch.tensor(golden["similarity_0.1_pool_0.9_fc"], dtype=torch.float64)
    torch.testing.assert_close(3 * sums[0] @ sums[1].T, expected, rtol=0, atol=1e-8)
    for sum_of_both, average in zip(sums, averages, strict=True):
        torch.testing.assert_close(average, F.normalize(sum_of_both))  # where ours departs


@pytest.mark.parametrize("height", [48, 56, 64])
@pytest.mark.parametrize("width", [33, 40, 72])
def test_images_of_every_size_are_trained_on(build, batch, height, width):
    method = build("deen")
    terms = method(batch._replace(image=F.interpolate(batch.image, (height, width))), 0)
    torch.stack(list(terms.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"erase_area": (0.5, 0.2)}, "the smaller one first"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be from 0 to 0.999999"),
        ({"pair_margin": -1}, "at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(CsviError, match=words):
        DEENSettings(**settings)

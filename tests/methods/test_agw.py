"""AGW against its public code: sizes, learning rates, and the features of a network of hashed weights.

goldens_of_agw_and_caj.json has the values of the public code.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

from csvi.losses import batch_hard_triplet, weighted_regularized_triplet
from csvi.methods import build_method
from csvi.model.attention import NonLocal
from csvi.model.net import NeckNet
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_agw_and_caj.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"


def hashed(shape, stream):
    """Numbers in [-.5, .5) that the public code was given as well, by a hash of their position and the stream."""
    h = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(stream * 40503 + 12345)
    h ^= h >> np.uint32(16)
    h *= np.uint32(2246822519)
    h ^= h >> np.uint32(13)
    h *= np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return torch.from_numpy(h / 2**32 - 0.5).view(shape)


def hashed_resnet50():
    """A state dict of torchvision's ResNet-50: hashed convolutions, and batch norms that keep the scale."""
    with torch.device("meta"):
        shapes = torchvision.models.resnet50().state_dict()
    state = {}
    for number, (name, tensor) in enumerate(shapes.items()):
        if tensor.ndim == 4:
            state[name] = hashed(tensor.shape, 1000 + number) * math.sqrt(24 / tensor[0].numel())
        else:
            one = 0.25 if name.endswith("bn3.weight") else 1.0
            state[name] = torch.full(tensor.shape, one if name.endswith(("weight", "var")) else 0.0)
    return state


def close(found, expected, rtol=1e-8, atol=0.0):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=atol)


def test_features_of_hashed_weights_are_the_public_codes(real_trunk):
    golden = GOLDENS["of hashed weights"]
    net = NeckNet("agw", 288, 144, power=3.0, non_local=True).double().eval()
    net.backbone.load_pretrained(hashed_resnet50())
    image = 4 * hashed((1, 3, 288, 144), 1)
    with torch.no_grad():
        stem = net.backbone.specific(image, 1)
        close(stem[0, 0, 0, :8], golden["stem_output_first_8_of_channel_0_row_0"])
        close(stem.norm(), golden["stem_norm"])
        maps = net.backbone.shared(stem)
        assert maps.shape == (1, 2048, 18, 9)
        close(maps.norm(), golden["map_norm"])
        close(maps.max(), golden["map_max"])
        pooled = net.pooled(image, 1)
    direction = F.normalize(pooled)[0]
    close(direction[:16], golden["pool_gem3_l2normalised_first_16"], atol=1e-8)
    close(direction.sum(), golden["pool_sum"])


@pytest.mark.parametrize(("name", "settings"), [("AGW", {}), ("AGW base", {"base": True})])
def test_numbers_of_parameters_are_the_public_codes(config_of, real_trunk, name, settings):
    """Public code counts the bias of a neck, here 2048 more."""
    config = config_of("agw", backbone="resnet50", **settings)
    with torch.device("meta"):
        method = build_method(config, identities=395)
    sizes = [sum(p.numel() for p in module.parameters()) + 2048 for module in (method, method.net)]
    assert sizes == GOLDENS["parameters"][name]


@pytest.mark.parametrize("base", [False, True])
def test_the_triplet_loss_is_before_the_batch_norm_and_the_identity_loss_behind_it(build, batch, base):
    method = build("agw", base=base, triplet_weight=0.7)
    terms = method(batch, 0)
    pooled = method.net.pooled(batch.image, batch.modality)
    normalized = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt() * method.net.neck.weight
    scores = normalized @ method.classify.weight.T
    torch.testing.assert_close(terms["identity"], F.cross_entropy(scores, batch.identity))
    identity = batch.identity
    triplet = batch_hard_triplet(pooled, identity, 0.3) if base else weighted_regularized_triplet(pooled, identity)
    torch.testing.assert_close(terms["triplet"], 0.7 * triplet)
    assert terms.keys() == {"identity", "triplet"}


def test_attention_and_generalised_means_are_left_out_of_the_base(build, batch):
    for base in (False, True):
        net = build("agw", base=base).net
        assert sum(isinstance(module, NonLocal) for module in net.modules()) == (0 if base else 2)
        features = net.features(batch.image, batch.modality)
        powers = features.pow(1 if base else 3).mean((2, 3))
        torch.testing.assert_close(net.pooled(batch.image, batch.modality), powers.pow(1 if base else 1 / 3))


def test_images_are_compared_by_the_normalised_feature_behind_the_batch_norm(build, batch):
    method = build("agw").eval()
    method.net.neck.running_mean.uniform_(-1, 1)
    pooled, neck = method.net.pooled(batch.image, batch.modality), method.net.neck
    feature = (pooled - neck.running_mean) / (1 + 1e-5) ** 0.5 * neck.weight
    embedding = method.net(batch.image, batch.modality)
    torch.testing.assert_close(embedding, feature / feature.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(("file", "golden"), [("agw", "AGW"), ("caj", "CAJ"), ("caj+", "CAJ"), ("caj+-regdb", "CAJ")])
def test_learning_rates_are_the_public_codes(rates_of, file, golden):
    epochs, *expected = zip(*GOLDENS["rates"][golden], strict=True)
    np.testing.assert_allclose(rates_of(file, epochs), np.transpose(expected), rtol=1e-11)
    config = load_config(CONFIGS / f"{file}.yaml")
    assert config.method.name == file.removesuffix("-regdb")
    assert config.train.epochs == GOLDENS["epochs"][golden]
    assert (config.train.momentum, config.train.nesterov, config.train.weight_decay) == (0.9, True, 5e-4)
    assert (config.data.identities, config.data.images, config.data.replacement) == (8, 4, True)


@pytest.mark.parametrize("name", ["agw", "caj", "caj+"])
def test_all_but_batch_norm_and_classifier_learns_at_the_pretrained_rate(build, config_of, name):
    method = build(name, weights="imagenet")
    _, heads = method.groups(config_of(name).train)
    heads = {id(parameter) for parameter in heads["params"]}
    of_heads = {key for key, parameter in method.named_parameters() if id(parameter) in heads}
    assert of_heads == {"net.neck.weight", "classify.weight"}

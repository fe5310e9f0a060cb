"""configs/letter.yaml: its losses are Eq. 3 to 9 and 10 to 18 as they are printed, written out in loops."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from csvi.config import departures, shipped_config
from csvi.data.batch import Batch
from csvi.methods import build_method
from csvi.runs import load_config

N, K, L = 3, 2, 5  # identities and images of a batch, and classes: identities 4, 0 and 2 of five
HEIGHT, WIDTH = 96, 48


@pytest.fixture
def letter():
    return load_config(shipped_config("letter"))


@pytest.fixture
def method(letter):
    """To the letter, but for a small trunk and short parts."""
    small = dataclasses.replace(letter.method, weights="none", part_dim=7, widths=(6, 4))
    data = dataclasses.replace(letter.data, height=HEIGHT, width=WIDTH)
    torch.manual_seed(0)
    built = build_method(dataclasses.replace(letter, method=small, data=data), L).double()
    for parameter in [*built.net.head.parameters(), *built.head.parameters(), *built.ccwg.parameters()]:
        torch.nn.init.normal_(parameter)  # biases too
    return built


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(
        image=torch.randn(2 * N * K, 3, HEIGHT, WIDTH, dtype=torch.float64),
        modality=torch.arange(2).repeat_interleave(N * K),
        identity=torch.tensor([4, 0, 2]).repeat_interleave(K).repeat(2),
        mask=torch.rand(2 * N * K, 1, HEIGHT // 4, WIDTH // 4, dtype=torch.float64).repeat_interleave(4, 2)
        .repeat_interleave(4, 3),
    )  # fmt: skip


def test_nothing_departs_from_the_letter(letter):
    assert departures(letter) == {}
    assert (letter.data.identities, letter.data.images) == (8, 4)  # Section 4.2


def images_of(batch, modality, n=None):
    of_modality = [b for b in range(len(batch.image)) if batch.modality[b] == modality]
    return [b for b in of_modality if n is None or batch.identity[b] == n]


def parts_and_scores(head, features):
    """Eq. 3: six strips, their mean, FC(gamma_p), and FC(gamma_s), which all parts share."""
    height = features.shape[2] // 6
    parts = []
    for p in range(6):
        strip = features[:, :, p * height : (p + 1) * height]
        gap = strip.sum((2, 3)) / (height * strip.shape[3])
        parts.append(gap @ head.embed.weight[p] + head.embed.bias[p])
    (gamma,), (bias,) = head.classify.weight, head.classify.bias
    return parts, [part @ gamma + bias for part in parts]


def cross_entropy(logits, target):
    """Eq. 5: -1/L times the sum over the classes, which come first; of masks one more, for the background."""
    probability = logits.exp() / logits.exp().sum(0)
    return -(target * probability.log()).sum(0) / L


def identity_loss(scores, batch):
    """Eq. 4 and 15: summed over parts, a mean over the images of a modality."""
    total = 0.0
    for modality in (0, 1):
        images = images_of(batch, modality)
        for of_part in scores:
            for b in images:
                total += cross_entropy(of_part[b], F.one_hot(batch.identity[b], L).double()) / len(images)
    return total


def center_loss(parts, batch):
    """Eq. 6 to 8, and 16."""
    total = 0.0
    for part in parts:
        for n in (4, 0, 2):
            visible, infrared = (sum(part[b] for b in images_of(batch, m, n)) / K for m in (0, 1))
            total += (visible - infrared).square().sum().sqrt()
    return total


def block(layers, x):
    """DConv of Eq. 14: a deconvolution and two convolutions, with BatchNorm and ReLU, which the paper does not name."""
    deconvolution, *convolutions = layers
    x = F.conv_transpose2d(x, deconvolution.weight, deconvolution.bias, stride=2)
    for convolution, norm in (convolutions[:2], convolutions[3:5]):
        x = F.conv2d(x, convolution.weight, padding=1)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        x = x.clamp(min=0)
    return x


def segmentation_loss(decoder, selected, batch):
    """Eq. 14 and 17: the person in the channel of its identity; a mean over the pixels of a modality."""
    first, second, last = decoder
    logits = F.conv2d(block(second, block(first, selected)), last.weight, last.bias)
    assert logits.shape == (2 * N * K, 1 + L, HEIGHT // 4, WIDTH // 4)
    true, total = batch.mask[:, 0, ::4, ::4], 0.0  # every 4 x 4 pixels are alike
    for modality in (0, 1):
        images = images_of(batch, modality)
        for b in images:
            target = torch.zeros_like(logits[b])
            target[0], target[1 + batch.identity[b]] = 1 - true[b], true[b]
            total += cross_entropy(logits[b], target).sum() / (len(images) * true[b].numel())
    return total


def test_the_losses_are_the_equations(method, batch):
    features = method.net.features(batch.image, batch.modality)  # Eq. 1, 2: tests/model/test_two_stream.py
    parts, scores = parts_and_scores(method.net.head, features)
    selected = torch.empty_like(features)
    for n in (4, 0, 2):
        images = [*images_of(batch, 0, n), *images_of(batch, 1, n)]
        center = sum(features[b].mean((1, 2)) for b in images) / (2 * K)  # Eq. 10, 11
        weights = method.ccwg.fc.weight @ center + method.ccwg.fc.bias  # Eq. 12
        for b in images:
            selected[b] = weights[:, None, None] * features[b]  # Eq. 13
    selected_parts, selected_scores = parts_and_scores(method.head, selected)
    expected = {
        "identity": identity_loss(scores, batch),
        "center": center_loss(parts, batch),
        "coseg/identity": identity_loss(selected_scores, batch),
        "coseg/center": center_loss(selected_parts, batch),
        "coseg/segmentation": segmentation_loss(method.decoder, selected, batch),
    }
    found = method(batch, 0)
    assert found.keys() == expected.keys()  # Eq. 9, 18: they are added, each with the weight 1
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-9, atol=0)

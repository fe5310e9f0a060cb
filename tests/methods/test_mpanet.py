"""MPANet: a training step of its public code, what that counts and how it learns, and its embeddings."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from csvi.config import DataConfig
from csvi.data.batch import Batch
from csvi.data.views import Erase, Flip, Shift
from csvi.methods import build_method
from csvi.methods.mpanet import MPANetSettings
from csvi.model.enhancement import ModalityAlleviation
from csvi.model.pooling import PatternMaps
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_mpanet.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"
TERMS = {"identity": "ce", "mutual": "KL", "center": "cc", "separation": "p-reg"}
"""Ours → the public code's."""


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def head(config_of, monkeypatch):
    """MPANet whose images are the feature maps, with the parameters of the golden step; its neck has a bias there."""
    method, before = build_method(config_of("mpanet", patterns=2), 3), GOLDENS["step"]["parameters_before"]
    net = method.net
    monkeypatch.setattr(net, "features", lambda image, modality: image)
    net.pool, net.neck = PatternMaps(4, 2), nn.BatchNorm1d(12)
    for name in ("classify", "classify_visible", "classify_infrared"):
        setattr(method, name, nn.Linear(12, 3, bias=False))
    method.double()
    named = {
        "spatial_attention.weight": net.pool.score.weight, "spatial_attention.bias": net.pool.score.bias,
        "bn_neck.weight": net.neck.weight, "bn_neck.bias": net.neck.bias,
        "classifier.weight": method.classify.weight, "visible_classifier.weight": method.classify_visible.weight,
        "infrared_classifier.weight": method.classify_infrared.weight,
    }  # fmt: skip
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensor(before[name]))
    method.visible_average = tensor(before["visible_classifier_.weight"])
    method.infrared_average = tensor(before["infrared_classifier_.weight"])
    return method


@pytest.fixture
def maps():
    """The golden step's batch of feature maps."""
    golden = GOLDENS["step"]
    infrared = [int(camera in (3, 6)) for camera in golden["camera_3_and_6_are_infrared"]]
    image = tensor(golden["input"]).requires_grad_()
    return Batch(image, torch.tensor(infrared), torch.tensor(golden["identity"]))


def test_a_training_step_is_the_public_codes(head, maps):
    golden, terms = GOLDENS["step"], head(maps, 0)
    assert sum(terms.values()).item() == pytest.approx(golden["loss"], abs=1e-8)
    weights = {"mutual": 2.5, "separation": 0.5}
    for name, theirs in TERMS.items():
        assert terms[name].item() / weights.get(name, 1) == pytest.approx(golden["terms"][theirs], abs=1e-8)
    both = golden["terms"]["ce-v"] + golden["terms"]["ce-i"]
    assert terms["modality"].item() == pytest.approx(both, abs=1e-8)
    torch.stack(list(terms.values())).sum().backward()
    found = {
        "input_grad": maps.image.grad,
        "grad_visible_classifier": head.classify_visible.weight.grad,
        "ema_visible_after": head.visible_average,
        "ema_infrared_after": head.infrared_average,
    }
    for name, values in found.items():
        torch.testing.assert_close(values, tensor(golden[name]), rtol=0, atol=1e-8)


def test_the_order_of_the_images_has_no_part_in_it(head, maps):
    order = torch.tensor([3, 1, 7, 0, 5, 6, 2, 4])
    shuffled = Batch(*(of[order] for of in (maps.image, maps.modality, maps.identity)))
    head.eval()  # so that the averages stay
    torch.testing.assert_close(head(shuffled, 0), head(maps, 0))


def test_the_embedding_is_the_public_codes_and_not_normalised_where_that_is_not(head, maps):
    net, expected = head.net.eval(), tensor(GOLDENS["embedding"])
    torch.testing.assert_close(net(maps.image, maps.modality), F.normalize(expected), rtol=0, atol=1e-8)
    net.normalize = False
    found = net(maps.image, maps.modality)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(net.average([found, 3 * found]), 2 * found)


@pytest.mark.usefixtures("real_trunk")
def test_parameters_are_those_that_the_public_code_uses():
    with torch.device("meta"):
        method = build_method(load_config(CONFIGS / "mpanet.yaml"), identities=395)
    averages = method.visible_average.numel() + method.infrared_average.numel()
    assert averages == 11_325_440
    assert size(method) + 14336 == GOLDENS["parameters"]["used_in_training"]
    assert size(method.net) + 14336 == GOLDENS["parameters"]["used_at_test"]


@pytest.mark.parametrize(("file", "shorter"), [("mpanet", 4), ("mpanet-regdb", 2)])
def test_rates_are_those_of_the_public_code_in_epochs_that_are_as_many_times_longer(rates_of, file, shorter):
    epochs, rates, _ = zip(*GOLDENS["rates"][file], strict=True)
    found = rates_of(file, [epoch // shorter for epoch in epochs])
    for of_groups, rate in zip(found, rates, strict=True):
        assert of_groups == pytest.approx([rate] * len(of_groups), rel=1e-6)
    config = load_config(CONFIGS / f"{file}.yaml")
    assert config.train.epochs * shorter == 140
    assert config.method.update_epochs * shorter == 100


@pytest.mark.parametrize(
    ("file", "of_data", "normalize"),
    [("mpanet", ("sysu", 384, 128, 16, 4), True), ("mpanet-regdb", ("regdb", 256, 128, 12, 5), False)],
)
def test_batches_images_and_weight_decay_are_those_of_the_public_code(file, of_data, normalize):
    config = load_config(CONFIGS / f"{file}.yaml")
    data, train = config.data, config.train
    assert (data.layout, data.height, data.width, data.identities, data.images) == of_data
    assert (data.pad, data.flip, data.erase, data.replacement) == (10, 0.5, 0.5, False)
    assert (train.optimizer, train.lr_pretrained, train.weight_decay) == ("adam", 1, 5e-4)
    assert config.method == MPANetSettings(normalize=normalize, update_epochs=config.method.update_epochs)


@pytest.mark.parametrize("shorter", [1, 2, 4])
def test_averages_take_the_mean_share_of_the_epochs_of_the_public_code_that_fit(build, shorter):
    method = build("mpanet", update_epochs=100 // shorter)
    for epoch in range(140 // shorter):
        method.begin_epoch(epoch)
        n = torch.arange(shorter * epoch, shorter * (epoch + 1)) + 1  # those of its epochs, from 1
        shares = 0.2 * (100 / (n + 1)).clamp(max=1)
        assert method.rate.item() == pytest.approx(shares.mean().item(), rel=0.003)


@pytest.mark.parametrize("file", GOLDENS["rates"])
def test_averages_are_updated_by_the_share_of_the_public_code(build, file):
    method = build("mpanet")
    for epoch, _, share in GOLDENS["rates"][file]:
        method.begin_epoch(epoch)
        assert method.rate.item() == pytest.approx(share, rel=1e-6)
    assert "rate" not in method.state_dict()


def test_averages_are_the_classifiers_at_first_and_follow_them_in_training_alone(build, batch):
    method = build("mpanet")
    assert torch.equal(method.visible_average, method.classify_visible.weight)
    before = method.infrared_average.clone()
    with torch.no_grad():
        method.classify_infrared.weight += 1
        method.eval()(batch, 0)
        assert torch.equal(method.infrared_average, before)
        method.train()(batch, 0)
    torch.testing.assert_close(method.infrared_average, before + 0.2)


def test_initial_weights_are_those_of_the_public_code(build):
    method = build("mpanet")
    assert (method.net.neck.weight == 1).all()
    for layer in (method.classify, method.classify_visible, method.classify_infrared):  # those of nn.Linear
        assert layer.weight.abs().max().item() == pytest.approx(method.net.dim**-0.5, rel=0.03)


def test_modalities_are_alleviated_after_the_last_two_stages(build, batch):
    net = build("mpanet").net
    found = [name for name, part in net.named_modules() if isinstance(part, ModalityAlleviation)]
    assert found == ["backbone.shared.block3.after", "backbone.shared.block4.after"]
    assert not list(net.backbone.visible.parameters())
    net.eval()
    assert torch.equal(net(batch.image, 0), net(batch.image, 1))


def test_views_pad_with_grey(build):
    data = DataConfig(pad=7, flip=0.25, erase=0.75)
    for (view,) in build("mpanet").views(data).values():
        assert view == (Flip(0.25), Shift(7, fill=127), Erase(0.75))

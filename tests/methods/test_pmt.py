"""PMT: what its public code counts and how it learns, its two stages, and every kind of network that it may have."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from csvi.config import Config, DataConfig
from csvi.data.records import Modality
from csvi.data.views import Erase, Flip, Grayscale
from csvi.errors import CsviError
from csvi.losses import batch_hard_triplet, discriminative_center, modality_shared_enhancement
from csvi.methods import build_method
from csvi.methods.pmt import PMT, PMTSettings
from csvi.model.vit import SIZES
from csvi.runs import load_config

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_pmt.json").read_text())
CONFIGS = Path(__file__).parents[2] / "configs/methods"


@pytest.fixture
def vit(build):
    """PMT with the narrow transformer."""
    return build("pmt", backbone="vit_tiny")


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_that_the_public_code_uses():
    config = load_config(CONFIGS / "pmt.yaml")
    with torch.device("meta"):
        method = build_method(config, identities=395)
    assert size(method) + 768 == GOLDENS["parameters"]["used_in_training"]
    assert size(method.net) + 768 == GOLDENS["parameters"]["used_at_test"]


@pytest.mark.parametrize("file", GOLDENS["rates"])
def test_rates_are_those_of_the_public_code(rates_of, monkeypatch, file):
    monkeypatch.setitem(SIZES, "vit_base", (12, 3))
    epochs, *rates = zip(*GOLDENS["rates"][file], strict=True)
    found = torch.tensor(rates_of(file, [epoch - 1 for epoch in epochs])).double()
    torch.testing.assert_close(found, torch.tensor(rates).T.double(), rtol=1e-6, atol=1e-12)
    assert len(epochs) == load_config(CONFIGS / f"{file}.yaml").train.epochs


@pytest.mark.parametrize(("file", "layout"), [("pmt", "sysu"), ("pmt-regdb", "regdb")])
def test_batches_images_and_weight_decay_are_those_of_the_public_code(file, layout):
    config = load_config(CONFIGS / f"{file}.yaml")
    data = config.data
    assert (data.layout, data.height, data.width) == (layout, 256, 128)
    assert (data.identities, data.images, data.replacement) == (8, 4, False)
    assert (data.flip, data.erase) == (0.5, 0.5)
    assert (config.train.optimizer, config.train.weight_decay) == ("adamw", 1e-4)
    assert config.method == PMTSettings()


def test_tokens_positions_and_the_last_norm_learn_as_fast_as_the_head(vit):
    train = load_config(CONFIGS / "pmt.yaml").train
    slow, rest = ({id(p) for p in group["params"]} for group in vit.groups(train))
    names = {key for key, p in vit.named_parameters() if id(p) in rest}
    backbone = {f"net.backbone.shared.vit.{name}" for name in ("cls_token", "pos_embed", "norm.weight", "norm.bias")}
    assert names == {"classify.weight", "net.neck.weight"} | backbone
    assert len(slow) + len(rest) == len(list(vit.parameters()))


def identity_by_hand(pooled, batch, method):
    """The sum of the mean over the visible images and that over the infrared ones."""
    scores = method.classify((pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt())
    return sum(F.cross_entropy(scores[batch.modality == m], batch.identity[batch.modality == m]) for m in (0, 1))


@pytest.mark.parametrize("epoch", [0, 5, 6, 20])
def test_losses_are_those_of_the_stage(build, batch, epoch):
    method = build("pmt", margin=0.2, center_weight=0.3, enhancement_weight=0.7)
    method.begin_epoch(epoch)
    pooled, (identity, modality) = method.net.pooled(batch.image, batch.modality), (batch.identity, batch.modality)
    expected = {"identity": identity_by_hand(pooled, batch, method)}
    if epoch < 6:
        within = [batch_hard_triplet(pooled[modality == m], identity[modality == m], 0.2) for m in (0, 1)]
        expected["triplet"] = sum(within)
    else:
        expected["triplet"] = batch_hard_triplet(pooled, identity, 0.2)
        expected["center"] = 0.3 * discriminative_center(pooled, identity)
        expected["enhancement"] = 0.7 * modality_shared_enhancement(pooled, identity, modality)
    torch.testing.assert_close(method(batch, 0), expected)


def test_visible_images_are_grey_in_the_epochs_of_the_first_stage(build):
    method = build("pmt", grey_epochs=2)
    views = method.views(DataConfig(flip=0.25, erase=0.75))
    (visible,), (infrared,) = views[Modality.VISIBLE], views[Modality.INFRARED]
    assert [o for o in visible if isinstance(o, Grayscale)] == [Grayscale(1, epochs=2)]
    assert not any(isinstance(o, Grayscale) for o in infrared)
    for view in (visible, infrared):
        assert view[0] == Flip(0.25)
        assert view[-1] == Erase(0.75, (0.02, 0.4), (0.3, 1 / 0.3), (152, 142, 127), "uniform", 100)
    for epoch in range(4):
        method.begin_epoch(epoch)
        assert method.grey == (epoch < 2)


@pytest.mark.parametrize("epoch", [0, 6])
def test_a_transformer_learns_with_all_parameters_whatever_the_modality(vit, batch, epoch):
    vit.begin_epoch(epoch)
    torch.stack(list(vit(batch, 0).values())).sum().backward()
    assert [key for key, p in vit.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    net = vit.net.eval()
    assert torch.equal(net(batch.image, 0), net(batch.image, 1))
    assert net(batch.image, batch.modality).shape == (16, 12)


@pytest.mark.parametrize("backbone", ["vit_tiny", "mobilenet_v2"])
def test_images_are_compared_by_the_normalised_feature_behind_the_batch_norm(build, batch, backbone):
    net = build("pmt", backbone=backbone).net.eval()
    net.neck.running_mean.uniform_(-1, 1)
    feature = (net.pooled(batch.image, batch.modality) - net.neck.running_mean) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(net(batch.image, batch.modality), feature / feature.norm(dim=1, keepdim=True))


def test_images_that_are_none_are_refused_by_a_transformer(vit, batch):
    with pytest.raises(CsviError, match="normalised"):
        vit.net(batch.image.to(torch.uint8), 0)
    with pytest.raises(CsviError, match="must be one number for each"):
        vit.net(batch.image, [0, 1])


def test_heatmaps_of_a_transformer_are_of_its_patches(vit, batch):
    net = vit.net.eval()
    found = net.features(batch.image, batch.modality)
    assert found.shape == (16, 12, 4, 4)  # in the last cells of 48x40 pixels no patch begins
    assert net.backbone.stride == 12
    assert torch.equal(found[:, :, 3], found[:, :, 2])
    assert torch.equal(found[..., 3], found[..., 2])
    seen = []
    net.vit.blocks.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pooled = net.pooled(batch.image, batch.modality)
    torch.testing.assert_close(found[:, :, :3, :3].flatten(2).mT, seen[0][:, 1:])
    torch.testing.assert_close(pooled, net.vit.norm(seen[0])[:, 0])


def test_a_transformer_begins_with_the_weights_of_a_file_or_of_a_run(vit, build, tmp_path):
    names = vit.net.vit.state_dict()
    state = {f"module.{name}": torch.randn_like(tensor) for name, tensor in names.items()}
    torch.save({"state_dict": state}, tmp_path / "vit.pth")
    settings = PMTSettings(backbone="vit_tiny", weights=str(tmp_path / "vit.pth"))
    vit.load_pretrained(PMT.pretrained(settings))
    assert all(torch.equal(tensor, state[f"module.{name}"]) for name, tensor in vit.net.vit.state_dict().items())
    vit.net.save_pretrained(tmp_path / "run")
    for source in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        other = build("pmt", seed=1, backbone="vit_tiny")
        other.load_pretrained(PMT.pretrained(PMTSettings(backbone="vit_tiny", weights=str(source))))
        found = other.net.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in vit.net.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "weights", "sentence"),
    [
        ("vit_small", "imagenet", "torchvision has no ImageNet weights of vit_small: let method.weights be "),
        ("timm:any", "imagenet", "torchvision has no ImageNet weights of timm:any"),
        ("vit_base", "packaged", "packaged weights exist for mobilenet_v2 alone, not for vit_base"),
        ("vit_huge", "none", "unknown backbone 'vit_huge'"),
    ],
)
def test_weights_that_there_are_not_are_one_sentence(backbone, weights, sentence):
    with pytest.raises(CsviError, match=sentence):
        PMT.pretrained(PMTSettings(backbone=backbone, weights=weights))


def test_imagenet_of_vit_base_is_torchvisions(monkeypatch):
    weights = SimpleNamespace(get_state_dict=lambda **options: {"class_token": 1})
    known = {"vit_b_16": SimpleNamespace(IMAGENET1K_V1=weights)}
    monkeypatch.setattr("torchvision.models.get_model_weights", known.__getitem__)
    assert PMT.pretrained(PMTSettings()) == {"class_token": 1}


def test_settings_out_of_range_are_refused():
    with pytest.raises(CsviError, match="margin is -1"):
        Config(PMTSettings(margin=-1))

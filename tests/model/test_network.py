"""The network that is kept and what training adds to it."""

import pytest
import torch

from csvi.config import Config, LossConfig, ModelConfig
from csvi.model import build_network
from csvi.model.losses import reid_losses


def millions(*modules):
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def test_parameters_are_those_of_table_4():
    """ResNet-50, 395 identities: 32.1 M at test, classifiers included, and 52.6 M in training."""
    with torch.device("meta"):
        network = build_network(Config(), identities=395)
    assert millions(network) == pytest.approx(52.6, rel=0.03)
    assert millions(network.net) == pytest.approx(32.1, rel=0.02)


@pytest.fixture
def network(config):
    torch.manual_seed(0)
    return build_network(config, identities=4)


def make_batch():
    torch.manual_seed(1)
    return {
        "image": torch.randn(8, 3, 48, 24),
        "mask": torch.rand(8, 1, 48, 24),
        "identity": torch.tensor([0, 0, 3, 3, 0, 0, 3, 3]),
        "modality": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    }


def test_embeddings_are_normalised_parts_side_by_side(network):
    net, batch = network.net.eval(), make_batch()
    embeddings = net(batch["image"], batch["modality"])
    parts, _ = net.part_module(net.backbone(batch["image"], batch["modality"]))
    assert embeddings.shape == (8, 3 * 16)
    for p in range(3):
        expected = parts[:, p] / parts[:, p].square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(embeddings[:, 16 * p : 16 * (p + 1)], expected)


def test_embedding_of_an_image_does_not_depend_on_the_others(network):
    net, batch = network.net.eval(), make_batch()
    together = net(batch["image"], batch["modality"])
    alone = torch.cat([net(batch["image"][b : b + 1], batch["modality"][b : b + 1]) for b in range(8)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_terms_are_those_of_eq_9_and_18(network):
    batch = make_batch()
    outputs = network(batch)
    terms = network.losses(outputs, batch, LossConfig(center=0.5))
    reid = reid_losses(
        outputs["parts"], outputs["scores"], batch["identity"], batch["modality"], LossConfig(center=0.5)
    )
    assert list(terms) == ["identity", "center", "coseg/segmentation", "coseg/identity", "coseg/center"]
    assert terms["identity"] == reid["identity"]
    assert terms["center"] == reid["center"]


def test_baseline_has_the_terms_of_eq_9_and_needs_no_mask(config):
    config.model.auxiliary = "none"
    network, batch = build_network(config, identities=4), make_batch()
    del batch["mask"]
    outputs = network(batch)
    assert list(network.losses(outputs, batch, LossConfig())) == ["identity", "center"]
    assert set(outputs) == {"parts", "scores"}
    assert network.auxiliary is None


def test_every_parameter_of_the_paper_s_model_is_trained(network):
    """Each gets a gradient from the total loss, the backbone's also from the co-segmentation branch alone."""
    batch = make_batch()
    terms = network.losses(network(batch), batch, LossConfig())
    torch.autograd.backward(sum(terms.values()), retain_graph=True)
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    network.zero_grad()
    terms["coseg/segmentation"].backward()
    assert network.net.backbone.visible[0][0].weight.grad.abs().sum() > 0
    assert network.auxiliary.ccwg.fc.weight.grad.abs().sum() > 0


def test_settings_of_the_model_reach_the_network():
    model = ModelConfig(backbone="mobilenet_v2", parts=4, part_dim=8, part_norm=False, share_classifier=True)
    network = build_network(Config(model=model), identities=7)
    for module in (network.net.part_module, network.auxiliary.part_module):
        assert module.embed.weight.shape == (4, 320, 8)
        assert module.classify.weight.shape == (1, 8, 7)
        assert isinstance(module.norm, torch.nn.Identity)
    assert (network.net.height, network.net.width, network.net.identities) == (288, 144, 7)


def test_the_extra_part_module_has_parameters_of_its_own(network):
    own = {id(p) for p in network.auxiliary.part_module.parameters()}
    assert own
    assert not own & {id(p) for p in network.net.parameters()}

"""What holds for every row of Table 3, and what tells them apart (Eq. 20-24)."""

import pytest
import torch

from csvi.config import Config, CosegConfig, DataConfig, ModelConfig
from csvi.model import VIReIDNet
from csvi.model.network import AUXILIARIES, build_network

ALL = pytest.mark.parametrize("auxiliary", AUXILIARIES)
MASKED = pytest.mark.parametrize("auxiliary", ["segment", "decode", "coseg", "coseg+"])
HEIGHT, WIDTH = 48, 40  # 16 does not divide the width


@pytest.fixture
def network(auxiliary):
    torch.manual_seed(0)
    config = Config(
        data=DataConfig(height=HEIGHT, width=WIDTH),
        model=ModelConfig(backbone="resnet18", weights="none", parts=3, part_dim=8, auxiliary=auxiliary),
        coseg=CosegConfig(widths=(8, 4)),
    )
    network = build_network(config, identities=4)
    if network.net.guide is not None:
        torch.nn.init.normal_(network.net.guide.project.weight, std=0.01)  # 0 at first
    return network


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {
        "image": torch.randn(8, 3, HEIGHT, WIDTH),
        "identity": torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]),
        "modality": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        "mask": torch.rand(8, 1, HEIGHT, WIDTH),
    }


@ALL
def test_a_step_reaches_every_parameter(network, batch):
    terms = network.losses(network(batch), batch, Config().loss)
    assert all(term.isfinite() and term > 0 for term in terms.values())
    sum(terms.values()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


@ALL
def test_the_network_embeds_alone_whatever_it_was_trained_with(network, batch, tmp_path):
    net = network.net.eval()
    embedding = net(batch["image"], batch["modality"])
    assert embedding.shape == (8, 3 * 8)
    torch.testing.assert_close(embedding.unflatten(1, (3, 8)).norm(dim=2), torch.ones(8, 3))
    net.save_pretrained(tmp_path)
    again = VIReIDNet.from_pretrained(str(tmp_path)).eval()
    torch.testing.assert_close(again(batch["image"], batch["modality"]), embedding)


@ALL
def test_only_segment_keeps_more_than_the_baseline_for_testing(network, auxiliary):
    baseline = VIReIDNet(4, "resnet18", 3, 8)
    kept = {name for name, _ in network.net.named_parameters()} - {name for name, _ in baseline.named_parameters()}
    assert {name.partition(".")[0] for name in kept} == ({"guide"} if auxiliary == "segment" else set())


@ALL
def test_images_of_unknown_identities_have_masks_where_the_variant_has_any(network, batch, auxiliary):
    network.eval()
    features = network.net.features(batch["image"], batch["modality"])
    assert features.shared.shape == (8, 512, 3, 3)
    if network.auxiliary is None:
        return
    masks = network.auxiliary.predict_masks(features, batch["identity"] + 1000, batch["modality"])
    if auxiliary == "select":
        assert masks is None
    else:
        assert masks.shape == (8, 1, 12, 12)
        assert ((masks > 0) & (masks < 1)).all()


@pytest.mark.parametrize("auxiliary", ["select"])
def test_select_shows_the_parts_what_the_mask_leaves(network, batch):
    batch["mask"][:] = 0
    batch["mask"][:, :, :16, :16] = 1
    batch["mask"][:, :, 16:32, :8] = 1
    features = network.net.features(batch["image"], batch["modality"])
    seen = network.auxiliary.select(features, batch)
    torch.testing.assert_close(seen[:, :, 0, 0], features.shared[:, :, 0, 0])
    torch.testing.assert_close(seen[:, :, 1, 0], features.shared[:, :, 1, 0] / 2)
    assert (seen[:, :, 2:] == 0).all()
    assert (seen[:, :, :, 1:] == 0).all()


@pytest.mark.parametrize("auxiliary", ["none", "segment", "decode", "coseg", "coseg+"])
def test_masks_are_not_needed_to_embed_in_training(network, batch):
    del batch["mask"]
    assert network(batch)["parts"].shape == (8, 3, 8)

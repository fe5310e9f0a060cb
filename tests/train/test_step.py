"""Network and losses ask the device for nothing: an answer would have to wait for all that it still has to do."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from csvi.config import Config, CosegConfig, DataConfig, LossConfig, ModelConfig
from csvi.fabric import make_fabric, on_device
from csvi.model import build_network
from csvi.model.backbone import Route
from csvi.model.network import AUXILIARIES

IN_ORDER = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
MODALITIES = {"in order": IN_ORDER, "mixed": IN_ORDER[[0, 4, 1, 5, 2, 6, 3, 7]], "infrared": torch.ones(8, dtype=int)}


def losses(auxiliary, modality=IN_ORDER, mask_channels="one", reduction="sum", with_route=True):
    """Of a batch on a GPU that need not be there: tensors have shapes and no values, and what needs a value fails."""
    config = Config(
        data=DataConfig(height=48, width=24),
        model=ModelConfig(backbone="resnet18", weights="none", parts=3, part_dim=8, auxiliary=auxiliary),
        coseg=CosegConfig(widths=(8, 4), mask_channels=mask_channels),
        loss=LossConfig(center_reduction=reduction),
    )
    with torch.device("meta"):
        network = build_network(config, identities=4)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        network.to_empty(device="cuda")
        batch = {
            "image": torch.empty(8, 3, 48, 24),
            "identity": torch.empty(8, dtype=torch.int64),
            "modality": torch.empty(8, dtype=torch.int64),
            "mask": torch.empty(8, 1, 48, 24),
        }
        if with_route:
            batch["route"] = Route.of(modality, torch.device("cuda"))
        return network.losses(network(batch), batch, config.loss)


VARIANTS = [
    ("none", "one"),
    ("select", "one"),
    *[(name, channels) for name in ("segment", "decode", "coseg", "coseg+") for channels in ("one", "identity")],
]


@pytest.mark.parametrize("modality", MODALITIES.values(), ids=MODALITIES)
@pytest.mark.parametrize(("auxiliary", "mask_channels"), VARIANTS)
def test_a_step_needs_no_value(auxiliary, mask_channels, modality):
    assert {auxiliary for auxiliary, _ in VARIANTS} == set(AUXILIARIES)
    for reduction in ("sum", "mean"):
        terms = losses(auxiliary, modality, mask_channels, reduction)
        assert {term.device.type for term in terms.values()} == {"cuda"}


def test_without_a_route_the_modalities_are_asked_for():
    with pytest.raises(DataDependentOutputException):
        losses("none", with_route=False)


def test_a_batch_on_the_device_has_its_route(config):
    fabric = make_fabric(config)
    batch = {"image": torch.rand(8, 3, 4, 2), "modality": MODALITIES["mixed"]}
    found = on_device(batch, fabric)
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    assert found["route"].visible == 4
    assert found["modality"][found["route"].order].tolist() == IN_ORDER.tolist()
    assert on_device(batch | {"modality": IN_ORDER}, fabric)["route"] == Route(4, None)
    assert on_device(batch | {"modality": MODALITIES["infrared"]}, fabric)["route"] == Route(0, None)

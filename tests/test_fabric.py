"""What reaches a network."""

import pytest
import torch
from lightning_fabric import Fabric

from csvi.data.transforms import normalize
from csvi.fabric import on_device


@pytest.mark.parametrize("lies_as", [torch.contiguous_format, torch.channels_last])
def test_bytes_become_numbers_in_the_networks_memory_format(lies_as):
    batch = {
        "image": torch.randint(256, (4, 3, 8, 6), dtype=torch.uint8).contiguous(memory_format=lies_as),
        "mask": torch.randint(256, (4, 1, 8, 6), dtype=torch.uint8),
        "modality": torch.tensor([0, 0, 1, 1]),
    }
    found = on_device(batch, Fabric(accelerator="cpu", devices=1))
    assert found["image"].is_contiguous(memory_format=torch.channels_last)
    for key, expected in normalize(batch).items():
        assert torch.equal(found[key], expected)

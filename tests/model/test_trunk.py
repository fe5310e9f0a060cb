"""Trunks: torchvision's networks as stages, with names, channels and strides that hold."""

import pytest
import torch
import torchvision
from torch import nn

from csvi.errors import CsviError
from csvi.model.trunk import build_trunk, check_trunk

NAMES = ["resnet18", "resnet34", "resnet50", "mobilenet_v2"]


def built(name):
    with torch.device("meta"):
        return build_trunk(name)


def convolutions(stage):
    return [layer for top in stage.layers.values() for layer in top.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("name", NAMES)
def test_channels_and_strides_of_every_stage_are_what_it_says(name):
    trunk = built(name)
    features = torch.empty(2, 3, 288, 144, device="meta")
    for stage in trunk.stages:
        for layer in stage.layers.values():
            features = layer(features)
        assert features.shape == (2, stage.channels, 288 // stage.stride, 144 // stage.stride)
    assert [stage.stride for stage in trunk.stages[-3:]] == [8, 16, 16]


@pytest.mark.parametrize("name", NAMES)
def test_all_strides_of_the_last_stage_are_1(name):
    *_, before, last = built(name).stages
    assert {layer.stride for layer in convolutions(last)} == {(1, 1)}
    assert {layer.stride for layer in convolutions(before)} == {(1, 1), (2, 2)}  # which halves the resolution


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_torchvisions_but_for_the_head(name):
    """In the last stage the strides differ and nothing else does."""
    trunk = built(name)
    found = {
        f"{trunk.prefix}{top}.{key}": tensor.shape
        for stage in trunk.stages
        for top, layer in stage.layers.items()
        for key, tensor in layer.state_dict().items()
    }
    with torch.device("meta"):
        expected = torchvision.models.get_model(name).state_dict()
    dropped = ("features.18.", "classifier.") if name == "mobilenet_v2" else ("fc.",)
    assert found == {key: tensor.shape for key, tensor in expected.items() if not key.startswith(dropped)}


@pytest.mark.parametrize("name", ["resnet51", "vgg16", "", "ResNet50"])
def test_an_unknown_trunk_names_the_known_ones(name):
    for function in (build_trunk, check_trunk):
        with pytest.raises(CsviError, match=r"unknown backbone .*resnet50.*mobilenet_v2"):
            function(name)

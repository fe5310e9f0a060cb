"""The networks that features come from, as a row of stages that can be cut after any of them."""

from dataclasses import dataclass

import torchvision
from torch import nn

from csvi.errors import CsviError


@dataclass(frozen=True)
class Stage:
    """Layers that are computed one after the other."""

    layers: dict[str, nn.Module]
    """Layers by the names that pretrained weights know them by."""
    channels: int
    """Channels of the output."""
    stride: int
    """Pixels of the image in a cell of the output."""
    blocks: tuple[str, ...] = ()
    """Names of its blocks, in dotted form, where it has blocks."""


@dataclass(frozen=True)
class Trunk:
    """A network without its head."""

    stages: list[Stage]
    prefix: str = ""
    """Prefix of the names of the layers in pretrained weights."""
    in_order: bool = True
    """Whether layers are computed in the order in which they are declared, as those of torchvision."""


def build_trunk(name: str) -> Trunk:
    """A network of torchvision with random weights, as five stages; the last one keeps its resolution (Section 3.1.2).

    Args:
        name: `resnet18`, `resnet34`, `resnet50`, ... or `mobilenet_v2`.

    Raises:
        CsviError: there is no such network.
    """
    check_trunk(name)
    network = torchvision.models.get_model(name, weights=None)
    if name == "mobilenet_v2":
        layers = dict(network.features.named_children())
        ends, strides = (2, 4, 7, 14, 18), (2, 4, 8, 16, 16)
        stages = []
        for start, end, stride in zip((0, *ends), ends, strides, strict=False):
            names = tuple(map(str, range(start, end)))
            stages.append(Stage({n: layers[n] for n in names}, layers[names[-1]].out_channels, stride, names))
    else:
        layers = dict(network.named_children())
        last = network.fc.in_features
        stages = [
            Stage({name: layers[name] for name in ("conv1", "bn1", "relu", "maxpool")}, network.bn1.num_features, 4)
        ]
        for number, stride in enumerate((4, 8, 16, 16), 1):
            name = f"layer{number}"
            blocks = tuple(f"{name}.{block}" for block, _ in layers[name].named_children())
            stages.append(Stage({name: layers[name]}, last * 2**number // 16, stride, blocks))
    for top in stages[-1].layers.values():
        for layer in top.modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
    return Trunk(stages, prefix="features." if name == "mobilenet_v2" else "")


def check_trunk(name: str) -> None:
    """Raises `CsviError` if there is no such trunk."""
    supported = [n for n in torchvision.models.list_models(torchvision.models) if n.startswith("resnet")]
    supported.append("mobilenet_v2")
    if name not in supported:
        raise CsviError(
            f"unknown backbone {name!r}; choose one of {', '.join(supported)} (pmt also takes vit_base, vit_small, "
            "vit_tiny and timm:NAME)"
        )

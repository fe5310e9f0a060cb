"""Two-stream backbone: layers of its own for each modality, then shared ones (Eq. 1 and 2)."""

import copy
from collections import OrderedDict
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from csvi.errors import CsviError


class Route(NamedTuple):
    """Which images of a batch go through which stream, known to the host: nobody has to wait for a device to count."""

    visible: int
    """Number of visible images."""
    order: Tensor | None
    """(B,), puts the visible images first; None if they are."""

    @classmethod
    def of(cls, modality: Tensor, device: torch.device | None = None) -> "Route":
        """From modalities (B,), 0 visible and 1 infrared, best on the CPU; for images on `device`, by default there."""
        values = modality.tolist()
        order = None
        if values != sorted(values):
            order = modality.argsort(stable=True).to(device or modality.device, non_blocking=True)
        return cls(values.count(0), order)


class TwoStreamBackbone(nn.Module):
    """F_m = ConvB(X_m, alpha_m) and F_s,m = ConvB(F_m, beta), Eq. 1 and 2.

    Args:
        name: a ResNet of torchvision (`resnet18`, `resnet50`, ...) or `mobilenet_v2`.

    Attributes:
        visible, infrared: the layers of each modality, down to stride 8.
        shared: the layers for both, down to stride 16; the last stage keeps its resolution (Section 3.1.2).
        specific_channels, channels: C and C1, of the features before and after the shared layers.

    Raises:
        CsviError: no such backbone.
    """

    def __init__(self, name: str = "resnet50"):
        super().__init__()
        self.visible, self.shared, self.specific_channels, self.channels = _split(name)
        self.infrared = copy.deepcopy(self.visible)

    def forward(self, image: Tensor, modality: Tensor | Route) -> Tensor:
        """Shared features F_s (Eq. 2) of images in any order of modalities: (B, C1, H/16, W/16); see `specific`."""
        return self.shared(self.specific(image, modality))

    def specific(self, image: Tensor, modality: Tensor | Route) -> Tensor:
        """What the layers of each modality make of its images (Eq. 1).

        Args:
            image: (B, 3, H, W).
            modality: (B,), 0 visible and 1 infrared, or the route made of it; each image goes through the layers of its
                own modality.

        Returns:
            (B, C, H/8, W/8), in the order of the images.
        """
        visible, order = modality if isinstance(modality, Route) else Route.of(modality, image.device)
        if order is not None:
            image = image[order]
        streams = []
        for stream, images in ((self.visible, image[:visible]), (self.infrared, image[visible:])):
            if len(images):
                streams.append(stream(images))
        features = torch.cat(streams) if len(streams) > 1 else streams[0]  # cat copies a single one as well
        return features if order is None else features[order.argsort()]

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill both streams and the shared layers from a state dict of torchvision's single-stream network.

        Raises:
            CsviError: a tensor is missing or has another shape.
        """
        state = {key.removeprefix("features."): tensor for key, tensor in state.items()}
        for key, tensor in self.state_dict().items():
            source = key.partition(".")[2]  # visible.layer1.0.conv1.weight -> layer1.0.conv1.weight
            found = state.get(source)
            if found is None and source.endswith("num_batches_tracked"):
                continue  # older files have no such counter, and nothing here depends on it
            if found is None or found.shape != tensor.shape:
                state_of = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise CsviError(
                    f"the initial weights do not fit the backbone: {source} is {state_of}, "
                    f"it should be of shape {tuple(tensor.shape)}"
                )
            tensor.copy_(found)


def check_backbone(name: str) -> None:
    """Raises `CsviError` if there is no such backbone."""
    supported = [n for n in torchvision.models.list_models(torchvision.models) if n.startswith("resnet")]
    supported.append("mobilenet_v2")
    if name not in supported:
        raise CsviError(f"unknown backbone {name!r}; choose one of {', '.join(supported)}")


def _split(name: str) -> tuple[nn.Sequential, nn.Sequential, int, int]:
    """A torchvision network's layers to stride 8, its layers from there, and the channels at the end of each.

    Layers keep their names, so that torchvision's weights load by name.
    """
    check_backbone(name)
    network = torchvision.models.get_model(name, weights=None)
    if name == "mobilenet_v2":
        network = network.features
        specific, shared, last_stage = _names(0, 7), _names(7, 18), _names(14, 18)
        channels = network[6].out_channels, network[17].out_channels
    else:
        specific = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]
        shared, last_stage = ["layer3", "layer4"], ["layer4"]
        channels = network.fc.in_features // 4, network.fc.in_features
    layers = dict(network.named_children())
    for stage in last_stage:
        for layer in layers[stage].modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
    return _sequence(layers, specific), _sequence(layers, shared), *channels


def _names(start: int, stop: int) -> list[str]:
    return [str(i) for i in range(start, stop)]


def _sequence(layers: dict[str, nn.Module], names: list[str]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, layers[name]) for name in names))

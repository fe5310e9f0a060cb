"""Two streams, layers of its own for each modality, and shared layers behind them (Eq. 1 and 2)."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from csvi.errors import CsviError
from csvi.model.trunk import Stage, build_trunk


class Route(NamedTuple):
    """Which images of a batch go through which stream; the host knows it, and nobody waits for a device to count."""

    visible: int
    """Number of visible images."""
    order: Tensor | None
    """(B,), puts the visible images first; None if they are."""

    @classmethod
    def of(cls, modality: Tensor, device: torch.device | None = None) -> "Route":
        """Make a route from modalities (B,), 0 visible and 1 infrared, best on the CPU; by default for their device."""
        values = modality.tolist()
        order = None
        if values != sorted(values):
            order = modality.argsort(stable=True).to(device or modality.device, non_blocking=True)
        return cls(values.count(0), order)


class TwoStream(nn.Module):
    """F_m = ConvB(X_m, alpha_m) and F_s,m = ConvB(F_m, beta), Eq. 1 and 2.

    Args:
        trunk: name of the network that is cut, see `build_trunk`.
        cut: stages of each modality's own, from none to all; the remaining ones are shared.

    Attributes:
        visible, infrared: the layers of each modality.
        shared: the layers for both.
        specific_channels, channels: C and C1, of the features before and after the shared layers.
        specific_stride, stride: pixels of the image in a cell of either.

    Raises:
        CsviError: there is no such trunk.
    """

    def __init__(self, trunk: str = "resnet50", cut: int = 3):
        super().__init__()
        network = build_trunk(trunk)
        if not 0 <= cut <= len(network.stages):
            raise ValueError(f"{trunk} has {len(network.stages)} stages, it cannot be cut after {cut}")
        self.prefix = network.prefix
        self.visible = _sequence(network.stages[:cut])
        self.shared = _sequence(network.stages[cut:])
        self.infrared = copy.deepcopy(self.visible)
        image = Stage({}, channels=3, stride=1)
        before, last = [image, *network.stages][cut], network.stages[-1]
        self.specific_channels, self.specific_stride = before.channels, before.stride
        self.channels, self.stride = last.channels, last.stride

    def forward(self, image: Tensor, modality: Tensor | Route) -> Tensor:
        """Shared features F_s (Eq. 2) of images in any order of modalities: (B, C1, H/stride, W/stride)."""
        return self.shared(self.specific(image, modality))

    def specific(self, image: Tensor, modality: Tensor | Route) -> Tensor:
        """Task-shared features, by each modality's own layers (Eq. 1): (B, C, H/specific_stride, W/specific_stride).

        Args:
            image: (B, 3, H, W), in any order of modalities.
            modality: (B,), 0 visible and 1 infrared, or the route made of it.
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
        """Fill all layers from a single-stream network's state dict; raises `CsviError` if a tensor does not fit."""
        state = {key.removeprefix(self.prefix): tensor for key, tensor in state.items()}
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


def _sequence(stages: Sequence[Stage]) -> nn.Sequential:
    sequence = nn.Sequential()
    for stage in stages:
        for name, layer in stage.layers.items():
            sequence.add_module(name, layer)
    return sequence

"""Two streams, layers of its own for each modality, and shared layers behind them (Eq. 1 and 2)."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from csvi.errors import CsviError
from csvi.model.trunk import Stage, Trunk, build_trunk

Modalities = Tensor | np.ndarray | Sequence[int] | int
"""0 visible and 1 infrared: one for all images of a batch, or one for each."""


class Route(NamedTuple):
    """Which images of a batch go through which stream; the host knows it, and nobody waits for a device to count."""

    visible: int
    """Number of visible images."""
    infrared: int
    """Number of infrared images."""
    order: Tensor | None
    """(B,), puts the visible images first; None if they are."""

    @classmethod
    def of(cls, modality: Modalities, images: int, device: torch.device) -> "Route":
        """Make the route of so many images through streams on a device.

        Args:
            modality: 0 visible and 1 infrared, one for all images or (B,) of them, best on the CPU.
            images: B.
            device: that of the images.

        Raises:
            CsviError: another value or another number of them.
        """
        meaning = "it must be 0 for visible and 1 for infrared"
        try:
            modality = modality if isinstance(modality, Tensor) else torch.as_tensor(modality, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise CsviError(f"modality is {str(modality)[:60]!r}: {meaning}, for each image") from error
        if modality.dim() == 0:
            modality = modality.expand(images)
        if modality.shape != (images,):
            found = f"has {len(modality)}" if modality.dim() == 1 else f"is of shape {tuple(modality.shape)}"
            raise CsviError(f"there are {images} images and modality {found}: it must be one number for each")
        values = modality.tolist()
        for value in values:
            if value not in (0, 1):
                raise CsviError(f"modality holds {value}: {meaning} (public code often writes 1 and 2)")
        visible, order = values.count(0), None
        if values != sorted(values):
            order = modality.argsort(stable=True).to(device, non_blocking=True)
        return cls(visible, images - visible, order)


class TwoStream(nn.Module):
    """F_m = ConvB(X_m, alpha_m) and F_s,m = ConvB(F_m, beta), Eq. 1 and 2.

    Args:
        trunk: the network that is cut, or its name, see `build_trunk`.
        cut: stages of each modality's own, from none to all; the remaining ones are shared.
        stages: stages that are used of the trunk; by default all five.

    Attributes:
        visible, infrared: the layers of each modality.
        shared: the layers for both.
        stages, blocks, stage_channels, stage_strides: names of the layers and of the blocks of each stage, the channels
            that come out of it, and pixels of the image in a cell there.
        in_order: see `Trunk`.
        specific_channels, channels: C and C1, of the features before and after the shared layers.
        specific_stride, stride: pixels of the image in a cell of either.

    Raises:
        CsviError: there is no such trunk.
    """

    def __init__(self, trunk: str | Trunk = "resnet50", cut: int = 3, stages: int | None = None):
        super().__init__()
        network = trunk if isinstance(trunk, Trunk) else build_trunk(trunk)
        used = network.stages[:stages]
        if not 0 <= cut <= len(used):
            raise ValueError(f"a trunk of {len(used)} stages cannot be cut after {cut}")
        self.prefix, self.in_order, self.cut = network.prefix, network.in_order, cut
        self.stages = [list(stage.layers) for stage in used]
        self.blocks = [stage.blocks for stage in used]
        self.stage_channels = [stage.channels for stage in used]
        self.stage_strides = [stage.stride for stage in used]
        self.visible = _sequence(used[:cut])
        self.shared = _sequence(used[cut:])
        self.infrared = copy.deepcopy(self.visible)
        image = Stage({}, channels=3, stride=1)
        before, last = [image, *used][cut], used[-1]
        self.specific_channels, self.specific_stride = before.channels, before.stride
        self.channels, self.stride = last.channels, last.stride

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Shared features F_s (Eq. 2) of images in any order of modalities: (B, C1, H/stride, W/stride)."""
        return self.shared(self.specific(image, modality))

    def specific(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Task-shared features, by each modality's own layers (Eq. 1): (B, C, H/specific_stride, W/specific_stride).

        Args:
            image: (B, 3, H, W), normalised, in any order of modalities.
            modality: (B,), 0 visible and 1 infrared, or one number for all images, or the route made of it.

        Raises:
            CsviError: images are not of this kind, or modalities are not, or they are of other images.
        """
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise CsviError(
                f"images are {tuple(image.shape)}, {image.dtype}: they must be (B, 3, H, W) and normalised, "
                "as csvi.data.batch.prepare makes them of bytes"
            )
        route = modality if isinstance(modality, Route) else Route.of(modality, len(image), image.device)
        visible, infrared, order = route
        if visible + infrared != len(image):
            raise CsviError(
                f"there are {len(image)} images and the route is of {visible + infrared}: make one of these"
            )
        if self.cut == 0:
            return image
        if order is not None:
            image = image[order]
        streams = []
        for stream, images in ((self.visible, image[:visible]), (self.infrared, image[visible:])):
            if len(images) or not len(image):
                streams.append(stream(images))
        features = torch.cat(streams) if len(streams) > 1 else streams[0]  # cat copies a single one as well
        return features if order is None else features[order.argsort()]

    def stage(self, number: int, features: Tensor) -> Tensor:
        """Compute one of the shared stages, from 0: those of `cut` and later ones are shared."""
        for name in self.stages[number]:
            features = self.shared.get_submodule(name)(features)
        return features

    def follow(self, number: int, last: int, build: Callable[[int], nn.Module]) -> None:
        """Put new layers after each of the last blocks of a shared stage, which keep the shape.

        Args:
            number: of the stage, from 0.
            last: how many blocks of it; all, if it has no more.
            build: makes the new layers for so many channels.
        """
        for name in self.blocks[number][-last:]:
            block = self.shared.get_submodule(name)
            self.shared.set_submodule(name, Followed(block, build(_channels_of(block))))

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill all layers from a single-stream network's state dict; raises `CsviError` if a tensor does not fit.

        Layers that `follow` has put in stay as they are.
        """
        state = {key.removeprefix(self.prefix): tensor for key, tensor in state.items()}
        for key, tensor in self.state_dict().items():
            if not is_of_trunk(key):
                continue
            source = as_in_trunk(key).partition(".")[2]  # visible.layer1.0.conv1.weight -> layer1.0.conv1.weight
            found = state.get(source)
            if found is None and source.endswith("num_batches_tracked"):
                continue  # older files have no such counter, and nothing here depends on it
            if found is None or found.shape != tensor.shape:
                some = f" among {len(state)} tensors such as {next(iter(state), 'none')}"
                state_of = f"missing{some}" if found is None else f"of shape {tuple(found.shape)}"
                raise CsviError(
                    f"the initial weights do not fit the backbone: {source} is {state_of}, "
                    f"it should be of shape {tuple(tensor.shape)}"
                )
            tensor.copy_(found)


class Followed(nn.Module):
    """A block of a trunk, and new layers after it."""

    def __init__(self, block: nn.Module, after: nn.Module):
        super().__init__()
        self.block, self.after = block, after

    def forward(self, features: Tensor) -> Tensor:
        """Compute the block and what follows it."""
        return self.after(self.block(features))


def as_in_trunk(name: str) -> str:
    """Name a tensor as it would be called if no new layers followed its block."""
    return name.replace(".block.", ".")


def is_of_trunk(name: str) -> bool:
    """Whether a tensor of a `TwoStream` is of the trunk, and not of new layers after a block."""
    return ".after." not in name


def _channels_of(block: nn.Module) -> int:
    """Channels of a block's output: those of its last BatchNorm."""
    return [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)][-1].num_features


def _sequence(stages: Sequence[Stage]) -> nn.Sequential:
    sequence = nn.Sequential()
    for stage in stages:
        for name, layer in stage.layers.items():
            sequence.add_module(name, layer)
    return sequence

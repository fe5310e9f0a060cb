"""A trained network as one graph: bytes of images and their modality in, embeddings out."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.data.batch import MEAN, STD, Batch, prepare
from csvi.data.records import Modality
from csvi.export.reduction import Reduction
from csvi.model.folding import folded
from csvi.model.net import EmbeddingNet
from csvi.model.two_stream import TwoStream

Embed = Callable[[np.ndarray, int], np.ndarray]
"""Images of one modality, (B, H, W, 3) uint8, and 0 for visible or 1 for infrared, to embeddings, (B, D) float32."""
BATCHES = 1, 2, 7
"""Sizes of the batches that a graph is compared on."""


class StreamChoice(nn.Module):
    """The layers of one modality or of the other: which is decided when the graph runs.

    Args:
        visible, infrared: the layers.
    """

    def __init__(self, visible: nn.Module, infrared: nn.Module):
        super().__init__()
        self.visible, self.infrared = visible, infrared

    def forward(self, image: Tensor, modality: Tensor) -> Tensor:
        """Images (B, 3, H, W), all of the modality () 0 or 1, to features (B, C, h, w)."""
        if torch.jit.is_scripting():  # which knows `if`, and not torch.cond
            if bool(modality == 1):
                return self.infrared(image)
            return self.visible(image)
        features: Tensor = torch.cond(modality == 1, self.infrared, self.visible, (image,))
        return features


class ChosenStream(nn.Module):
    """Takes the place of a `TwoStream` for batches of one modality, which is a tensor ()."""

    def __init__(self, streams: TwoStream):
        super().__init__()
        self.choice = StreamChoice(streams.visible, streams.infrared) if streams.cut else None
        self.shared, self.stages = streams.shared, streams.stages

    def forward(self, image: Tensor, modality: Tensor) -> Tensor:
        """Shared features, see `TwoStream`."""
        return self.shared(self.specific(image, modality))

    stage = TwoStream.stage

    def specific(self, image: Tensor, modality: Tensor) -> Tensor:
        """Features by the modality's own layers, see `TwoStream`."""
        return image if self.choice is None else self.choice(image, modality)


class Graph(nn.Module):
    """The network with normalisation before it and, if asked for, a reduction behind it; for batches of one modality.

    Args:
        net: on the CPU; a copy is made, with BatchNorm folded into convolutions.
        reduction: of its embeddings, if any.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: EmbeddingNet, reduction: Reduction | None = None):
        super().__init__()
        self.height, self.width = net.height, net.width
        self.net = folded(net)
        for name, part in list(self.net.named_modules()):
            if isinstance(part, TwoStream):
                self.net.set_submodule(name, ChosenStream(part))
        self.reduce = nn.Identity() if reduction is None else Reduce(reduction)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(values))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, modality: Tensor) -> Tensor:
        """Embed images (B, H, W, 3), uint8, all of the modality () 0 or 1: (B, D)."""
        normal = (image.float() - self.mean) / self.std
        return self.reduce(self.net(normal.permute(0, 3, 1, 2), modality))

    @property
    def example(self) -> tuple[Tensor, Tensor]:
        """Two black images, and their modality."""
        return torch.zeros(2, self.height, self.width, 3, dtype=torch.uint8), torch.tensor(0)

    @staticmethod
    def any_batch() -> tuple[dict[int, Any], dict[int, Any]]:
        """Say for torch.export which axes of the two inputs may be of any size."""
        return {0: torch.export.Dim("batch")}, {}


class Reduce(nn.Module):
    """A `Reduction` as a layer."""

    mean: Tensor
    components: Tensor

    def __init__(self, reduction: Reduction):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(reduction.mean))
        self.register_buffer("components", torch.from_numpy(reduction.components.T.copy()))

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) to (B, d)."""
        return F.normalize((embedding - self.mean) @ self.components)


def embed_with(net: EmbeddingNet, reduction: Reduction | None = None) -> Embed:
    """Make a function that embeds as csvi does, in float32 on the CPU and with nothing folded."""
    net = copy.deepcopy(net).float().cpu().eval()

    def embed(images: np.ndarray, modality: int) -> np.ndarray:
        with torch.inference_mode():
            prepared = prepare(Batch.of(images, modality), torch.device("cpu"))
            embeddings: np.ndarray = net(prepared.image, prepared.streams).numpy()
        return embeddings if reduction is None else reduction(embeddings)

    return embed


def largest_difference(one: Embed, other: Embed, height: int, width: int) -> float:
    """Embed images of both modalities in two ways, in batches of several sizes: the largest difference of a number.

    An embedding of the other way that holds numbers beyond 1 (or -1) is divided by the largest of them first, and that
    of `one` by the same: float error grows with the numbers. NaN if either way gives NaN or infinity.
    """
    rng, largest = np.random.default_rng(0), []
    for batch in BATCHES:
        for modality in Modality:
            images = random_images(rng, batch, height, width, modality)
            embeddings, wanted = one(images, modality), other(images, modality)
            scale = np.maximum(np.abs(wanted).max(1, keepdims=True), 1)
            largest.append(np.abs(embeddings / scale - wanted / scale).max())
    return float(np.max(largest))


def random_images(rng: np.random.Generator, number: int, height: int, width: int, modality: Modality) -> np.ndarray:
    """Draw images with large shapes and fine noise, like a crop has; infrared ones grey: (number, H, W, 3) uint8."""
    shapes = rng.integers(0, 256, (number, 6, 3, 3), dtype=np.uint8)
    if modality == Modality.INFRARED:
        shapes[:] = shapes[..., :1]
    smooth = [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in shapes]
    noise = rng.normal(0, 8, (number, height, width, 1))
    return (np.stack([np.asarray(each) for each in smooth]) + noise).clip(0, 255).astype(np.uint8)

"""HcTri: parameters shared from the third stage on, and a triplet loss of hetero-centers (Liu et al., TMM 2021).

As its public code has it; docs/methods.md says where ours departs from it. The CSVI paper calls it PSE.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import cross_entropy, hetero_center_triplet
from csvi.methods.compared import published_as
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, StripSettings
from csvi.model.net import FeatureNet
from csvi.model.parts import PartLinear, PartNorm
from csvi.model.pooling import GeM
from csvi.model.two_stream import Modalities, Route, TwoStream

MARGIN = 0.3
"""Margin of the hetero-center triplet loss."""


@dataclass
class HcTriSettings(StripSettings):
    """Settings of HcTri: by default those of SYSU-MM01. On RegDB `power` is 10, `part_weight` 2 and `smoothing` 0.1."""

    name: str = "hctri"
    part_dim: int = 256
    """Length of a strip's embedding."""
    power: float = 3.0
    """p of the generalised mean over a strip (csvi.model.pooling.GeM)."""
    part_weight: float = 1.0
    """Weight of the triplet losses of each strip; that of all strips together has the weight 1."""
    smoothing: float = 0.0
    """Share of the identity loss's target that is spread over all classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 1, 100, "power")
        check_range(self, 0, math.inf, "part_weight")
        check_range(self, 0, 1, "smoothing")


class HcTriNet(FeatureNet):
    """Two stages of each modality's own, shared layers, and an embedding of each strip.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`.
        parts: P, horizontal strips, see `average_strips`.
        part_dim: C2, length of a strip's embedding.
        power: p of the pooling, see `GeM`.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        backbone: str = "resnet50",
        parts: int = 6,
        part_dim: int = 256,
        power: float = 3.0,
    ):
        super().__init__(method, height, width)
        self.backbone = TwoStream(backbone, cut=2)
        self.parts, self.pool = parts, GeM(power)
        channels = self.backbone.channels
        fully_connected = PartLinear(parts, channels, part_dim, math.sqrt(2 / channels))  # Kaiming, by the inputs
        self.embed = nn.Sequential(fully_connected, PartNorm(parts, part_dim), nn.ReLU())

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by all strips together, L2-normalised: (B, P * C2), see `EmbeddingNet`."""
        return F.normalize(self.strips(image, modality).flatten(1))

    def strips(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed the strips of images, without negative values: (B, P, C2)."""
        return self.embed(self.pool.strips(self.features(image, modality), self.parts))


class HcTri(PretrainedMethod):
    """An identity loss for each strip, and triplets of centers: of all strips together, and of each."""

    Settings = HcTriSettings
    Net = HcTriNet
    title = "HcTri"
    paper = (
        "Liu et al., Parameter Sharing Exploration and Hetero-Center Triplet Loss for Visible-Thermal Person "
        "Re-Identification, IEEE TMM 23, 2021"
    )
    published: ClassVar[Published | None] = published_as("PSE [36]")
    settings: HcTriSettings
    net: HcTriNet

    def __init__(self, settings: HcTriSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        s = settings
        self.net = self.Net(s.name, height, width, s.backbone, s.parts, s.part_dim, s.power)
        self.classify = PartLinear(s.parts, s.part_dim, identities, 0.001)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity losses and the triplet losses; all but that of all strips together are sums over the strips."""
        s, labels = self.settings, (batch.identity, batch.modality)
        strips = self.net.strips(batch.image, batch.streams)
        of_strips = [hetero_center_triplet(strip, *labels, MARGIN) for strip in strips.unbind(1)]
        return {
            "identity": cross_entropy(self.classify(strips), batch.identity, s.smoothing),
            "triplet": hetero_center_triplet(strips.flatten(1), *labels, MARGIN),
            "part_triplet": s.part_weight * torch.stack(of_strips).sum(),
        }

"""MPANet: patterns instead of strips, and two classifiers that learn from each other (Wu et al., CVPR 2021).

As its public code has it; docs/methods.md says where that departs from the publication.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.records import Modality
from csvi.data.views import Erase, Flip, Shift, Views
from csvi.losses import center_cluster, cross_entropy, identity_loss, mutual_learning, separation
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.enhancement import ModalityAlleviation
from csvi.model.neck import BNNeck
from csvi.model.net import FeatureNet
from csvi.model.pooling import PatternMaps
from csvi.model.two_stream import Modalities, Route, TwoStream

GREY = 127
"""Byte of the padding."""


def mpanet_views(data: DataConfig) -> Views:
    """The same for both modalities: flip, pad with grey and crop, erase."""
    view = Flip(data.flip), Shift(data.pad, fill=GREY), Erase(data.erase)
    return dict.fromkeys(Modality, (view,))


class PatternNet(FeatureNet):
    """A trunk that both modalities share, modality alleviation after its last two stages, and learned parts.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`.
        patterns: see `PatternMaps`.
        normalize: L2-normalise embeddings.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        backbone: str = "resnet50",
        patterns: int = 6,
        normalize: bool = True,
    ):
        super().__init__(method, height, width)
        self.normalize = normalize
        self.backbone = TwoStream(backbone, cut=0)
        for stage in (3, 4):
            self.backbone.follow(stage, 1, ModalityAlleviation)
        self.pool = PatternMaps(self.backbone.channels, patterns)
        self.dim = (patterns + 1) * self.backbone.channels
        self.neck = BNNeck(self.dim, weight_std=0)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by the feature behind the batch norm: (B, (K + 1) * C1), see `EmbeddingNet`."""
        pooled, _ = self.pooled(image, modality)
        feature = self.neck(pooled)
        return F.normalize(feature, dim=1) if self.normalize else feature

    def pooled(self, image: Tensor, modality: Modalities | Route) -> tuple[Tensor, Tensor]:
        """Compute the feature before the batch norm, (B, (K + 1) * C1), and the masks of the patterns, (B, K, h, w)."""
        pooled: tuple[Tensor, Tensor] = self.pool(self.features(image, modality))
        return pooled

    def average(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Average embeddings of the same images, normalised if they are: (B, D) each, to (B, D)."""
        return super().average(embeddings) if self.normalize else torch.stack(list(embeddings)).mean(0)


@dataclass
class MPANetSettings(PretrainedSettings):
    """Settings of MPANet."""

    name: str = "mpanet"
    patterns: int = 6
    """K, patterns, each with a mask of its own."""
    normalize: bool = True
    """L2-normalise embeddings; its public code does not on RegDB, which gives another ranking."""
    separation_weight: float = 0.5
    """Weight of the overlap of an image's masks."""
    center_weight: float = 1.0
    """Weight of the center cluster loss."""
    margin: float = 0.7
    """Margin of the center cluster loss: least distance of two centers."""
    modality_weight: float = 1.0
    """Weight of the identity losses of the classifiers of the modalities; its public code adds them twice with 0.5."""
    mutual_weight: float = 2.5
    """Weight of mutual learning, from the averaged classifier of the other modality."""
    update_rate: float = 0.2
    """Share of the present weights in the averaged classifiers, at each step of the first epochs."""
    update_epochs: int = 100
    """Epochs after which that share falls: as many as 100 of its public code, which have 86 steps each on SYSU-MM01."""

    def __post_init__(self) -> None:
        weights = "separation_weight", "center_weight", "modality_weight", "mutual_weight"
        check_range(self, 0, math.inf, "margin", *weights)
        check_range(self, 0, 1, "update_rate")
        check_range(self, 1, 100_000, "patterns", "update_epochs")


class MPANet(PretrainedMethod):
    """An identity loss of all images, and one of each modality, whose classifier learns from that of the other one."""

    Settings = MPANetSettings
    Net = PatternNet
    title = "MPANet"
    paper = "Wu et al., Discover Cross-Modality Nuances for Visible-Infrared Person Re-Identification, CVPR 2021"
    published: ClassVar[Published | None] = Published(
        "Table 2 of DEEN's paper",
        {
            "sysu": {
                "all-search single-shot": {"R1": 70.6, "mAP": 68.2},
                "indoor-search single-shot": {"R1": 76.7, "mAP": 81.0},
            }
        },
    )
    view_settings = "flip", "pad", "erase"
    settings: MPANetSettings
    net: PatternNet
    visible_average: Tensor
    infrared_average: Tensor
    rate: Tensor

    def __init__(self, settings: MPANetSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        s = settings
        self.net = self.Net(s.name, height, width, s.backbone, s.patterns, s.normalize)
        self.classify, self.classify_visible, self.classify_infrared = (
            nn.Linear(self.net.dim, identities, bias=False) for _ in range(3)
        )
        self.register_buffer("visible_average", self.classify_visible.weight.detach().clone())  # (L, D)
        self.register_buffer("infrared_average", self.classify_infrared.weight.detach().clone())
        self.register_buffer("rate", torch.tensor(s.update_rate), persistent=False)

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of the present weights that the averaged classifiers take at each step.

        In the n-th epoch of its public code, n from 1, that is `update_rate` times 100 / (n + 1), but no more than
        `update_rate`. Where epochs are longer here, n is the mean of those that fit into one.
        """
        s = self.settings
        n = (epoch + 0.5) * 100 / s.update_epochs + 0.5
        self.rate.fill_(s.update_rate * min(1.0, 100 / (n + 1)))

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses: identity, of the modalities, mutual, of the centers and of the masks."""
        s, visible = self.settings, (batch.modality == 0)[:, None]
        pooled, maps = self.net.pooled(batch.image, batch.streams)
        feature = self.net.neck(pooled)
        own = torch.where(visible, self.classify_visible(feature), self.classify_infrared(feature))
        return {
            "identity": cross_entropy(self.classify(feature), batch.identity),
            "modality": s.modality_weight * identity_loss(own, batch.identity, batch.modality),
            "mutual": s.mutual_weight * mutual_learning(own, self.teach(feature, visible)),
            "center": s.center_weight * center_cluster(pooled, batch.identity, s.margin),
            "separation": s.separation_weight * separation(maps),
        }

    @torch.no_grad()
    def teach(self, feature: Tensor, visible: Tensor) -> Tensor:
        """Update the averaged classifiers, and score each image by that of the other modality.

        Args:
            feature: (B, D).
            visible: which images are, (B, 1).

        Returns:
            (B, L).
        """
        if self.training:
            self.visible_average.lerp_(self.classify_visible.weight, self.rate)
            self.infrared_average.lerp_(self.classify_infrared.weight, self.rate)
        of_visible, of_infrared = (F.linear(feature, w) for w in (self.visible_average, self.infrared_average))
        return torch.where(visible, of_infrared, of_visible)

    def views(self, data: DataConfig) -> Views:
        """Those of MPANet."""
        return mpanet_views(data)

"""DEEN: stages aggregate their input, and two branches make more embeddings of an image (Zhang et al., CVPR 2023).

As its public code has it; docs/methods.md says where that departs from the publication.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.channel_views import caj_erase
from csvi.data.records import Modality
from csvi.data.views import Flip, Grayscale, Shift, Views
from csvi.errors import CsviError
from csvi.losses import batch_hard_triplet, center_pair_margin, cross_entropy, feature_orthogonality
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.enhancement import DiverseEmbedding, MultiFeatureAggregation
from csvi.model.neck import BNNeck, Classifier
from csvi.model.net import FeatureNet
from csvi.model.pooling import GeM
from csvi.model.two_stream import Modalities, Route, TwoStream

BRANCHES = 2
"""Embeddings that are generated of an image, beside its own."""
MARGIN = 0.3
"""Margin of the batch-hard triplet loss."""
POOLED = 0.1
"""Weight of features before the batch norm in the similarity of two images; the rest is that of those behind it."""


def deen_views(data: DataConfig, area: tuple[float, float] = (0.2, 0.8)) -> Views:
    """One view, the same for both modalities; `area` is the least and the greatest share of an image that is erased."""
    erase = caj_erase(data.erase, area, (0.485, 0.456, 0.406))
    view = Shift(data.pad), Grayscale(data.grayscale), Flip(data.flip), erase
    return dict.fromkeys(Modality, (view,))


@dataclass
class DEENSettings(PretrainedSettings):
    """Settings of DEEN; the defaults are those of SYSU-MM01."""

    name: str = "deen"
    stages: Literal[4, 5] = 5
    """Stages of the backbone: all five, on RegDB four. Embeddings are generated before the last of them."""
    erase_area: tuple[float, float] = (0.2, 0.8)
    """Least and greatest share of an image that is erased; on RegDB and LLCM 0.02 and 0.4."""
    dropout: float = 0.01
    """Dropout of the features that embeddings are generated from, and of those generated."""
    pair_weight: float = 0.8
    """Weight of the center-guided pair mining loss of each branch."""
    pair_margin: float = 0.2
    """Its margin."""
    orthogonal_weight: float = 0.01
    """Weight of the inner product of the two generated features of an image."""

    def __post_init__(self) -> None:
        check_range(self, 0, math.inf, "pair_weight", "pair_margin", "orthogonal_weight")
        check_range(self, 0, 0.999999, "dropout")
        least, most = self.erase_area
        if not 0 < least <= most <= 1:
            raise CsviError(
                f"erase_area is {self.erase_area}: it must be two shares of an image, the smaller one first"
            )


class DEENNet(FeatureNet):
    """Two stems, stages that aggregate their input, and three embeddings of each image from the last stage.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`; the first of its stages is each modality's own.
        stages: S, of the trunk that are used; all shared ones but the last are followed by an aggregation.
        dropout: see `DiverseEmbedding`.
    """

    def __init__(
        self, method: str, height: int, width: int, backbone: str = "resnet50", stages: int = 5, dropout: float = 0.01
    ):
        super().__init__(method, height, width)
        self.backbone = TwoStream(backbone, cut=1, stages=stages)
        channels, strides = self.backbone.stage_channels, self.backbone.stage_strides
        self.aggregate = nn.ModuleList(
            MultiFeatureAggregation(channels[stage], channels[stage - 1], strides[stage] // strides[stage - 1])
            for stage in range(1, stages - 1)
        )
        self.expand = DiverseEmbedding(channels[-2], BRANCHES, dropout)
        self.pool, self.neck = GeM(1.0), BNNeck(self.backbone.channels)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by three features before and behind the batch norm: (B, 6 * C1), see `EmbeddingNet`.

        Each is L2-normalised and weighted, so that the inner product of two embeddings, which are of length 1, is a
        third of the similarity of the public code.
        """
        return self.embedding(self.pooled(image, modality))

    def features(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the three feature maps of an image, one behind the other: (B, 3 * C1, h, w)."""
        return side_by_side(self.diverse(image, modality))

    def pooled(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the features before the batch norm, in the order of `DiverseEmbedding`: (3 * B, C1)."""
        return self.pool(self.diverse(image, modality))

    def embedding(self, pooled: Tensor) -> Tensor:
        """Compute embeddings (B, 6 * C1) from the features before the batch norm (3 * B, C1)."""
        weighted = [
            math.sqrt(share / (1 + BRANCHES)) * F.normalize(features, dim=1)
            for share, features in ((POOLED, pooled), (1 - POOLED, self.neck(pooled)))
        ]
        return side_by_side(torch.cat(weighted, 1))

    def diverse(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the maps of all images, then those of the first branch, and so on: (3 * B, C1, h, w)."""
        features = self.backbone.specific(image, modality)
        for stage, aggregate in enumerate(self.aggregate, 1):
            features = aggregate(self.backbone.stage(stage, features), features)
        return self.backbone.stage(len(self.aggregate) + 1, self.expand(features))


def side_by_side(rows: Tensor) -> Tensor:
    """Put what is of one image into one row: (3 * B, C, ...), all images and then each branch, to (B, 3 * C, ...)."""
    return rows.unflatten(0, (1 + BRANCHES, -1)).transpose(0, 1).flatten(1, 2)


class DEEN(PretrainedMethod):
    """Losses on three times the images; generated features are to be unlike, and near those of the other modality."""

    Settings: ClassVar[type[DEENSettings]] = DEENSettings
    Net = DEENNet
    title = "DEEN"
    paper = (
        "Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for "
        "Visible-Infrared Person Re-identification, CVPR 2023"
    )
    published: ClassVar[Published | None] = Published(
        "Tables 2 and 3 of DEEN's paper",
        {
            "sysu": {
                "all-search single-shot": {"R1": 74.7, "mAP": 71.8},
                "indoor-search single-shot": {"R1": 80.3, "mAP": 83.3},
            },
            "regdb": {
                "visible to thermal": {"R1": 91.1, "mAP": 85.1},
                "thermal to visible": {"R1": 89.5, "mAP": 83.4},
            },
            "llcm": {
                "infrared to visible": {"R1": 54.9, "mAP": 62.9},
                "visible to infrared": {"R1": 62.5, "mAP": 65.8},
            },
        },
    )
    flip = True
    settings: DEENSettings
    net: DEENNet

    def __init__(self, settings: DEENSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.net = self.Net(settings.name, height, width, settings.backbone, settings.stages, settings.dropout)
        self.classify = Classifier(self.net.backbone.channels, identities)

    def slow(self) -> Iterable[nn.Module]:
        """All but the batch norm and the classifier, new layers included."""
        return [self.net.backbone, self.net.aggregate, self.net.expand]

    def views(self, data: DataConfig) -> Views:
        """The view of DEEN, which turns infrared images grey as often as visible ones."""
        return deen_views(data, self.settings.erase_area)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity and the triplet loss of all features, pair mining and orthogonality of the generated ones."""
        s, pooled = self.settings, self.net.pooled(batch.image, batch.streams)
        identity = batch.identity.repeat(1 + BRANCHES)
        own, *generated = pooled.chunk(1 + BRANCHES)
        pairs = [center_pair_margin(own, of, batch.identity, batch.modality, s.pair_margin) for of in generated]
        return {
            "identity": cross_entropy(self.classify(self.net.neck(pooled)), identity),
            "triplet": batch_hard_triplet(pooled, identity, MARGIN),
            "pairs": s.pair_weight * torch.stack(pairs).sum(),
            "orthogonality": s.orthogonal_weight * feature_orthogonality(*generated),
        }

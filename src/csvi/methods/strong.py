"""What helps, put together: co-segmentation, channel augmentation, a whole-body feature and a triplet loss (ours).

Each ingredient is of another method here and can be left out; what each gains is not measured yet (docs/methods.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.views import Views
from csvi.losses import cross_entropy, hetero_center_triplet, weighted_regularized_triplet
from csvi.methods.caj import caj_views
from csvi.methods.coseg_plus import CoSegPlus, CoSegPlusSettings
from csvi.model.neck import BNNeck, Classifier
from csvi.model.net import PartNet
from csvi.model.parts import joined
from csvi.model.pooling import GeM


class WholeAndPartsNet(PartNet):
    """A `PartNet` with a feature of the whole body beside the parts: generalised means, and a batch norm behind them.

    Args:
        method, height, width, identities, backbone, parts, part_dim, part_norm, share_classifier: see `PartNet`.
        whole: length of that feature beside a part's, of 1; 0 leaves it out.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        identities: int,
        backbone: str = "resnet50",
        parts: int = 6,
        part_dim: int = 512,
        part_norm: bool = True,
        share_classifier: bool = False,
        whole: float = 1.0,
    ):
        super().__init__(method, height, width, identities, backbone, parts, part_dim, part_norm, share_classifier)
        self.whole, self.of_parts = whole, parts * part_dim
        if whole:
            self.pool, self.neck = GeM(), BNNeck(self.backbone.channels)

    def embedding(self, features: Tensor) -> Tensor:
        """Compute embeddings (B, P * C2 + C1) from features (B, C1, h, w): parts, then the whole body."""
        parts = super().embedding(features)
        if not self.whole:
            return parts
        return torch.cat([parts, self.whole * F.normalize(self.neck(self.pool(features)), dim=1)], 1)

    def average(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Average embeddings of the same images, each part and the whole body by itself."""
        total = torch.stack(list(embeddings)).sum(0)
        parts, body = total[:, : self.of_parts], total[:, self.of_parts :]
        averaged = super().average([parts])
        return torch.cat([averaged, self.whole * F.normalize(body, dim=1)], 1) if self.whole else averaged


@dataclass
class StrongSettings(CoSegPlusSettings):
    """Settings of `coseg+`, and of what is added to it."""

    name: str = "strong"
    channel_views: bool = True
    """Augment as CAJ does: a second view of each visible image, of one channel, and infrared channels alike."""
    whole: float = 1.0
    """Length of the whole body's feature in the embedding, where a part's is 1; 0 leaves it out of training too."""
    whole_weight: float = 1.0
    """Weight of both losses of the whole body's feature; the identity loss of each part has 1 for each modality."""
    triplet_weight: float = 1.0
    """Weight of AGW's triplet loss of the whole body's feature, beside its identity loss."""
    center_triplet_weight: float = 1.0
    """Weight of the hetero-center triplet loss of all parts together."""
    center_triplet_margin: float = 0.3
    """Its margin, as in HcTri."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(
            self, 0, math.inf,
            "whole", "whole_weight", "triplet_weight", "center_triplet_weight", "center_triplet_margin",
        )  # fmt: skip


class Strong(CoSegPlus):
    """`coseg+` on CAJ's views, with a feature of the whole body and triplet losses."""

    Settings = StrongSettings
    Net = WholeAndPartsNet
    title = "strong"
    paper = "ours"
    settings: StrongSettings
    net: WholeAndPartsNet

    def __init__(self, settings: StrongSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        if settings.whole:
            self.classify = Classifier(self.net.backbone.channels, identities)

    def net_arguments(self) -> dict[str, Any]:
        """List the arguments of `Net` but for the size of the images."""
        return super().net_arguments() | {"whole": self.settings.whole}

    def views(self, data: DataConfig) -> Views:
        """Those of CAJ, or one view of each image."""
        return caj_views(data) if self.settings.channel_views else super().views(data)

    def terms(self, features: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the terms of `coseg+`, and the losses of the whole body."""
        s = self.settings
        terms = super().terms(features, batch, step)
        if s.whole:
            pooled = self.net.pool(features)
            identity = cross_entropy(self.classify(self.net.neck(pooled)), batch.identity)
            triplet = weighted_regularized_triplet(pooled, batch.identity)
            terms["whole/identity"] = s.whole_weight * identity
            terms["whole/triplet"] = s.whole_weight * s.triplet_weight * triplet
        return terms

    def reid_losses(self, parts: Tensor, scores: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Add the triplet loss of all parts together, of either part head, to those of the Baseline."""
        s = self.settings
        terms = super().reid_losses(parts, scores, batch, step)
        if s.center_triplet_weight:
            triplet = hetero_center_triplet(joined(parts), batch.identity, batch.modality, s.center_triplet_margin)
            terms["triplet"] = s.center_triplet_weight * triplet
        return terms

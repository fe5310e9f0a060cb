"""AGW: non-local attention, generalised-mean pooling and a weighted regularised triplet loss (Ye et al., TPAMI 2021).

As its public code has it; docs/methods.md says where that departs from the publication.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import batch_hard_triplet, cross_entropy, weighted_regularized_triplet
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.neck import Classifier
from csvi.model.net import NeckNet

BASE_MARGIN = 0.3
"""Margin of the batch-hard triplet loss of the baseline of AGW's paper."""


@dataclass
class AGWSettings(PretrainedSettings):
    """Settings of AGW."""

    name: str = "agw"
    base: bool = False
    """AGW's own baseline: no attention, average pooling, and the batch-hard triplet loss."""
    triplet_weight: float = 1.0
    """Weight of the triplet loss."""

    def __post_init__(self) -> None:
        check_range(self, 0, math.inf, "triplet_weight")


class AGW(PretrainedMethod):
    """One feature an image: a triplet loss before its batch norm, an identity loss behind it."""

    Settings: ClassVar[type[AGWSettings]] = AGWSettings
    Net = NeckNet
    title = "AGW"
    paper = "Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 44(6), 2022"
    published: ClassVar[Published | None] = Published(
        "READMEs of the public code of AGW and, for indoor search, of DDAG; LLCM: AGW* in Table 3 of DEEN's paper",
        {
            "sysu": {
                "all-search single-shot": {"R1": 47.50, "mAP": 47.65},
                "indoor-search single-shot": {"R1": 54.17, "mAP": 62.97},
            },
            "llcm": {
                "infrared to visible": {"R1": 46.4, "mAP": 54.8},
                "visible to infrared": {"R1": 56.0, "mAP": 59.1},
            },
        },
    )
    settings: AGWSettings
    net: NeckNet

    def __init__(self, settings: AGWSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        power = 1.0 if settings.base else 3.0
        self.net = self.Net(settings.name, height, width, settings.backbone, power, non_local=not settings.base)
        self.classify = Classifier(self.net.backbone.channels, identities)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity loss and the triplet loss of all rows together, whatever their modality."""
        pooled = self.net.pooled(batch.image, batch.streams)
        return self.terms(pooled, self.classify(self.net.neck(pooled)), batch)

    def terms(self, pooled: Tensor, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the weighted terms from features (B, C) before the batch norm, and scores (B, L)."""
        return {
            "identity": cross_entropy(scores, batch.identity),
            "triplet": self.settings.triplet_weight * self.triplet(pooled, batch),
        }

    def triplet(self, pooled: Tensor, batch: Batch) -> Tensor:
        """Compute the triplet loss of features (B, C), before the batch norm."""
        if self.settings.base:
            return batch_hard_triplet(pooled, batch.identity, BASE_MARGIN)
        return weighted_regularized_triplet(pooled, batch.identity)

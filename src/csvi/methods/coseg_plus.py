"""`coseg+`, ours: co-segmentation beside a loss that asks who it is.

In the paper every image is decoded under the weights of its own identity, so that nothing asks these to tell one person
from another. Here the weights of an image come from the other modality's images alone, and the shared features have to
name each image among those of the other modality.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import center_contrast
from csvi.methods.compared import PAPER
from csvi.methods.coseg import CoSeg, CoSegSettings, Source


@dataclass
class CoSegPlusSettings(CoSegSettings):
    """Settings of `coseg`, two of them with another default, and the weight of the contrast."""

    name: str = "coseg+"
    weights_from: Source = "other-modality"
    """See `coseg`."""
    decoder: Literal["paper", "lean"] = "lean"
    """See `decode`. As good as the paper's here (docs/results-tried.md), with 1/7 of its arithmetic (ResNet-50)."""
    contrast_weight: float = 5.0
    """Weight of the contrast of the shared features' means (`csvi.losses.center_contrast`); 0 leaves it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "contrast_weight")


class CoSegPlus(CoSeg):
    """Co-segmentation with weights w from the other modality, a lean decoder, and a contrast across modalities.

    Of what was tried, this was the best on the val identities (docs/results-tried.md). It costs nothing at test.
    """

    Settings = CoSegPlusSettings
    title = "coseg+"
    paper = "ours, after " + PAPER
    published = None
    settings: CoSegPlusSettings

    def terms(self, features: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the terms of Eq. 18 from F_s, (B, C1, h, w), and the contrast of its means."""
        terms = super().terms(features, batch, step)
        if self.settings.contrast_weight:
            contrast = center_contrast(features.mean((2, 3)), batch.identity, batch.modality)
            terms["contrast"] = self.settings.contrast_weight * contrast
        return terms

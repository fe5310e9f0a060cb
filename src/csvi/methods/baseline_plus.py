"""`baseline+`, ours: the Baseline and a contrast across modalities. It needs no masks."""

import math
from dataclasses import dataclass

from torch import Tensor

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import center_contrast
from csvi.methods.baseline import Baseline, BaselineSettings
from csvi.methods.compared import PAPER


@dataclass
class BaselinePlusSettings(BaselineSettings):
    """Settings of the Baseline, and the weight of the contrast."""

    name: str = "baseline+"
    contrast_weight: float = 5.0
    """Weight of the contrast of the shared features' means (`csvi.losses.center_contrast`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "contrast_weight")


class BaselinePlus(Baseline):
    """The Baseline, in which the mean of F_s has to name each image among those of the other modality."""

    Settings = BaselinePlusSettings
    title = "baseline+"
    paper = "ours, after " + PAPER
    published = None
    settings: BaselinePlusSettings

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 9, and the contrast."""
        features = self.features(batch)
        contrast = center_contrast(features.mean((2, 3)), batch.identity, batch.modality)
        parts, scores = self.net.head(features)
        return self.reid_losses(parts, scores, batch, step) | {"contrast": self.settings.contrast_weight * contrast}

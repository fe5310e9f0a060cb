"""`coseg+`, ours: co-segmentation that has to know who it is.

In the paper every image is decoded under the weights of its own identity, so that the mask loss never asks them to tell
one person from another. Here the weights of an image come from the other modality's images alone, and each cell of
the shared features is classified: whose of the batch it is, or background.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import cell_identity_loss, mask_target
from csvi.methods.compared import PAPER
from csvi.methods.coseg import BranchSettings, CoSeg


@dataclass
class CoSegPlusSettings(BranchSettings):
    """Settings of `coseg` but for whose the weights are, and the weight of the loss of cells."""

    name: str = "coseg+"
    decoder: Literal["paper", "lean"] = "lean"
    """See `decode`. As good as the paper's here (docs/results.md), with an eighth of its arithmetic for a ResNet-50."""
    cell_weight: float = 5.0
    """Weight of the loss of cells (`csvi.losses.cell_identity_loss`), chosen on val; 0 leaves it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "cell_weight")


class CoSegPlus(CoSeg):
    """Co-segmentation with weights w from the other modality, and an identity for each cell of the shared features.

    Of what was tried, this was the best on the val identities (docs/results.md). It costs nothing at test.
    """

    Settings = CoSegPlusSettings
    title = "coseg+"
    paper = "ours, after " + PAPER
    published = None
    weights_from = "other-modality"
    settings: CoSegPlusSettings

    def __init__(self, settings: CoSegPlusSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        if settings.cell_weight:
            self.background = nn.Parameter(torch.randn(1, self.net.backbone.channels))

    def terms(self, features: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the terms of Eq. 18 from F_s, (B, C1, h, w), and the loss of its cells."""
        terms = super().terms(features, batch, step)
        if self.settings.cell_weight:
            assert batch.mask is not None
            person = mask_target(batch.mask, *features.shape[2:], self.net.backbone.stride)
            cells = cell_identity_loss(
                features, batch.identity, batch.modality, person, self.background, has_mask=batch.has_mask
            )
            terms["cells"] = self.settings.cell_weight * cells
        return terms

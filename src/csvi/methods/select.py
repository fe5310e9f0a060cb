"""Baseline+Sel of Table 3: features selected by given masks (Figure 3a, Eq. 20, 21)."""

from dataclasses import dataclass

from torch import Tensor

from csvi.data.batch import Batch
from csvi.losses import mask_target
from csvi.methods.baseline import TABLE_3, Baseline, BaselineSettings
from csvi.methods.method import Published


@dataclass
class SelectSettings(BaselineSettings):
    """Settings of the Baseline; the selection has none."""

    name: str = "select"


class Select(Baseline):
    """The Baseline whose part head sees the shared features times the true masks, in training only."""

    Settings = SelectSettings
    title = "Baseline+Sel"
    needs_masks = True
    published = Published(TABLE_3, {"sysu": {"all-search single-shot": {"R1": 64.05, "R10": 93.96, "mAP": 60.32}}})

    def features(self, batch: Batch) -> Tensor:
        """Compute F_sel of Eq. 21: every cell of F_s times the share of it that is person; without a mask, F_s."""
        features = super().features(batch)
        assert batch.mask is not None
        mask = mask_target(batch.mask, *features.shape[2:], self.net.backbone.stride)
        if batch.has_mask is not None:
            mask = mask.where(batch.has_mask[:, None, None, None], 1)
        return features * mask.to(features.dtype)

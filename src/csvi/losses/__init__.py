"""Losses as pure functions of tensors. They go by label, never by position in the batch; none knows a setting."""

from csvi.losses.center import hetero_center_loss
from csvi.losses.identity import identity_loss
from csvi.losses.masks import identity_mask_loss, mask_loss, mask_target

__all__ = ["hetero_center_loss", "identity_loss", "identity_mask_loss", "mask_loss", "mask_target"]

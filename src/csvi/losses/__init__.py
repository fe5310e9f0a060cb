"""Losses as pure functions of tensors. They go by label, never by position in the batch; none knows a setting.

A loss of your own is decorated with `full_precision`, which computes it in at least 32 bits whatever the network uses.
"""

from csvi.losses.center import hetero_center_loss
from csvi.losses.identity import identity_loss
from csvi.losses.loss import full_precision
from csvi.losses.masks import identity_mask_loss, mask_loss, mask_target

__all__ = ["full_precision", "hetero_center_loss", "identity_loss", "identity_mask_loss", "mask_loss", "mask_target"]

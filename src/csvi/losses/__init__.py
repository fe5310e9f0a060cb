"""Losses as pure functions of tensors. They go by label, never by position in the batch; none knows a setting.

Of B images `identity` is (B,), labels, and `modality` (B,), 0 visible and 1 infrared. Every loss is a scalar. A loss of
your own is decorated with `full_precision`: it is computed in at least 32 bits where the network is computed in fewer.
"""

from csvi.losses.center import hetero_center_loss
from csvi.losses.identity import identity_loss
from csvi.losses.loss import full_precision
from csvi.losses.masks import identity_mask_loss, mask_loss, mask_target

__all__ = ["full_precision", "hetero_center_loss", "identity_loss", "identity_mask_loss", "mask_loss", "mask_target"]

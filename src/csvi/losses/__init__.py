"""Losses as pure functions of tensors. They go by label, never by position in the batch; none knows a setting.

Of B images `identity` is (B,), labels, and `modality` (B,), 0 visible and 1 infrared. Every loss is a scalar. A loss of
your own is decorated with `full_precision`: it is computed in at least 32 bits where the network is computed in fewer,
and on the rows of all processes that train together where settings ask for it. A loss that is a sum over identities is
multiplied by `csvi.losses.loss.parts_of_batch()`, so that it is the same of a batch in several parts.

Losses with an equation number are the paper's. The others name their method, and are tested against values and
gradients of its public code.
"""

from csvi.losses.center import (
    center_cluster,
    center_pair_margin,
    cross_modal_center_contrastive,
    discriminative_center,
    hetero_center_loss,
)
from csvi.losses.contrast import center_contrast
from csvi.losses.diversity import feature_orthogonality, separation
from csvi.losses.identity import cross_entropy, identity_loss, mutual_learning, soft_cross_entropy
from csvi.losses.loss import full_precision
from csvi.losses.masks import identity_mask_loss, mask_loss, mask_target
from csvi.losses.triplet import (
    batch_hard_triplet,
    hetero_center_triplet,
    modality_shared_enhancement,
    squared_difference_triplet,
    weighted_regularized_triplet,
)

__all__ = [
    "batch_hard_triplet",
    "center_cluster",
    "center_contrast",
    "center_pair_margin",
    "cross_entropy",
    "cross_modal_center_contrastive",
    "discriminative_center",
    "feature_orthogonality",
    "full_precision",
    "hetero_center_loss",
    "hetero_center_triplet",
    "identity_loss",
    "identity_mask_loss",
    "mask_loss",
    "mask_target",
    "modality_shared_enhancement",
    "mutual_learning",
    "separation",
    "soft_cross_entropy",
    "squared_difference_triplet",
    "weighted_regularized_triplet",
]

"""Feature selection by given masks: the auxiliary `select`, Baseline+Sel of Table 3 (Figure 3a, Eq. 20, 21)."""

from torch import Tensor
from torch.nn import functional as F

from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.losses import mask_target


class Select(Auxiliary):
    """In training the part module sees the shared features times the true masks; in testing there are no masks."""

    def select(self, features: Features, batch: dict[str, Tensor]) -> Tensor:
        """F_sel of Eq. 21: every cell times the share of it that is person."""
        height, width = features.shared.shape[2:]
        mask = F.avg_pool2d(mask_target(batch["mask"], 4 * height, 4 * width), 4)
        return features.shared * mask.to(features.shared.dtype)

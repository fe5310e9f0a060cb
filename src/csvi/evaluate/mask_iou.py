"""The fit of predicted person masks, and of the best mask that never looks at an image."""

import torch
from torch import Tensor


def mask_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of each pair of masks; of nobody nothing can be right, so that an empty truth is NaN.

    Args:
        predicted, true: (n, ...) bool; one of them may have n = 1.

    Returns:
        (n,) in [0, 1], NaN where the true mask is empty.

    >>> mask_iou(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True], [False] * 3])).tolist()
    [0.3333333432674408, nan]
    """
    both = (predicted & true).flatten(1).sum(1)
    either = (predicted | true).flatten(1).sum(1)
    return torch.where(true.flatten(1).any(1), both / either, torch.nan)


def best_constant_mask(true: Tensor) -> tuple[Tensor, float]:
    """The mean of masks (n, H, W) bool, cut at the best of 40 thresholds: the best answer without seeing an image.

    It is chosen on the masks that it is then compared with, which only makes it a harder rival. Empty masks are left
    out, and one must not be.

    Returns:
        The mask, (H, W) bool, and its mean intersection over union with all of them.
    """
    true = true[true.flatten(1).any(1)]
    mean = true.sum(0, dtype=torch.float32) / len(true)
    cuts = torch.linspace(0, 1, 42)[1:-1]
    found = [(float(mask_iou((mean >= cut)[None], true).mean()), float(cut)) for cut in cuts]
    iou, cut = max(found)
    return mean >= cut, iou

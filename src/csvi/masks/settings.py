"""The settings of `csvi masks train`; nothing here imports torch, so that help answers at once."""

import math
from dataclasses import dataclass

from csvi.config import check_range


@dataclass
class FitConfig:
    """The training of the embedded segmenter."""

    seed: int = 7
    """Fixes people, samples and initial weights of the decoder."""
    steps: int = 6_000
    """Steps, of `batch` samples each."""
    batch: int = 16
    """Samples a step."""
    lr: float = 2e-3
    """Learning rate of the decoder; warmed up over 50 steps, then falling to 0 as a cosine."""
    lr_encoder: float = 0.15
    """Factor on the learning rate of MobileNetV2."""
    weight_decay: float = 1e-2
    """AdamW's."""
    coarse: float = 0.2
    """Share of the steps, at the beginning, on samples of 160 x 80 pixels instead of 192 x 96."""
    frozen: float = 0.7
    """Share of the steps, at the beginning, in which the first seven blocks of MobileNetV2 stay as they are."""
    weights: str = "packaged"
    """Initial weights of MobileNetV2: packaged, imagenet or a file, as `--method.weights`."""
    workers: int = 1
    """Processes that draw samples."""

    def __post_init__(self) -> None:
        check_range(self, 0, 2**32 - 1, "seed")
        check_range(self, 1, 10_000_000, "steps", "batch")
        check_range(self, 0, math.inf, "lr", "lr_encoder", "weight_decay")
        check_range(self, 0, 1, "coarse", "frozen")
        check_range(self, 0, 1000, "workers")

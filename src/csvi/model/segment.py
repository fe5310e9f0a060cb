"""Segmentation and re-identification side by side: the auxiliary `segment`, Baseline+Seg_ReID of Table 3.

After the paper's reference 8 (Figure 3b, Eq. 22, 23), of which the paper says this much: a segmentation sub-network on
the task-shared features, whose features help the re-identification and stay for testing. Its size is ours.
"""

from torch import Tensor, nn

from csvi.config import Config, LossConfig
from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.decoder import MaskDecoder


class SegmentationGuide(nn.Module):
    """The segmentation sub-network S as far as it is kept for testing.

    Args:
        specific_channels: C, of the task-shared features.
        channels: C1, of the shared features that its own are added to; it has a quarter of them, C3.
    """

    def __init__(self, specific_channels: int, channels: int):
        super().__init__()
        self.channels = channels // 4
        self.layers = nn.Sequential(
            *_convolution(specific_channels, self.channels, stride=2),
            *_convolution(self.channels, self.channels),
            *_convolution(self.channels, self.channels),
        )
        self.project = nn.Conv2d(self.channels, channels, 1)
        nn.init.zeros_(self.project.weight)  # at first the re-identification is the Baseline's
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, specific: Tensor) -> tuple[Tensor, Tensor]:
        """Task-shared features (B, C, 2h, 2w) to F_Seg (B, C3, h, w), and what is added to F_s (B, C1, h, w)."""
        segmentation = self.layers(specific)
        return segmentation, self.project(segmentation)


class Segment(Auxiliary):
    """The decoder of the segmentation sub-network: person masks from F_Seg."""

    guided = True

    settings = MaskDecoder.settings

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__(channels, identities, config)
        self.decoder = MaskDecoder.of(channels // 4, identities, config)

    def forward(self, features: Features, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """`mask_logits` (B, 1 or 1 + L, 4h, 4w)."""
        assert features.segmentation is not None
        return {"mask_logits": self.decoder(features.segmentation)}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """The segmentation loss (Eq. 17)."""
        return {"segment/segmentation": self.decoder.loss(outputs["mask_logits"], batch, settings)}

    def predict_masks(self, features: Features, identity: Tensor, modality: Tensor) -> Tensor:
        """Probability of person at each cell, (B, 1, 4h, 4w)."""
        return self.decoder.probability(self(features, identity, modality)["mask_logits"])


def _convolution(channels: int, width: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

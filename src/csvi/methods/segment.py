"""Baseline+Seg_ReID of Table 3: segmentation beside re-identification (Figure 3b, Eq. 22, 23).

After the paper's reference 8; the paper says only: a segmentation sub-network on the task-shared features, whose
features help the re-identification and stay for testing. Its size is ours.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from csvi.data.batch import Batch
from csvi.methods.baseline import SOURCE
from csvi.methods.decode import Decode, DecodeSettings
from csvi.methods.method import Published
from csvi.model.blocks import convolution_block
from csvi.model.mask_decoder import MaskDecoder
from csvi.model.net import PartNet
from csvi.model.two_stream import Modalities, Route


class SegmentationGuide(nn.Module):
    """The part of the segmentation sub-network S that is kept for testing.

    Args:
        specific_channels: C, of the task-shared features.
        channels: C1, of the shared features that its own are added to; it has a quarter of them, C3.
        stride: between the two kinds of features.
    """

    def __init__(self, specific_channels: int, channels: int, stride: int):
        super().__init__()
        self.channels = channels // 4
        self.layers = nn.Sequential(
            *convolution_block(specific_channels, self.channels, stride=stride),
            *convolution_block(self.channels, self.channels),
            *convolution_block(self.channels, self.channels),
        )
        self.project = nn.Conv2d(self.channels, channels, 1)
        nn.init.zeros_(self.project.weight)  # at first the re-identification is the Baseline's
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, specific: Tensor) -> tuple[Tensor, Tensor]:
        """Compute F_Seg (B, C3, h, w), and what is added to F_s (B, C1, h, w), from the task-shared features."""
        segmentation = self.layers(specific)
        return segmentation, self.project(segmentation)


class GuidedNet(PartNet):
    """A `PartNet` with a segmentation sub-network whose features are added to the shared ones."""

    def build_branch(self) -> None:
        """Build the segmentation sub-network."""
        backbone = self.backbone
        stride = backbone.stride // backbone.specific_stride
        self.guide = SegmentationGuide(backbone.specific_channels, backbone.channels, stride)

    def features(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute F_s with what the sub-network adds: (B, C1, h, w)."""
        return self.guided(image, modality)[0]

    def guided(self, image: Tensor, modality: Modalities | Route) -> tuple[Tensor, Tensor]:
        """Compute F_s with what the sub-network adds, (B, C1, h, w), and F_Seg, (B, C3, h, w)."""
        specific = self.backbone.specific(image, modality)
        shared = self.backbone.shared(specific)
        segmentation, added = self.guide(specific)
        return shared + added, segmentation


@dataclass
class SegmentSettings(DecodeSettings):
    """Settings of the Baseline, of the decoder and of the segmentation loss."""

    name: str = "segment"


class Segment(Decode):
    """The decoder works on the features of the sub-network; it is not kept, the sub-network is."""

    Settings = SegmentSettings
    Net = GuidedNet
    title = "Baseline+Seg_ReID"
    published = Published(SOURCE, {"sysu": {"all-search single-shot": {"R1": 67.25, "R10": 95.38, "mAP": 64.29}}})
    net: GuidedNet

    def build_decoder(self, channels: int) -> MaskDecoder:
        """Build the decoder on F_Seg."""
        return super().build_decoder(self.net.guide.channels)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 9 and the segmentation loss (Eq. 17)."""
        features, segmentation = self.net.guided(batch.image, batch.streams)
        parts, scores = self.net.head(features)
        logits = self.decoder(segmentation)
        return self.reid_losses(parts, scores, batch, step) | {
            "segment/segmentation": self.segmentation_loss(logits, batch)
        }

    def mask_logits(self, batch: Batch) -> Tensor:
        """Decode the masks of a batch from F_Seg."""
        _, segmentation = self.net.guided(batch.image, batch.streams)
        return self.decoder(segmentation)

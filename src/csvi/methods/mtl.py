"""MTL: person masks as a second task, whose features guide those of re-identification (Huang et al., 2022).

As its public code has it; docs/methods.md says where ours departs from it. It is reference 8 of the CSVI paper, which
calls it ML.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import cross_entropy, cross_modal_center_contrastive, full_precision, mask_loss, mask_target
from csvi.losses.loss import mean_where
from csvi.methods.compared import published_as
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, StripSettings
from csvi.model.blocks import convolution_block
from csvi.model.mask_decoder import full_size
from csvi.model.net import StripNet
from csvi.model.parts import joined, strip_classifier, strip_embedding
from csvi.model.pooling import average_strips
from csvi.model.two_stream import Modalities, Route, TwoStream

MARGIN, LENGTH = 0.5, 5.0
"""Of the cross-modal center contrastive loss: its margin, and the length that it gives the embedding of a strip."""


@dataclass
class MTLSettings(StripSettings):
    """Settings of MTL."""

    name: str = "mtl"
    center_weight: float = 0.2
    """Weight of the cross-modal center contrastive losses, one for each strip."""
    segmentation_weight: float = 5.0
    """Weight of the segmentation loss, the mean of the two modalities."""
    pair_weight: float = 5.0
    """Weight of the squared differences between a visible and an infrared image of a person."""
    map_weight: float = 1.0
    """Weight of the identity loss on the features that the masks are decoded from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "center_weight", "segmentation_weight", "pair_weight", "map_weight")


class Maps(NamedTuple):
    """Feature maps of `MTLNet`, at a stride of 4, 8 or 16 pixels; C1 is the backbone's channels."""

    common: Tensor
    """Of the first shared stage, which both tasks read: (B, C, H/8, W/8)."""
    decoded: Tensor
    """Those that masks are predicted from: (B, C1/16, H/4, W/4)."""
    translated: Tensor
    """Those of the masks on the way to re-identification: (B, C1/8, H/8, W/8)."""
    middle: Tensor
    """Of the second shared stage, with what comes from the masks: (B, C', H/16, W/16)."""
    top: Tensor
    """Of the last shared stage, with what comes from the masks: (B, C1, H/16, W/16)."""
    fused: Tensor
    """What comes from the masks, embedded too: (B, C1, H/16, W/16)."""


class MTLNet(StripNet):
    """Two stages of each modality's own, shared layers, and a branch of masks whose features go into these.

    Its widths are shares of the channels of the backbone, those of the public code for a ResNet-50.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`.
        parts: P, horizontal strips, see `average_strips`.
        part_dim: C2, length of a strip's embedding.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        backbone: str = "resnet50",
        parts: int = 6,
        part_dim: int = 512,
    ):
        super().__init__(method, height, width)
        self.backbone = TwoStream(backbone, cut=2)
        self.parts = 2 * parts
        *_, common, middle, channels = self.backbone.stage_channels
        half, wide, fine = channels // 8, channels // 4, channels // 16
        self.reduce = nn.Sequential(*convolution_block(common, half), *convolution_block(half, half))
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(half, fine, 3, 2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(inplace=True),
            *convolution_block(fine, fine),
        )
        self.translate = nn.Sequential(*convolution_block(fine, half, stride=2))
        self.fuse = nn.Sequential(*convolution_block(half, wide, stride=2), *convolution_block(wide, channels, size=1))
        self.skip = nn.Sequential(*convolution_block(half, middle, stride=2))
        self.embed = strip_embedding(channels, self.parts, part_dim)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images, each strip L2-normalised, then concatenated: (B, 2P * C2), see `EmbeddingNet`."""
        return joined(self.strips(self.maps(image, modality)))

    def features(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the features of the last stage, with what comes from the masks: (B, C1, h, w)."""
        return self.maps(image, modality).top

    def maps(self, image: Tensor, modality: Modalities | Route) -> Maps:
        """Compute all feature maps that losses and embeddings are made of."""
        common = self.backbone.stage(2, self.backbone.specific(image, modality))
        reduced = self.reduce(common)
        decoded = self.decode(reduced)
        translated = self.translate(decoded)
        fused = self.fuse(translated + reduced)
        middle = self.backbone.stage(3, common) + self.skip(translated)
        top = self.backbone.stage(4, middle) + fused
        return Maps(common, decoded, translated, middle, top, fused)

    def strips(self, maps: Maps) -> Tensor:
        """Embed the strips of the last stage, and then those of what comes from the masks: (B, 2P, C2)."""
        pooled = [average_strips(features, self.parts // 2) for features in (maps.top, maps.fused)]
        return self.embed(torch.cat(pooled, 1))


class MTL(PretrainedMethod):
    """Identities of strips, centers, masks, and pairs of images that are to be alike."""

    Settings = MTLSettings
    Net = MTLNet
    title = "MTL"
    paper = (
        "Huang et al., Cross-Modality Person Re-Identification via Multi-Task Learning, Pattern Recognition 128, 2022"
    )
    needs_masks = True
    published: ClassVar[Published | None] = published_as("ML [8]")
    settings: MTLSettings
    net: MTLNet

    def __init__(self, settings: MTLSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        s = settings
        self.net = self.Net(s.name, height, width, s.backbone, s.parts, s.part_dim)
        backbone = self.net.backbone
        self.cell = backbone.specific_stride  # masks have the resolution of the layers of each modality
        self.classify = strip_classifier(s.part_dim, 2 * s.parts, identities)
        self.classify_map = nn.Conv2d(backbone.stage_channels[2], identities, 3, 2, padding=1)
        self.segment = nn.Conv2d(backbone.channels // 16, 1, 3, padding=1)

    def slow(self) -> Sequence[nn.Module]:
        """Name the layers of each modality's own; the shared ones learn as fast as the new ones."""
        return [self.net.backbone.visible, self.net.backbone.infrared]

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The losses of re-identification, of masks, and of pairs; the first two terms are sums over the strips."""
        s, labels = self.settings, (batch.identity, batch.modality)
        maps = self.net.maps(batch.image, batch.streams)
        strips = self.net.strips(maps)
        centers = [
            cross_modal_center_contrastive(strip, *labels, MARGIN)
            for strip in (LENGTH * nn.functional.normalize(strips, dim=2)).unbind(1)
        ]
        read = maps.middle, maps.top, maps.translated, maps.fused
        pairs = [paired_difference(features.mean((2, 3)), *labels) for features in read]
        return {
            "identity": cross_entropy(self.classify(strips), batch.identity),
            "center": s.center_weight * torch.stack(centers).sum(),
            "segmentation": s.segmentation_weight * self.segmentation_loss(self.segment(maps.decoded), batch),
            "map_identity": s.map_weight * cross_entropy(self.classify_map(maps.common).mean((2, 3)), batch.identity),
            "pair": s.pair_weight * torch.stack(pairs).sum(),
        }

    def segmentation_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the binary cross-entropy of masks, the mean of both modalities, from logits (B, 1, h, w).

        The public code compares each pixel with its cell; averaging the mask over the cell first gives the same.
        """
        assert batch.mask is not None
        target = mask_target(batch.mask, *logits.shape[2:], self.cell)
        return mask_loss(logits, target, batch.modality, batch.has_mask) / 2

    def predict_masks(self, batch: Batch) -> Tensor:
        """Predict the probability of a person, (B, 1, H, W)."""
        maps = self.net.maps(batch.image, batch.streams)
        height, width = batch.image.shape[2:]
        return full_size(self.segment(maps.decoded).sigmoid(), height, width, self.cell)


@full_precision
def paired_difference(features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
    """Mean squared difference between the visible and the infrared features (B, D) of a person, a mean over all pairs.

    The k-th visible image of an identity in the batch is paired with its k-th infrared one, which the public code of
    MTL finds by position; images without a partner have no part in it, and without any pair the loss is 0.
    """
    same, within = identity[:, None] == identity, modality[:, None] == modality
    number = (same & within).tril(-1).sum(1)  # of earlier images of the same identity and modality
    paired = same & ~within & (number[:, None] == number)
    partner = features[paired.byte().argmax(1)]
    return mean_where((features - partner).square().mean(1), paired.any(1))

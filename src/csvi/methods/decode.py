"""Baseline+Decoder of Table 3: a mask decoder on the shared features, each image by itself."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from csvi.config import check_range, setting
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.methods.baseline import SOURCE, Baseline, BaselineSettings
from csvi.methods.method import Published
from csvi.model.mask_decoder import MaskDecoder


@dataclass
class DecodeSettings(BaselineSettings):
    """Settings of the Baseline, of the decoder and of the segmentation loss (Section 3.2)."""

    name: str = "decode"
    segmentation_weight: float = 1.0
    """Weight of the segmentation loss (Eq. 17); 1 in Eq. 18."""
    widths: tuple[int, int] | None = None
    """Channels of the decoder's two blocks (Eq. 14), of which the paper says nothing; by default a quarter and a
    sixteenth of the backbone's, which comes within 2 % of the parameters in its Table 4; half of that in a lean one."""
    decoder: Literal["paper", "lean"] = "paper"
    """paper: a block is a deconvolution and two 3×3 convolutions (Eq. 14); lean (ours): a 1×1 convolution, a
    deconvolution and one 3×3 convolution, at half the widths."""
    mask_channels: Literal["one", "identity"] = setting("one", letter="identity")
    """one: a person mask, binary cross-entropy; identity: the N channels of Eq. 14, each person in the channel of its
    identity, and one for the background, without which nothing would be learned of it; cross-entropy (Eq. 5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "segmentation_weight")
        if self.widths is not None and min(self.widths) < 1:
            raise CsviError(f"widths are {self.widths}: both must be at least 1")


class Decode(Baseline):
    """The co-segmentation branch without CCWG and what comes with it."""

    Settings = DecodeSettings
    title = "Baseline+Decoder"
    needs_masks = True
    published: ClassVar[Published | None] = Published(
        SOURCE, {"sysu": {"all-search single-shot": {"R1": 65.86, "R10": 95.24, "mAP": 62.02}}}
    )
    settings: DecodeSettings

    def __init__(self, settings: DecodeSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.decoder = self.build_decoder(self.net.backbone.channels)

    def build_decoder(self, channels: int) -> MaskDecoder:
        """Build the decoder that the settings ask for, on features of so many channels at the backbone's stride."""
        by_identity = self.settings.mask_channels == "identity"
        identities = self.identities if by_identity else 0
        return MaskDecoder(channels, self.net.backbone.stride, self.settings.widths, identities, self.settings.decoder)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 9 and the segmentation loss (Eq. 17)."""
        features = self.features(batch)
        parts, scores = self.net.head(features)
        logits = self.decoder(features)
        return self.reid_losses(parts, scores, batch, step) | {
            "decode/segmentation": self.segmentation_loss(logits, batch)
        }

    def segmentation_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the weighted segmentation loss (Eq. 17) of the images that have a mask."""
        assert batch.mask is not None
        loss = self.decoder.loss(logits, batch.mask, batch.identity, batch.modality, batch.has_mask)
        per_class = self.per_class if self.decoder.by_identity else 1.0
        return self.settings.segmentation_weight * per_class * loss

    def mask_logits(self, batch: Batch) -> Tensor:
        """Decode the masks of a batch: (B, 1 or 1 + L, h', w') on the decoder's grid."""
        return self.decoder(self.features(batch))

    def predict_masks(self, batch: Batch) -> Tensor:
        """Predict the probability of a person, (B, 1, H, W)."""
        return self.decoder.probability(self.mask_logits(batch), *batch.image.shape[2:])

    def predict_masks_of(self, batch: Batch, label: int) -> Tensor:
        """Predict the probability of the person of a class, (B, 1, H, W), where each has a channel of its own."""
        height, width = batch.image.shape[2:]
        return self.decoder.probability(self.mask_logits(batch), height, width, label)

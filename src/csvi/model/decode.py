"""A decoder on the shared features, without co-segmentation: the auxiliary `decode`, Baseline+Decoder of Table 3."""

from torch import Tensor

from csvi.config import Config, LossConfig
from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.decoder import MaskDecoder


class Decode(Auxiliary):
    """Person masks from F_s, each image by itself; the co-segmentation branch less CCWG and what comes with it."""

    settings = MaskDecoder.settings

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__(channels, identities, config)
        self.decoder = MaskDecoder.of(channels, identities, config)

    def forward(self, features: Features, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """`mask_logits` (B, 1 or 1 + L, 4h, 4w)."""
        return {"mask_logits": self.decoder(features.shared)}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """The segmentation loss (Eq. 17)."""
        return {"decode/segmentation": self.decoder.loss(outputs["mask_logits"], batch, settings)}

    def predict_masks(self, features: Features, identity: Tensor, modality: Tensor) -> Tensor:
        """Probability of person at each cell, (B, 1, 4h, 4w)."""
        return self.decoder.probability(self(features, identity, modality)["mask_logits"])

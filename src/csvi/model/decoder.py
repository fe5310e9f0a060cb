"""From features to person masks: what every variant that predicts them has in common (Eq. 14, 17)."""

from torch import Tensor, nn

from csvi.config import Config, LossConfig
from csvi.model.losses import identity_mask_loss, mask_loss, mask_target


class MaskDecoder(nn.Sequential):
    """Two deconvolutional blocks, each twice the resolution (Eq. 14): (B, C, h, w) to logits (B, 1 or 1 + L, 4h, 4w).

    Args:
        channels: C.
        widths: channels of the two blocks.
        identities: L, for the paper's channels a person of each identity (and one for the background), or 0 for one
            channel for any person.
    """

    settings = ("loss.segmentation", "coseg.widths", "coseg.mask_channels")
    """That it reads."""

    def __init__(self, channels: int, widths: tuple[int, int], identities: int = 0):
        super().__init__(
            _deconvolution_block(channels, widths[0]),
            _deconvolution_block(widths[0], widths[1]),
            nn.Conv2d(widths[1], 1 + identities, 1),
        )
        self.by_identity = identities > 0

    @classmethod
    def of(cls, channels: int, identities: int, config: Config) -> "MaskDecoder":
        """As the section `coseg` of the settings wants it."""
        widths = config.coseg.widths or (channels // 4, channels // 16)
        return cls(channels, widths, identities if config.coseg.mask_channels == "identity" else 0)

    def loss(self, logits: Tensor, batch: dict[str, Tensor], settings: LossConfig) -> Tensor:
        """The weighted segmentation loss (Eq. 17); `batch` has `mask`, `identity` and `modality`."""
        mask = mask_target(batch["mask"], *logits.shape[2:])
        if self.by_identity:
            return settings.segmentation * identity_mask_loss(logits, mask, batch["identity"], batch["modality"])
        return settings.segmentation * mask_loss(logits, mask, batch["modality"])

    def probability(self, logits: Tensor) -> Tensor:
        """Of a person, whoever it is: (B, 1, 4h, 4w)."""
        return 1 - logits.softmax(1)[:, :1] if self.by_identity else logits.sigmoid()


def _deconvolution_block(channels: int, width: int) -> nn.Sequential:
    def convolution() -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

    return nn.Sequential(nn.ConvTranspose2d(channels, width, 2, stride=2), *convolution(), *convolution())

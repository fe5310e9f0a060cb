"""The decoder from features to person masks, with its loss (Eq. 14, 17)."""

from torch import Tensor, nn
from torch.nn import functional as F

from csvi.losses import identity_mask_loss, mask_loss, mask_target
from csvi.model.blocks import convolution_block


class MaskDecoder(nn.Sequential):
    """Deconvolutional blocks, each twice the resolution (Eq. 14): (B, C, h, w) to logits, by default (B, 1, 4h, 4w).

    Args:
        channels: C.
        stride: pixels of the image in a cell of the features.
        widths: channels of each block; by default two blocks, see `DESIGNS`.
        identities: L, for the paper's channels, a person of each identity and one for the background; 0 for one channel
            for any person.
        design: what a block is, see `DESIGNS`.

    Raises:
        ValueError: 2 to the number of blocks does not divide the stride.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        widths: tuple[int, ...] | None = None,
        identities: int = 0,
        design: str = "paper",
    ):
        block, shares = DESIGNS[design]
        widths = widths or tuple(channels // share for share in shares)
        blocks = [block(*pair) for pair in zip((channels, *widths), widths, strict=False)]
        super().__init__(*blocks, nn.Conv2d(widths[-1], 1 + identities, 1))
        self.cell, rest = divmod(stride, 2 ** len(widths))
        if rest:
            raise ValueError(
                f"{len(widths)} blocks give {2 ** len(widths)} times the resolution, not a divisor of {stride}"
            )
        self.by_identity = identities > 0

    def loss(
        self, logits: Tensor, mask: Tensor, identity: Tensor, modality: Tensor, has_mask: Tensor | None = None
    ) -> Tensor:
        """Segmentation loss (Eq. 17) of this decoder's logits, given masks (B, 1, H, W) of the images' size.

        Where `has_mask`, (B,) bool, is given, the others have no part in it.
        """
        target = mask_target(mask, *logits.shape[2:], self.cell)
        if self.by_identity:
            return identity_mask_loss(logits, target, identity, modality, has_mask)
        return mask_loss(logits, target, modality, has_mask)

    def probability(self, logits: Tensor, height: int, width: int, label: int | None = None) -> Tensor:
        """Turn logits into the probability of a person, at the images' size: (B, 1, height, width).

        By default whoever it is; of a decoder with a channel for each identity it may be asked for one, by its label.
        """
        if label is not None:
            coarse = logits.softmax(1)[:, 1 + label, None]
        else:
            coarse = 1 - logits.softmax(1)[:, :1] if self.by_identity else logits.sigmoid()
        return full_size(coarse, height, width, self.cell)


def full_size(coarse: Tensor, height: int, width: int, cell: int) -> Tensor:
    """Interpolate values of cells, (B, C, h, w), at the size of the images, (B, C, height, width) float32.

    This is the inverse of `csvi.losses.mask_target`: cells have so many pixels a side and may reach beyond the image.
    """
    return F.interpolate(coarse.float(), scale_factor=cell, mode="bilinear")[:, :, :height, :width]


def _paper_block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, width, 2, stride=2),
        *convolution_block(width, width),
        *convolution_block(width, width),
    )


def _lean_block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        *convolution_block(channels, width, size=1),
        nn.ConvTranspose2d(width, width, 2, stride=2),  # interpolation would have gradients of random rounding on GPUs
        *convolution_block(width, width),
    )


DESIGNS = {"paper": (_paper_block, (4, 16)), "lean": (_lean_block, (8, 32))}
"""Name → a block of so many channels to so many, and the shares of the features' channels that its two blocks have by
default. `paper`: a deconvolution and two 3×3 convolutions. `lean` (ours): a 1×1 convolution before the deconvolution
and one 3×3 convolution after it, together two fifteenths of the arithmetic."""

"""The co-segmentation branch: training only, it predicts the person masks of all images of an identity (Eq. 10-19)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import Config, LossConfig
from csvi.model.auxiliary import Auxiliary
from csvi.model.losses import identity_mask_loss, mask_loss, mask_target, reid_losses
from csvi.model.parts import PartModule


def cross_modality_center(features: Tensor, identity: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
    """Center of each identity, halfway between its visible and its infrared images (Eq. 10, 11).

    With K visible and K infrared images this is Eq. 10 to the letter; where the numbers differ each modality still
    counts half, and an identity with one modality only has the center of that one.

    Args:
        features: F_s, (B, C1, h, w).
        identity: (B,), any labels.
        modality: (B,), 0 visible and 1 infrared.

    Returns:
        Centers, (N, C1), in the order of the labels, and the row of each image's identity, (B,).
    """
    labels, group = identity.unique(return_inverse=True)
    member = F.one_hot(group, len(labels)).T  # (N, B)
    per_modality = torch.stack([member * (modality == m) for m in (0, 1)]).to(features.dtype)  # (2, N, B)
    count = per_modality.sum(2, keepdim=True)
    share = (per_modality / count.clamp(min=1)).sum(0) / (count > 0).sum(0)  # rows sum to 1
    return share @ features.mean((2, 3)), group


class CCWG(nn.Module):
    """Cross-modality center based weight generation: one weight a channel and identity (Eq. 10-12)."""

    def __init__(self, channels: int, activation: str = "none"):
        super().__init__()
        self.fc = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.ones_(self.fc.bias)  # at first nearly all channels pass as they are; selection is learned from there
        self.activation = nn.Sigmoid() if activation == "sigmoid" else nn.Identity()

    def forward(self, features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
        """Weights w of each image's identity: features (B, C1, h, w) to (B, C1, 1, 1)."""
        center, group = cross_modality_center(features, identity, modality)
        return self.activation(self.fc(center))[group, :, None, None]


class SegmentationDecoder(nn.Sequential):
    """Two deconvolutional blocks, each twice the resolution (Eq. 14): (B, C1, h, w) to logits (B, out, 4h, 4w)."""

    def __init__(self, channels: int, widths: tuple[int, int], out: int):
        super().__init__(
            _deconvolution_block(channels, widths[0]),
            _deconvolution_block(widths[0], widths[1]),
            nn.Conv2d(widths[1], out, 1),
        )


class CoSegmentation(Auxiliary):
    """CCWG, selection, decoder and the extra part module: the auxiliary `coseg` (Section 3.2).

    Args:
        channels: C1, channels of the shared features.
        identities: L, classes.
        config: its sections `coseg` and, for the extra part module, `model`.
    """

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__(channels, identities, config)
        settings, model = config.coseg, config.model
        self.by_identity = settings.mask_channels == "identity"
        self.ccwg = CCWG(channels, settings.activation)
        widths = settings.widths or (channels // 4, channels // 16)
        self.decoder = SegmentationDecoder(channels, widths, 1 + identities if self.by_identity else 1)
        self.part_module = None
        if settings.head:
            self.part_module = PartModule(
                channels, identities, model.parts, model.part_dim, model.part_norm, model.share_classifier
            )

    def forward(self, features: Tensor, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """Mask logits of all images and, with a head, part features and scores of the selected features.

        Args:
            features: F_s, (B, C1, h, w).
            identity: (B,), labels.
            modality: (B,), 0 visible and 1 infrared.

        Returns:
            `mask_logits` (B, 1 or 1 + L, 4h, 4w); `selected_parts` (B, P, C2) and `selected_scores` (B, P, L).
        """
        selected = self.ccwg(features, identity, modality) * features  # Eq. 13
        outputs = {"mask_logits": self.decoder(selected)}
        if self.part_module is not None:
            outputs["selected_parts"], outputs["selected_scores"] = self.part_module(selected)
        return outputs

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """The weighted terms of Eq. 18 by name."""
        identity, modality = batch["identity"], batch["modality"]
        logits = outputs["mask_logits"]
        mask = mask_target(batch["mask"], *logits.shape[2:])
        if self.by_identity:
            segmentation = identity_mask_loss(logits, mask, identity, modality)
        else:
            segmentation = mask_loss(logits, mask, modality)
        terms = {"coseg/segmentation": settings.segmentation * segmentation}
        if self.part_module is not None:
            reid = reid_losses(outputs["selected_parts"], outputs["selected_scores"], identity, modality, settings)
            terms |= {f"coseg/{name}": term for name, term in reid.items()}
        return terms

    def predict_masks(self, features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
        """Probability of person at each cell, (B, 1, 4h, 4w), of images whose identities need not be known classes."""
        logits = self(features, identity, modality)["mask_logits"]
        return 1 - logits.softmax(1)[:, :1] if self.by_identity else logits.sigmoid()


def _deconvolution_block(channels: int, width: int) -> nn.Sequential:
    def convolution() -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

    return nn.Sequential(nn.ConvTranspose2d(channels, width, 2, stride=2), *convolution(), *convolution())

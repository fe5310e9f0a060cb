"""Baseline+CoSeg_ReID of Table 3, the paper's method.

In training only, a co-segmentation branch predicts the person masks of all images of an identity, with channel weights
from the cross-modality center of that identity (Eq. 10-19).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from csvi.config import check_range, setting
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.methods.compared import PAPER
from csvi.methods.decode import Decode, DecodeSettings
from csvi.methods.method import Published
from csvi.model.mask_decoder import MaskDecoder
from csvi.model.parts import PartHead

Source = Literal["own", "leave-one-out", "other-modality"]
SOURCES = get_args(Source)
Activation = Literal["none", "sigmoid"]


def cross_modality_centers(features: Tensor, identity: Tensor, modality: Tensor, source: Source = "own") -> Tensor:
    """Compute for each image the center of its identity, halfway between its visible and infrared images (Eq. 10, 11).

    With K visible and K infrared images this is Eq. 10 to the letter; where the numbers differ each modality still
    counts half, and an identity with one modality only has the center of that one.

    Args:
        features: F_s, (B, C1, h, w).
        identity: (B,), any labels.
        modality: (B,), 0 visible and 1 infrared.
        source: `own`: all images of the identity, as in the paper, so that the center is the same for them all;
            `leave-one-out`: all but the image itself; `other-modality`: those of the other modality. An image with no
            such images has the center 0.

    Returns:
        (B, C1).

    Raises:
        CsviError: no such source.
    """
    if source not in SOURCES:
        raise CsviError(f"source is {source!r}: it must be one of {', '.join(SOURCES)}")
    same, same_modality = identity[:, None] == identity, modality[:, None] == modality
    if source == "leave-one-out":
        same = same & ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)
    members = [same & ~same_modality]
    if source != "other-modality":
        members.append(same & same_modality)
    member = torch.stack(members).to(features.dtype)  # (modalities, B, B)
    count = member.sum(2, keepdim=True)
    share = (member / count.clamp(min=1)).sum(0) / (count > 0).sum(0).clamp(min=1)  # rows sum to 1, or 0
    return share @ features.mean((2, 3))


class CCWG(nn.Module):
    """Cross-modality center based weight generation: one weight a channel and identity (Eq. 10-12).

    Args:
        channels: C1.
        activation: `none`, as in the paper, or `sigmoid`.
        source: whose center it is; see `cross_modality_centers`.
        bias: initial bias of the fully connected layer.
    """

    def __init__(self, channels: int, activation: Activation = "none", source: Source = "own", bias: float = 1.0):
        super().__init__()
        self.source = source
        self.fc = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.fc.weight)  # Section 4.3
        nn.init.constant_(self.fc.bias, bias)
        self.activation = nn.Sigmoid() if activation == "sigmoid" else nn.Identity()

    def forward(self, features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
        """Compute the weights w of each image, (B, C1, 1, 1), from features (B, C1, h, w)."""
        center = cross_modality_centers(features, identity, modality, self.source)
        return self.activation(self.fc(center))[:, :, None, None]


@dataclass
class CoSegSettings(DecodeSettings):
    """Settings of the Baseline, of the decoder and of the co-segmentation branch (Section 3.2)."""

    name: str = "coseg"
    weights_from: Source = "own"
    """Images of the identity whose center gives an image its weights (Eq. 10): all, as in the paper; all but the image
    itself; or those of the other modality."""
    activation: Activation = "none"
    """Activation of the weights of Eq. 12; the paper has none."""
    ccwg_bias: float = setting(1.0, letter=None)
    """Initial bias of the FC of Eq. 12, of which the paper says nothing. From 1 nearly all channels pass as they are at
    first, and selection is learned from there; from 0 they begin with either sign."""
    weights_to: Literal["both", "decoder", "head"] = "both"
    """Reader of the selected features (Eq. 13); the other reads the shared ones. Both in the paper."""
    head: bool = True
    """The extra part head on the selected features (Eq. 15, 16)."""
    head_weight: float = 1.0
    """Weight of its losses; 1 in Eq. 18."""
    detach: bool = False
    """The extra part head's losses do not reach the weights w."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "head_weight")
        check_range(self, -100, 100, "ccwg_bias")


class CoSeg(Decode):
    """CCWG, selection, decoder and the extra part head on the selected features (Section 3.2)."""

    Settings: ClassVar[type[CoSegSettings]] = CoSegSettings
    title = "Baseline+CoSeg_ReID"
    published: ClassVar[Published | None] = Published(
        f"{PAPER}, Tables 1, 2 and 4",
        {
            "sysu": {
                "all-search single-shot": {"R1": 70.13, "R10": 96.15, "R20": 98.79, "mAP": 65.32},
                "all-search multi-shot": {"R1": 77.06, "R10": 97.87, "R20": 99.28, "mAP": 59.23},
                "indoor-search single-shot": {"R1": 71.00, "R10": 96.96, "R20": 98.99, "mAP": 75.21},
                "indoor-search multi-shot": {"R1": 83.22, "R10": 98.99, "R20": 99.78, "mAP": 70.20},
            },
            "regdb": {
                "visible to thermal": {"R1": 91.41, "R10": 97.72, "R20": 98.92, "mAP": 85.14},
                "thermal to visible": {"R1": 90.06, "R10": 97.46, "R20": 98.74, "mAP": 83.86},
            },
        },
        parameters=(52.6, 32.1),
    )
    settings: CoSegSettings

    def __init__(self, settings: CoSegSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        if settings.head:
            self.head = PartHead(
                self.net.backbone.channels, identities, settings.parts, settings.part_dim, settings.part_norm,
                settings.share_classifier,
            )  # fmt: skip

    def build_decoder(self, channels: int) -> MaskDecoder:
        """Build CCWG and the decoder on what it selects."""
        self.ccwg = CCWG(channels, self.settings.activation, self.settings.weights_from, self.settings.ccwg_bias)
        return super().build_decoder(channels)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 18."""
        return self.terms(self.features(batch), batch, step)

    def terms(self, features: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the terms of Eq. 18 from F_s, (B, C1, h, w)."""
        s = self.settings
        parts, scores = self.net.head(features)
        weights = self.ccwg(features, batch.identity, batch.modality)  # Eq. 10-12
        logits = self.decoder(self.selected(features, weights, "decoder"))  # Eq. 13, 14
        if s.head:
            of_head = self.selected(features, weights.detach() if s.detach else weights, "head")
            selected_parts, selected_scores = self.head(of_head)
        terms = self.reid_losses(parts, scores, batch, step)
        terms["coseg/segmentation"] = self.segmentation_loss(logits, batch)
        if s.head:
            of_selected = self.reid_losses(selected_parts, selected_scores, batch, step)  # Eq. 15, 16
            terms |= {f"coseg/{name}": s.head_weight * term for name, term in of_selected.items()}
        return terms

    def selected(self, features: Tensor, weights: Tensor, reader: str) -> Tensor:
        """Compute F_sel (Eq. 13) for the `decoder` or the `head`; it is F_s if the weights do not go there."""
        return weights * features if self.settings.weights_to in ("both", reader) else features

    def mask_logits(self, batch: Batch) -> Tensor:
        """Decode the masks of a batch, all images of an identity together."""
        features = self.features(batch)
        weights = self.ccwg(features, batch.identity, batch.modality)
        return self.decoder(self.selected(features, weights, "decoder"))

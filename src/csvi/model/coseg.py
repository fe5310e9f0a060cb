"""The co-segmentation branch: training only, it predicts the person masks of all images of an identity (Eq. 10-19)."""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from csvi.config import Config, LossConfig
from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.decoder import MaskDecoder
from csvi.model.losses import reid_losses
from csvi.model.parts import PartModule


def cross_modality_centers(features: Tensor, identity: Tensor, modality: Tensor, source: str = "own") -> Tensor:
    """For each image the center of its identity, halfway between the visible and the infrared images (Eq. 10, 11).

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
    """
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
    """

    def __init__(self, channels: int, activation: str = "none", source: str = "own"):
        super().__init__()
        self.source = source
        self.fc = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.ones_(self.fc.bias)  # at first nearly all channels pass as they are; selection is learned from there
        self.activation = nn.Sigmoid() if activation == "sigmoid" else nn.Identity()

    def forward(self, features: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
        """Weights w for each image: features (B, C1, h, w) to (B, C1, 1, 1)."""
        center = cross_modality_centers(features, identity, modality, self.source)
        return self.activation(self.fc(center))[:, :, None, None]


class CoSegmentation(Auxiliary):
    """CCWG, selection, decoder and the extra part module: the auxiliary `coseg` (Section 3.2).

    Args:
        channels: C1, channels of the shared features.
        identities: L, classes.
        config: its sections `coseg` and, for the extra part module, `model`.
    """

    settings = ("loss.segmentation", "coseg.")

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__(channels, identities, config)
        model, self.coseg = config.model, config.coseg
        self.ccwg = CCWG(channels, self.coseg.activation, self.coseg.weights_from)
        self.decoder = MaskDecoder.of(channels, identities, config)
        self.part_module = None
        if self.coseg.head:
            self.part_module = PartModule(
                channels, identities, model.parts, model.part_dim, model.part_norm, model.share_classifier
            )

    def forward(self, features: Features, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """Mask logits of all images and, with a head, part features and scores of the selected features.

        Args:
            features: of the network.
            identity: (B,), labels.
            modality: (B,), 0 visible and 1 infrared.

        Returns:
            `mask_logits` (B, 1 or 1 + L, 4h, 4w); `selected_parts` (B, P, C2) and `selected_scores` (B, P, L).
        """
        weights = self.ccwg(features.shared, identity, modality)
        outputs = {"mask_logits": self.decoder(self.selected(features, weights, "decoder"))}
        if self.part_module is not None:
            of_head = self.selected(features, weights.detach() if self.coseg.detach else weights, "head")
            outputs["selected_parts"], outputs["selected_scores"] = self.part_module(of_head)
        return outputs

    def selected(self, features: Features, weights: Tensor, reader: str) -> Tensor:
        """F_sel (Eq. 13) for the `decoder` or the `head`, or F_s if the weights do not go there."""
        return weights * features.shared if self.coseg.weights_to in ("both", reader) else features.shared

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """The weighted terms of Eq. 18 by name."""
        terms = {"coseg/segmentation": self.decoder.loss(outputs["mask_logits"], batch, settings)}
        if self.part_module is not None:
            reid = reid_losses(
                outputs["selected_parts"], outputs["selected_scores"], batch["identity"], batch["modality"], settings
            )
            terms |= {f"coseg/{name}": self.coseg.head_weight * term for name, term in reid.items()}
        return terms

    def predict_masks(self, features: Features, identity: Tensor, modality: Tensor) -> Tensor:
        """Probability of person at each cell, (B, 1, 4h, 4w), of images whose identities need not be known classes."""
        return self.decoder.probability(self(features, identity, modality)["mask_logits"])


class CoSegmentationPlus(CoSegmentation):
    """`coseg+`: co-segmentation where the weights w of an image come from the other modality's images alone.

    No image tells its identity through its own weights; those of others still name it, if less than in the paper's.
    Of what was tried, this was the best on the val identities (docs/results.md).
    """

    sets: ClassVar[dict[str, Any]] = {"weights_from": "other-modality"}
    """What it sets of the section `coseg`, whatever the settings say."""

    def __init__(self, channels: int, identities: int, config: Config):
        coseg = dataclasses.replace(config.coseg, **self.sets)
        super().__init__(channels, identities, dataclasses.replace(config, coseg=coseg))

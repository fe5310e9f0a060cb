"""Candidates for a step beyond the paper's co-segmentation, to be measured on the preset study.

    PYTHONPATH=benchmarks csvi train --method candidates:Cells --config configs/study.yaml --run runs/cells

In the paper every image is decoded under the weights of its own identity, so that the mask loss never asks them to tell
one person from another. Each of these asks that, in training only: what is kept is the Baseline's network. The last
control of `Cells`, `whole`, was as good as any and is a part of `coseg+` and `baseline+` since (docs/results-tried.md).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.data.batch import Batch
from csvi.losses import center_contrast, full_precision, mask_target
from csvi.losses.contrast import NEVER, other_centers
from csvi.losses.loss import sum_of_modality_means
from csvi.methods.coseg_plus import CoSegPlus, CoSegPlusSettings
from csvi.methods.decode import Decode, DecodeSettings
from csvi.model.parts import PartHead


@dataclass
class CellsSettings(DecodeSettings):
    """Settings of the Baseline, of the decoder and of the classification of cells."""

    name: str = "candidates:Cells"
    cell_weight: float = 1.0
    """Weight of the loss of cells."""
    temperature: float = 0.1
    """Divides the cosines."""
    target: Literal["identity", "image", "whole"] = "identity"
    """identity: cells that are person have their own identity. Two controls: image, in which the mean over the person's
    cells is classified, one answer an image and no background; and whole, the same of all cells, without a mask."""


class Cells(Decode):
    """Whose is each cell? The center of every identity in the batch is laid over the other modality's cells.

    Co-segmentation as classification: a cell that is person is its own identity among those of the batch, one that is
    not is background, and an image is asked by the centers of the other modality alone.
    """

    Settings = CellsSettings
    title = "Cells"
    paper = "ours"
    published = None
    settings: CellsSettings

    def __init__(self, settings: CellsSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        if settings.target == "identity":
            self.background = nn.Parameter(torch.randn(1, self.net.backbone.channels))

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of `decode`, and the loss of cells."""
        features = self.features(batch)
        parts, scores = self.net.head(features)
        assert batch.mask is not None
        person = mask_target(batch.mask, *features.shape[2:], self.net.backbone.stride)
        labels = batch.identity, batch.modality
        if self.settings.target == "identity":
            cells = cell_identity_loss(features, *labels, person, self.background, self.settings.temperature)
        else:
            seen = person if self.settings.target == "image" else torch.ones_like(person)
            mean = (seen * features).sum((2, 3)) / seen.sum((2, 3)).clamp(min=1e-6)
            cells = center_contrast(mean, *labels, self.settings.temperature)
        return self.reid_losses(parts, scores, batch, step) | {
            "decode/segmentation": self.segmentation_loss(self.decoder(features), batch),
            "cells": self.settings.cell_weight * cells,
        }


@full_precision
def cell_identity_loss(
    features: Tensor,
    identity: Tensor,
    modality: Tensor,
    person: Tensor,
    background: Tensor,
    temperature: float = 0.1,
) -> Tensor:
    """Cross-entropy of each cell over the identities of the batch and the background (ours).

    A cell of a person is its identity, one beside the person is background. An identity is the center of the person's
    cells in its images of the *other* modality, the score of a cell the cosine of both. So each image is asked
    whether it shows one person and none of the others, by images of the other spectrum alone.

    Args:
        features: F_s, (B, C, h, w).
        identity, modality: see `csvi.losses`.
        person: (B, 1, h, w), the share of each cell that is person.
        background: (1, C), what cells of the background look like.
        temperature: divides the cosines.

    Returns:
        A mean over each modality's cells, added. An image whose identity has none in the other modality does not count.
    """
    mean = (person * features).sum((2, 3)) / person.sum((2, 3)).clamp(min=1e-6)  # of the person in each image: (B, C)
    centers, asked = other_centers(mean, identity, modality)
    cells = F.normalize(features.flatten(2), dim=1)  # (B, C, cells)
    cosine = torch.stack([cells.mT @ center.T for center in centers])  # (2, B, cells, B)
    image = torch.arange(len(identity), device=identity.device)
    cosine = cosine[1 - modality, image].where(asked[:, None], NEVER)
    beside = cells.mT @ F.normalize(background, dim=1).T  # (B, cells, 1)
    scores = (torch.cat([beside, cosine], 2) / temperature).log_softmax(2)
    same = asked & (identity[:, None] == identity)
    own = scores[:, :, 1:].where(same[:, None], NEVER).logsumexp(2)
    share = person.flatten(1)
    entropy = -(share * own + (1 - share) * scores[:, :, 0]).mean(1)
    return sum_of_modality_means(entropy, modality, same.any(1))


@dataclass
class CellsPlusSettings(CoSegPlusSettings):
    """Settings of `coseg+` as it was, and of the classification of cells."""

    name: str = "candidates:CellsPlus"
    contrast_weight: float = 0.0
    decoder: Literal["paper", "lean"] = "paper"
    cell_weight: float = 5.0
    """Weight of the loss of cells."""


class CellsPlus(CoSegPlus):
    """Co-segmentation with weights from the other modality, and the loss of cells."""

    Settings = CellsPlusSettings
    title = "CellsPlus"
    settings: CellsPlusSettings

    def __init__(self, settings: CellsPlusSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.background = nn.Parameter(torch.randn(1, self.net.backbone.channels))

    def terms(self, features: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of `coseg+`, and the loss of cells."""
        assert batch.mask is not None
        person = mask_target(batch.mask, *features.shape[2:], self.net.backbone.stride)
        cells = cell_identity_loss(features, batch.identity, batch.modality, person, self.background)
        return super().terms(features, batch, step) | {"cells": self.settings.cell_weight * cells}


@dataclass
class CorrelateSettings(DecodeSettings):
    """Settings of the Baseline, of the decoder and of the correlation."""

    name: str = "candidates:Correlate"
    key_dim: int = 128
    """Length of the vectors whose products say which cells belong together."""
    head: bool = True
    """An extra part head on what the cells of the other modality say of an image."""


class Correlate(Decode):
    """Every cell looks for cells like it in the other modality's images of its identity; masks are decoded from those.

    As co-segmentation does it in the paper's references 11 and 12, between images of one object.
    """

    Settings = CorrelateSettings
    title = "Correlate"
    paper = "ours"
    published = None
    settings: CorrelateSettings

    def __init__(self, settings: CorrelateSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        channels = self.net.backbone.channels
        self.key = nn.Conv2d(channels, settings.key_dim, 1, bias=False)
        if settings.head:
            self.head = PartHead(
                channels, identities, settings.parts, settings.part_dim, settings.part_norm, settings.share_classifier
            )

    def correlated(self, features: Tensor, batch: Batch) -> Tensor:
        """Compute what the other modality's cells of the same identity say of each cell: (B, C, h, w)."""
        height, width = features.shape[2:]
        keys = F.normalize(self.key(features).flatten(2), dim=1) * self.settings.key_dim**0.25
        keys = keys.mT.flatten(0, 1)  # (B * cells, key_dim)
        values = features.flatten(2).mT.flatten(0, 1)
        asks = (batch.identity[:, None] == batch.identity) & (batch.modality[:, None] != batch.modality)
        asks = asks.repeat_interleave(height * width, 0).repeat_interleave(height * width, 1)
        found = F.scaled_dot_product_attention(keys, keys, values, asks, scale=1.0)
        return found.view(len(features), -1, features.shape[1]).mT.unflatten(2, (height, width))

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 9, the segmentation loss, and those of the extra part head."""
        features = self.features(batch)
        parts, scores = self.net.head(features)
        found = self.correlated(features, batch)
        terms = self.reid_losses(parts, scores, batch, step)
        terms["correlate/segmentation"] = self.segmentation_loss(self.decoder(features + found), batch)
        if self.settings.head:
            of_found = self.reid_losses(*self.head(found), batch, step)
            terms |= {f"correlate/{name}": term for name, term in of_found.items()}
        return terms

    def mask_logits(self, batch: Batch) -> Tensor:
        """Decode the masks of a batch, all images of an identity together."""
        features = self.features(batch)
        return self.decoder(features + self.correlated(features, batch))


@dataclass
class NegativesSettings(CoSegPlusSettings):
    """Settings of `coseg+` and of the negatives."""

    name: str = "candidates:Negatives"
    contrast_weight: float = 0.0
    negative_weight: float = 0.03
    """Weight of the negatives' loss, beside that of the segmentation loss."""
    hardest: bool = True
    """Take the identity whose center is nearest; otherwise a random one."""
    on: Literal["pixels", "score"] = "pixels"
    """pixels: nothing is to be segmented; score: the mean logit of the person's pixels is lower than under its own
    weights, one number an image."""
    begin: int = 0
    """Step that they begin in."""


class Negatives(CoSegPlus):
    """An image under the weights of somebody else holds nothing to segment."""

    Settings = NegativesSettings
    title = "Negatives"
    paper = "ours"
    settings: NegativesSettings

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of `coseg+`, and that of the negatives; one pass of the decoder sees both."""
        s = self.settings
        features = self.features(batch)
        parts, scores = self.net.head(features)
        weights = self.ccwg(features, batch.identity, batch.modality)
        others = weights[self.somebody_else(features, batch)]
        logits, negative = self.decoder(torch.cat([weights * features, others * features])).chunk(2)
        terms = self.reid_losses(parts, scores, batch, step)
        terms["coseg/segmentation"] = self.segmentation_loss(logits, batch)
        of_selected = self.reid_losses(*self.head(weights * features), batch, step)
        terms |= {f"coseg/{name}": s.head_weight * term for name, term in of_selected.items()}
        weight = s.segmentation_weight * s.negative_weight * (step >= s.begin)
        terms["negatives/segmentation"] = weight * self.negative_loss(logits, negative, batch)
        return terms

    def somebody_else(self, features: Tensor, batch: Batch) -> Tensor:
        """Choose for each image one of another identity in its modality, whose weights it gets: (B,)."""
        center = F.normalize(features.detach().float().mean((2, 3)), dim=1)
        near = center @ center.T if self.settings.hardest else torch.rand(len(center), len(center))
        allowed = (batch.identity[:, None] != batch.identity) & (batch.modality[:, None] == batch.modality)
        return near.masked_fill(~allowed, -torch.inf).argmax(1)

    def negative_loss(self, logits: Tensor, negative: Tensor, batch: Batch) -> Tensor:
        """Compute the loss of the logits under somebody else's weights."""
        assert batch.mask is not None
        if self.settings.on == "pixels":
            return self.decoder.loss(negative, torch.zeros_like(batch.mask), batch.identity, batch.modality)
        person = mask_target(batch.mask, *logits.shape[2:], self.decoder.cell)
        own, other = (
            ((person * each).sum((1, 2, 3)) / person.sum((1, 2, 3)).clamp(min=1)) for each in (logits, negative)
        )
        return sum_of_modality_means(F.softplus(other - own).float(), batch.modality)

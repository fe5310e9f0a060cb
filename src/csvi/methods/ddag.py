"""DDAG: parts of an image attend to each other, and in training images of a person do (Ye et al., ECCV 2020).

As its public code has it; docs/methods.md says where that departs from the publication.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import batch_hard_triplet, cross_entropy
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.attention import GraphAttention, PartAttention
from csvi.model.neck import Classifier
from csvi.model.net import NeckNet
from csvi.model.two_stream import Modalities, Route

MARGIN = 0.3
"""Margin of the batch-hard triplet loss."""


@dataclass
class DDAGSettings(PretrainedSettings):
    """Settings of DDAG."""

    name: str = "ddag"
    parts: int = 3
    """Horizontal parts of an image that attend to each other."""
    heads: int = 4
    """Heads of the attention between images; the backbone's channels are divided among them."""
    dropout: float = 0.2
    """Dropout of the attention between images: of its inputs and of its weights."""

    def __post_init__(self) -> None:
        check_range(self, 1, 100, "parts", "heads")
        check_range(self, 0, 0.999999, "dropout")


class DDAGNet(NeckNet):
    """A pooled feature and the attention among the parts of the image behind it.

    Args:
        method, height, width, backbone: see `NeckNet`.
        parts: P, see `PartAttention`.
    """

    def __init__(self, method: str, height: int, width: int, backbone: str = "resnet50", parts: int = 3):
        super().__init__(method, height, width, backbone)
        self.attend = PartAttention(self.backbone.channels, parts)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by the part-attended feature, L2-normalised: (B, C1), see `EmbeddingNet`."""
        return F.normalize(self.described(image, modality)[2], dim=1)

    def described(self, image: Tensor, modality: Modalities | Route) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the pooled feature, that behind the neck, and the part-attended one: (B, C1) each."""
        features = self.features(image, modality)
        pooled = self.pool(features)
        behind = self.neck(pooled)
        return pooled, behind, self.attend(features, behind)


class DDAG(PretrainedMethod):
    """One classifier for the feature with and without its parts, and a second one on a graph of the batch's images.

    The loss of the graph has a weight that grows as the others fall: 0 in the first epoch, then 1 / (1 + m), with m the
    mean of the sum of all others over the steps of the previous epoch.
    """

    Settings: ClassVar[type[DDAGSettings]] = DDAGSettings
    Net = DDAGNet
    title = "DDAG"
    paper = (
        "Ye et al., Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person Re-identification, "
        "ECCV 2020"
    )
    published: ClassVar[Published | None] = Published(
        "README of DDAG's public code; RegDB and LLCM: Tables 2 and 3 of DEEN's paper",
        {
            "sysu": {
                "all-search single-shot": {"R1": 54.75, "mAP": 53.02},
                "indoor-search single-shot": {"R1": 61.02, "mAP": 67.98},
            },
            "regdb": {
                "visible to thermal": {"R1": 69.3, "mAP": 63.5},
                "thermal to visible": {"R1": 68.1, "mAP": 61.8},
            },
            "llcm": {
                "infrared to visible": {"R1": 40.3, "mAP": 48.4},
                "visible to infrared": {"R1": 48.0, "mAP": 52.3},
            },
        },
    )
    settings: DDAGSettings
    net: DDAGNet
    epoch: Tensor
    graph_weight: Tensor
    others: Tensor
    steps: Tensor

    def __init__(self, settings: DDAGSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.net = self.Net(settings.name, height, width, settings.backbone, settings.parts)
        channels = self.net.backbone.channels
        self.classify = Classifier(channels, identities)
        self.relate = GraphAttention(channels, identities, settings.heads, settings.dropout)
        self.register_buffer("epoch", torch.tensor(-1))  # that the weight is of
        self.register_buffer("graph_weight", torch.zeros(()))
        self.register_buffer("others", torch.zeros(()))  # sum of the other losses, over the steps of the epoch so far
        self.register_buffer("steps", torch.zeros(()))

    def begin_epoch(self, epoch: int) -> None:
        """Give the graph's loss its weight, unless the run is resumed within this epoch and has it."""
        if self.epoch != epoch:
            self.graph_weight.copy_((epoch > 0) / (1 + self.others / self.steps.clamp(min=1)))
            for progress, value in ((self.epoch, epoch), (self.others, 0), (self.steps, 0)):
                progress.fill_(value)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill the network as other methods do; the weight of the graph's loss is that of no other run."""
        super().load_pretrained(state)
        self.epoch.fill_(-1)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity loss of the feature with and without its parts, the triplet loss and that of the graph."""
        pooled, behind, attended = self.net.described(batch.image, batch.streams)
        terms = self.terms(pooled, behind, attended, batch)
        if self.training:
            self.others += torch.stack(list(terms.values())).sum().detach()
            self.steps += 1
        graph = cross_entropy(self.relate(pooled, batch.identity), batch.identity)
        return terms | {"graph/identity": self.graph_weight * graph}

    def terms(self, pooled: Tensor, behind: Tensor, attended: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute all terms but that of the graph from what `DDAGNet.described` gives, (B, C1) each."""
        return {
            "identity": cross_entropy(self.classify(behind), batch.identity),
            "triplet": batch_hard_triplet(pooled, batch.identity, MARGIN),
            "parts/identity": cross_entropy(self.classify(attended), batch.identity),
        }

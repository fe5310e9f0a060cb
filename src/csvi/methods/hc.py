"""HC: a network for each modality that only share the parts' embeddings, and the hetero-center loss (Zhu et al., 2020).

As the public code of TSLFN + HC has it; docs/methods.md says where ours departs from it.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from csvi.config import check_range
from csvi.data.batch import Batch
from csvi.losses import cross_entropy, hetero_center_loss
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, StripSettings
from csvi.model.net import StripNet
from csvi.model.parts import joined, strip_classifier, strip_embedding
from csvi.model.pooling import average_strips
from csvi.model.two_stream import Modalities, Route, TwoStream


@dataclass
class HCSettings(StripSettings):
    """Settings of HC."""

    name: str = "hc"
    center_weight: float = 0.5
    """Weight of the hetero-center loss."""
    center_distance: Literal["l2", "l1", "cosine"] = "l2"
    """Distance of the two centers of an identity: l2, squared; l1, a mean over the dimensions; or 1 - cosine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "center_weight")


class HCNet(StripNet):
    """A whole trunk for each modality, and an embedding of each strip for both.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`; none of its stages is shared.
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
        self.backbone = TwoStream(backbone, cut=5)
        self.parts = parts
        self.embed = strip_embedding(self.backbone.channels, parts, part_dim)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images, each strip L2-normalised, then concatenated: (B, P * C2), see `EmbeddingNet`."""
        return joined(self.strips(image, modality))

    def strips(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed the strips of images: (B, P, C2)."""
        return self.embed(average_strips(self.features(image, modality), self.parts))


class HC(PretrainedMethod):
    """An identity loss for each strip, and the distance between the modality centers of an identity."""

    Settings = HCSettings
    Net = HCNet
    title = "HC"
    paper = "Zhu et al., Hetero-Center Loss for Cross-Modality Person Re-Identification, Neurocomputing 386, 2020"
    published: ClassVar[Published | None] = Published(
        "README of its public code, which says about", {"sysu": {"all-search single-shot": {"R1": 56.0, "mAP": 54.0}}}
    )
    settings: HCSettings
    net: HCNet

    def __init__(self, settings: HCSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        s = settings
        self.net = self.Net(s.name, height, width, s.backbone, s.parts, s.part_dim)
        self.classify = strip_classifier(s.part_dim, s.parts, identities)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity losses and the hetero-center losses, each summed over the strips."""
        s = self.settings
        strips = self.net.strips(batch.image, batch.streams)
        center = hetero_center_loss(
            strips, batch.identity, batch.modality, squared=True, normalize=True, distance=s.center_distance
        )
        return {
            "identity": cross_entropy(self.classify(strips), batch.identity),
            "center": s.center_weight * center,
        }

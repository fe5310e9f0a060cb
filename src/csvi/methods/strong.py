"""What helps, put together (ours): DDAG on CAJ's views, and metric losses of the feature that is compared at test.

DDAG's metric loss is of another feature than its test compares, and of another distance. What each ingredient gains on
the synthetic benchmark is in docs/ranking.md, and what gains nothing in docs/results-tried.md.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.views import Views
from csvi.losses import batch_hard_triplet, hetero_center_loss
from csvi.methods.caj import caj_views
from csvi.methods.ddag import DDAG, MARGIN, DDAGSettings


@dataclass
class StrongSettings(DDAGSettings):
    """Settings of DDAG, and of what is added to it."""

    name: str = "strong"
    channel_views: bool = True
    """Augment as CAJ does: a second view of each visible image, of one channel, and infrared channels alike."""
    center_weight: float = 1.0
    """Weight of the hetero-center loss of embeddings: the distance of an identity's modality centers, not squared, as a
    mean over the identities of a batch."""
    embedding_triplet_weight: float = 2.0
    """Weight of the batch-hard triplet loss of embeddings, with DDAG's margin."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, math.inf, "center_weight", "embedding_triplet_weight")


class Strong(DDAG):
    """DDAG on CAJ's views, with two losses more of its embeddings: the part-attended features, L2-normalised."""

    Settings = StrongSettings
    title = "strong"
    paper = "ours, after DDAG, CAJ and HC"
    published = None
    settings: StrongSettings

    def views(self, data: DataConfig) -> Views:
        """Those of CAJ, or one view of each image."""
        return caj_views(data) if self.settings.channel_views else super().views(data)

    def terms(self, pooled: Tensor, behind: Tensor, attended: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of DDAG, and those of the embeddings, but for what has no weight."""
        s, embedding = self.settings, F.normalize(attended, dim=1)
        terms = super().terms(pooled, behind, attended, batch)
        if s.center_weight:
            center = hetero_center_loss(embedding, batch.identity, batch.modality, reduction="mean")
            terms["parts/center"] = s.center_weight * center
        if s.embedding_triplet_weight:
            triplet = batch_hard_triplet(embedding, batch.identity, MARGIN)
            terms["parts/triplet"] = s.embedding_triplet_weight * triplet
        return terms

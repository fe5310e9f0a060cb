"""CAJ: AGW with a second view of each visible image, a single channel of it, and a stronger triplet loss (ICCV 2021).

CAJ+ (TPAMI 2023) also teaches the first view what is seen in the second. Both are as their public code has them;
docs/methods.md says where that departs from the publications.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.channel_views import ExchangeChannels, caj_erase
from csvi.data.records import Modality
from csvi.data.views import Flip, Grayscale, Shift, Views
from csvi.losses import cross_entropy, soft_cross_entropy, squared_difference_triplet
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.neck import Classifier
from csvi.model.net import NeckNet
from csvi.model.two_stream import Modalities, Route


def caj_views(data: DataConfig, visible_erase: float | None = None, infrared_grey: float = 0.5) -> Views:
    """Two views of a visible image, the second a single channel of it, and one of an infrared image, often the same.

    Args:
        data: `grayscale` is the probability that the first visible view is grey.
        visible_erase: probability of erasing in each visible view; by default that of `data`, as for infrared images.
        infrared_grey: probability that an infrared image turns grey where no channel is copied.
    """
    basic, exchange = (Flip(data.flip), Shift(data.pad)), ExchangeChannels()
    visible = caj_erase(data.erase if visible_erase is None else visible_erase)
    infrared = caj_erase(data.erase), ExchangeChannels(0.75, infrared_grey)
    return {
        Modality.VISIBLE: ((*basic, Grayscale(data.grayscale), visible), (*basic, visible, exchange)),
        Modality.INFRARED: ((*basic, *infrared),),
    }


@dataclass
class CAJSettings(PretrainedSettings):
    """Settings of CAJ."""

    name: str = "caj"
    squared: bool = True
    """The triplet loss is of squared differences; otherwise it is AGW's."""
    triplet_weight: float = 1.0
    """Weight of the triplet loss."""
    infrared_grey: float = 0.5
    """Probability that an infrared image turns grey where no channel of it is copied, which is one time in four."""

    def __post_init__(self) -> None:
        check_range(self, 0, math.inf, "triplet_weight")
        check_range(self, 0, 1, "infrared_grey")


class CAJ(PretrainedMethod):
    """AGW's network and losses on half as many images again: both views of the visible ones and the infrared ones."""

    Settings: ClassVar[type[CAJSettings]] = CAJSettings
    Net = NeckNet
    title = "CAJ"
    paper = "Ye et al., Channel Augmented Joint Learning for Visible-Infrared Recognition, ICCV 2021"
    published: ClassVar[Published | None] = Published(
        "README of CAJ's public code", {"sysu": {"all-search single-shot": {"R1": 69.88, "mAP": 66.89}}}
    )
    settings: CAJSettings
    net: NeckNet

    def __init__(self, settings: CAJSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.net = self.Net(settings.name, height, width, settings.backbone, power=3.0, non_local=True)
        self.classify = Classifier(self.net.backbone.channels, identities)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity loss and the triplet loss of all rows together, whatever their modality and view."""
        pooled = self.net.pooled(batch.image, batch.streams)
        return self.terms(pooled, self.classify(self.net.neck(pooled)), batch)

    def terms(self, pooled: Tensor, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss terms from features (B, C) before the batch norm, and scores (B, L)."""
        triplet = squared_difference_triplet(pooled, batch.identity, self.settings.squared)
        return {
            "identity": cross_entropy(scores, batch.identity),
            "triplet": self.settings.triplet_weight * triplet,
        }

    def views(self, data: DataConfig) -> Views:
        """Two visible views and one infrared."""
        return caj_views(data, infrared_grey=self.settings.infrared_grey)


@dataclass
class CAJPlusSettings(CAJSettings):
    """Settings of CAJ+, as on SYSU-MM01; on RegDB its public code augments images as CAJ does."""

    name: str = "caj+"
    infrared_grey: float = 0.6
    """Probability that an infrared image turns grey where no channel of it is copied, which is one time in four; on
    RegDB 0.5."""
    visible_erase: float = 0.6
    """Probability of erasing in each view of a visible image; on RegDB 0.5. That of infrared images is `data.erase`."""
    agreement_weight: float = 1.0
    """Weight of the loss between the scores of both visible views."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "visible_erase")
        check_range(self, 0, math.inf, "agreement_weight")


class CAJPlus(CAJ):
    """CAJ, and the scores of the first view of a visible image are to agree with those of its second view."""

    Settings = CAJPlusSettings
    title = "CAJ+"
    paper = "Ye et al., Channel Augmentation for Visible-Infrared Re-Identification, TPAMI 46(4), 2024"
    published = None
    settings: CAJPlusSettings

    def terms(self, pooled: Tensor, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Add the agreement of the first, weakly augmented view with the second, which is not moved by it."""
        first, second = views_of_visible(scores, batch.streams)
        agreement = self.settings.agreement_weight * soft_cross_entropy(first, second)
        return super().terms(pooled, scores, batch) | {"agreement": agreement}

    def views(self, data: DataConfig) -> Views:
        """Those of CAJ, with the chances of CAJ+."""
        return caj_views(data, self.settings.visible_erase, self.settings.infrared_grey)


def views_of_visible(rows: Tensor, modality: Modalities | Route) -> tuple[Tensor, Tensor]:
    """Separate the rows of the first and the second view of the visible images, each with as many, image by image.

    Args:
        rows: (B, ...), among the visible ones all of the first view before all of the second, as a loader has them.
        modality: (B,), or the route made of it.

    Returns:
        (V / 2, ...) twice, of V visible rows.
    """
    route = modality if isinstance(modality, Route) else Route.of(modality, len(rows), rows.device)
    visible = (rows if route.order is None else rows[route.order])[: route.visible]
    return visible[: route.visible // 2], visible[route.visible // 2 :]

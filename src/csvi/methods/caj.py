"""CAJ: AGW with a second view of each visible image, a single channel of it, and a stronger triplet loss (ICCV 2021).

CAJ+ (TPAMI 2024) also teaches the first view what is seen in the second. Both are as their public code has them;
docs/methods.md says where that departs from the publications.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.channel_views import ExchangeChannels, caj_erase
from csvi.data.records import Modality
from csvi.data.views import Flip, Grayscale, Shift, Views
from csvi.losses import soft_cross_entropy, squared_difference_triplet
from csvi.methods.agw import AGW, AGWSettings
from csvi.methods.method import Published
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
class CAJSettings(AGWSettings):
    """Settings of CAJ."""

    name: str = "caj"
    base: bool = False
    """The network of AGW's own baseline: no attention, and average pooling."""
    squared: bool = True
    """The triplet loss is of squared differences; otherwise it is AGW's weighted regularised one."""
    infrared_grey: float = 0.5
    """Probability that an infrared image turns grey where no channel of it is copied, which is one time in four."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "infrared_grey")


class CAJ(AGW):
    """AGW's network and losses on half as many images again: both views of the visible ones and the infrared ones."""

    Settings: ClassVar[type[CAJSettings]] = CAJSettings
    title = "CAJ"
    paper = "Ye et al., Channel Augmented Joint Learning for Visible-Infrared Recognition, ICCV 2021"
    published: ClassVar[Published | None] = Published(
        "README of CAJ's public code; indoor search, RegDB and LLCM: Tables 2 and 3 of DEEN's paper",
        {
            "sysu": {
                "all-search single-shot": {"R1": 69.88, "mAP": 66.89},
                "indoor-search single-shot": {"R1": 76.3, "mAP": 80.4},
            },
            "regdb": {
                "visible to thermal": {"R1": 85.0, "mAP": 79.1},
                "thermal to visible": {"R1": 84.8, "mAP": 77.8},
            },
            "llcm": {
                "infrared to visible": {"R1": 48.8, "mAP": 56.6},
                "visible to infrared": {"R1": 56.5, "mAP": 59.8},
            },
        },
    )
    flip = True
    settings: CAJSettings

    def triplet(self, pooled: Tensor, batch: Batch) -> Tensor:
        """Compute the triplet loss of features (B, C), before the batch norm, of all views."""
        return squared_difference_triplet(pooled, batch.identity, self.settings.squared)

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
    """CAJ, and the scores of the first view of a visible image are to agree with those of its second view.

    This one loss goes by position: the two views of an image are found by `views_of_visible`.
    """

    Settings = CAJPlusSettings
    title = "CAJ+"
    paper = "Ye et al., Channel Augmentation for Visible-Infrared Re-Identification, TPAMI 46(4), 2024"
    published = None
    settings: CAJPlusSettings

    def terms(self, pooled: Tensor, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Add the agreement of the first, weakly augmented view with the second, which is not moved by it."""
        first, second = views_of_visible(scores, batch.streams, batch.view)
        agreement = self.settings.agreement_weight * soft_cross_entropy(first, second)
        return super().terms(pooled, scores, batch) | {"agreement": agreement}

    def views(self, data: DataConfig) -> Views:
        """Those of CAJ, with the chances of CAJ+."""
        return caj_views(data, self.settings.visible_erase, self.settings.infrared_grey)


def views_of_visible(rows: Tensor, modality: Modalities | Route, view: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Separate the rows of the first and the second view of the visible images, of which there are equally many.

    Nothing in a batch says which image a row shows, so that the views of an image are paired by position: the k-th row
    of the first view with the k-th row of the second. Loaders give the images of every view in one order.

    Args:
        rows: (B, ...).
        modality: (B,), or the route made of it.
        view: (B,), see `Batch`; without it, the visible rows are those of the first view and then those of the second.

    Returns:
        (V / 2, ...) twice, of V visible rows.
    """
    route = modality if isinstance(modality, Route) else Route.of(modality, len(rows), rows.device)
    order = torch.arange(len(rows), device=rows.device) if route.order is None else route.order
    visible = order[: route.visible]
    if view is not None:
        visible = visible[view[visible].argsort(stable=True)]
    first, second = rows[visible].chunk(2)
    return first, second

"""Baseline of Table 3: two streams, a part head, identity losses and hetero-center losses (Section 3.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from csvi.config import check_range, setting
from csvi.data.batch import Batch
from csvi.losses import hetero_center_loss, identity_loss
from csvi.methods.compared import PAPER
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.net import PartNet

SOURCE = f"{PAPER}, Table 3"


@dataclass
class BaselineSettings(PretrainedSettings):
    """Settings of the network that is kept for testing, and of its losses (Section 3.1).

    The hetero-center loss is by default that of the code of the paper's reference 24, which Eq. 7 names. Eq. 7 to the
    letter is center_weight 1, center_squared false, center_normalize false; with `part_norm` it leaves nothing to the
    identity loss (docs/demo.md). All of the paper to the letter is configs/letter.yaml.
    """

    name: str = "baseline"
    parts: int = 6
    """Horizontal strips (Eq. 3)."""
    part_dim: int = 512
    """C2, length of a part's embedding (Eq. 3)."""
    part_norm: bool = setting(True, letter=False)
    """BatchNorm1d after the embedding's Linear: not in Eq. 3, but in the code it descends from."""
    share_classifier: bool = setting(False, letter=True)
    """One classifier for all parts: gamma_s in Eq. 3 has no index of the part."""
    identity_weight: float = 1.0
    """Weight of the identity losses (Eq. 4, 15)."""
    class_mean: bool = setting(False, letter=True)
    """Divide cross-entropies by L, the number of classes, as Eq. 5 does: those of Eq. 4 and 15 and, where masks have a
    channel for each identity, that of Eq. 17."""
    center_weight: float = setting(0.5, letter=1.0)
    """Weight of the hetero-center losses (Eq. 6, 16); 1 in Eq. 9 and 18."""
    center_squared: bool = setting(True, letter=False)
    """Square the norm of Eq. 7, which the paper does not."""
    center_normalize: bool = setting(True, letter=False)
    """L2-normalise features before Eq. 8, which the paper does not."""
    center_reduction: Literal["sum", "mean"] = "sum"
    """Over the identities of a batch; the paper sums (Eq. 7)."""
    center_ramp: int = 0
    """Steps over which the weight of the hetero-center losses grows from 0; training from scratch may else collapse."""

    def __post_init__(self) -> None:
        check_range(self, 1, 100, "parts")
        check_range(self, 1, 100_000, "part_dim")
        check_range(self, 0, math.inf, "identity_weight", "center_weight", "center_ramp")


class Baseline(PretrainedMethod):
    """The paper's network without extra branches; the other rows of Table 3 add to it."""

    Settings = BaselineSettings
    Net = PartNet
    title = "Baseline"
    paper = PAPER
    published: ClassVar[Published | None] = Published(
        SOURCE, {"sysu": {"all-search single-shot": {"R1": 63.22, "R10": 94.02, "mAP": 59.97}}}
    )
    settings: BaselineSettings
    net: PartNet

    def __init__(self, settings: BaselineSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.net = self.Net(height=height, width=width, **self.net_arguments())

    def net_arguments(self) -> dict[str, Any]:
        """List the arguments of `Net` but for the size of the images."""
        s = self.settings
        return {
            "method": s.name, "identities": self.identities, "backbone": s.backbone, "parts": s.parts,
            "part_dim": s.part_dim, "part_norm": s.part_norm, "share_classifier": s.share_classifier,
        }  # fmt: skip

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of Eq. 9."""
        parts, scores = self.net.head(self.features(batch))
        return self.reid_losses(parts, scores, batch, step)

    def features(self, batch: Batch) -> Tensor:
        """Compute F_s of a batch (Eq. 1, 2): (B, C1, h, w)."""
        return self.net.features(batch.image, batch.streams)

    def reid_losses(self, parts: Tensor, scores: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the weighted terms of a part head from parts (B, P, C2) and scores (B, P, L): Eq. 9, 15, 16."""
        s = self.settings
        center = hetero_center_loss(
            parts, batch.identity, batch.modality, s.center_squared, s.center_normalize, s.center_reduction
        )
        weight = s.center_weight
        if s.center_ramp and step < s.center_ramp:  # in this order: what does not look at the step is compiled once
            weight = weight * step / s.center_ramp
        return {
            "identity": s.identity_weight * self.per_class * identity_loss(scores, batch.identity, batch.modality),
            "center": weight * center,
        }

    @property
    def per_class(self) -> float:
        """The factor 1/L of Eq. 5, where the settings ask for it."""
        return 1 / self.identities if self.settings.class_mean else 1.0

    def advise(self, terms: Mapping[str, float], step: int) -> str | None:
        """Say so when identities are at chance because the hetero-center loss rules.

        Either it has pulled all features to one point, or it outweighs the identity loss by far.
        """
        s = self.settings
        chance = 2 * s.parts * math.log(self.identities) * s.identity_weight * self.per_class
        if step % 100 or step <= s.center_ramp or terms["identity"] < 0.95 * chance:
            return None
        if 0 < terms["center"] < 0.02 * terms["identity"]:
            what = "features have collapsed to one point"
        elif terms["center"] > 2 * terms["identity"]:
            what = "the center loss leaves nothing to the identity loss"
        else:
            return None
        return (
            f"{what} (identity loss {terms['identity']:.1f} at chance {chance:.1f}, center loss "
            f"{terms['center']:.3f}): lower --method.center_weight, raise --method.center_ramp, or take the mean over "
            "identities with --method.center_reduction mean"
        )

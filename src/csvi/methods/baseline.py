"""Baseline of Table 3: two streams, a part head, identity losses and hetero-center losses (Section 3.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from csvi.config import MethodSettings, TrainConfig, check_range
from csvi.data.batch import Batch
from csvi.losses import hetero_center_loss, identity_loss
from csvi.methods.method import Method, Published
from csvi.model.net import PartNet
from csvi.model.weights import OF_NET, initial_weights

PAPER = "Huang et al., Information Fusion 104, 2024"
TABLE_3 = f"{PAPER}, Table 3"


@dataclass
class BaselineSettings(MethodSettings):
    """Settings of the network that is kept for testing, and of its losses (Section 3.1).

    The hetero-center loss is by default that of the code of the paper's reference 24, which Eq. 7 names. Eq. 7 to the
    letter is center_weight 1, center_squared false, center_normalize false; with `part_norm` it leaves nothing to the
    identity loss (docs/demo.md).
    """

    name: str = "baseline"
    backbone: str = "resnet50"
    """A torchvision ResNet (resnet18, 34, 50, ...) or mobilenet_v2 (Eq. 1, 2)."""
    weights: str = "imagenet"
    """Initial weights of the backbone: imagenet (torchvision's download), packaged (mobilenet_v2, from csvi[demo]),
    none, or the path of a state dict (.pth or .safetensors); or a run that was trained on other people, of which all is
    taken but its classifiers."""
    parts: int = 6
    """Horizontal strips (Eq. 3)."""
    part_dim: int = 512
    """C2, length of a part's embedding (Eq. 3)."""
    part_norm: bool = True
    """BatchNorm1d after the embedding's Linear: not in Eq. 3, but in the code it descends from."""
    share_classifier: bool = False
    """One classifier for all parts, as the subscript of gamma_s in Eq. 3 can be read."""
    identity_weight: float = 1.0
    """Weight of the identity losses (Eq. 4, 15)."""
    center_weight: float = 0.5
    """Weight of the hetero-center losses (Eq. 6, 16)."""
    center_squared: bool = True
    """Square the norm of Eq. 7."""
    center_normalize: bool = True
    """L2-normalise features before Eq. 8."""
    center_reduction: Literal["sum", "mean"] = "sum"
    """Over the identities of a batch; the paper sums (Eq. 7)."""
    center_ramp: int = 0
    """Steps over which the weight of the hetero-center losses grows from 0; training from scratch may else collapse."""

    def __post_init__(self) -> None:
        check_range(self, 1, 100, "parts")
        check_range(self, 1, 100_000, "part_dim")
        check_range(self, 0, math.inf, "identity_weight", "center_weight", "center_ramp")


class Baseline(Method):
    """The paper's network without extra branches; the other rows of Table 3 add to it."""

    Settings = BaselineSettings
    Net = PartNet
    title = "Baseline"
    paper = PAPER
    published: ClassVar[Published | None] = Published(
        TABLE_3, {"sysu": {"all-search single-shot": {"R1": 63.22, "R10": 94.02, "mAP": 59.97}}}
    )
    settings: BaselineSettings
    net: PartNet

    def __init__(self, settings: BaselineSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        kept = (settings.backbone, settings.parts, settings.part_dim, settings.part_norm, settings.share_classifier)
        self.net = self.Net(settings.name, height, width, identities, *kept)

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
            "identity": s.identity_weight * identity_loss(scores, batch.identity, batch.modality),
            "center": weight * center,
        }

    @classmethod
    def pretrained(cls, settings: BaselineSettings) -> dict[str, Tensor] | None:
        """Fetch the initial weights of the backbone, or all of a trained run."""
        return super().pretrained(settings) or initial_weights(settings.backbone, settings.weights)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill both streams and the shared layers; from a run all that fits."""
        if any(name.startswith(OF_NET) for name in state):
            super().load_pretrained(state)
        else:
            self.net.backbone.load_pretrained(state)

    def groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """The backbone, whose learning rate is scaled by `lr_pretrained` if it is pretrained, and all the rest."""
        backbone = list(self.net.backbone.parameters())
        in_backbone = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in in_backbone]
        factor = 1.0 if self.settings.weights == "none" else train.lr_pretrained
        return [{"params": backbone, "lr": train.lr * factor}, {"params": rest}]

    def advise(self, terms: Mapping[str, float], step: int) -> str | None:
        """Say so when identities are at chance because the hetero-center loss rules.

        Either it has pulled all features to one point, or it outweighs the identity loss by far.
        """
        s = self.settings
        chance = 2 * s.parts * math.log(self.identities) * s.identity_weight
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

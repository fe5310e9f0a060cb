"""Baseline+Sel of Table 3: features selected by given masks (Figure 3a, Eq. 20, 21)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from csvi.config import setting
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.losses import mask_target
from csvi.methods.baseline import SOURCE, Baseline, BaselineSettings
from csvi.methods.method import Published
from csvi.model.net import PartNet
from csvi.model.two_stream import Modalities, Route


class SelectNet(PartNet):
    """A `PartNet` whose features can be selected by masks.

    Args:
        method, height, width, identities, backbone, parts, part_dim, part_norm, share_classifier: see `PartNet`.
        test_masks: select by masks at test too, which `forward` then takes.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        identities: int,
        backbone: str = "resnet50",
        parts: int = 6,
        part_dim: int = 512,
        part_norm: bool = True,
        share_classifier: bool = False,
        test_masks: bool = False,
    ):
        super().__init__(method, height, width, identities, backbone, parts, part_dim, part_norm, share_classifier)
        self.takes_masks = test_masks

    def forward(
        self,
        image: Tensor,
        modality: Modalities | Route,
        mask: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> Tensor:
        """Embed images, see `PartNet`; by their masks too if `test_masks` says so, see `EmbeddingNet.takes_masks`."""
        if not self.takes_masks:
            return super().forward(image, modality)
        if mask is None:
            raise CsviError(
                "this network selects features by person masks, also at test (method.test_masks), and was given none: "
                "only csvi evaluate gives them"
            )
        return self.embedding(self.selected(self.features(image, modality), mask, has_mask))

    def selected(self, features: Tensor, mask: Tensor, has_mask: Tensor | None) -> Tensor:
        """Compute F_sel of Eq. 21: every cell of F_s times the share of it that is person; without a mask, F_s.

        Args:
            features: (B, C1, h, w).
            mask: (B, 1, H, W) in [0, 1].
            has_mask: (B,) bool; None if all have one.
        """
        target = mask_target(mask, *features.shape[2:], self.backbone.stride)
        if has_mask is not None:
            target = target.where(has_mask[:, None, None, None], 1)
        return features * target.to(features.dtype)


@dataclass
class SelectSettings(BaselineSettings):
    """Settings of the Baseline and of the selection."""

    name: str = "select"
    test_masks: bool = setting(False, letter=None)
    """Select by masks at test too, which `csvi evaluate` then reads beside the test images. The paper does not say so,
    but says of the other methods that they do "even without providing those person masks" (Section 4.5.3)."""


class Select(Baseline):
    """The Baseline whose part head sees the shared features times given masks, by default in training only."""

    Settings = SelectSettings
    Net = SelectNet
    title = "Baseline+Sel"
    needs_masks = True
    published = Published(SOURCE, {"sysu": {"all-search single-shot": {"R1": 64.05, "R10": 93.96, "mAP": 60.32}}})
    settings: SelectSettings
    net: SelectNet

    @classmethod
    def tests_with_masks(cls, settings: SelectSettings) -> bool:
        """Whether the settings say so."""
        return settings.test_masks

    def net_arguments(self) -> dict[str, Any]:
        """List the arguments of `Net` but for the size of the images."""
        return super().net_arguments() | {"test_masks": self.settings.test_masks}

    def features(self, batch: Batch) -> Tensor:
        """Compute F_sel of Eq. 21, see `SelectNet.selected`."""
        assert batch.mask is not None
        return self.net.selected(super().features(batch), batch.mask, batch.has_mask)

"""The network that is kept (`VIReIDNet`) and what training wraps around it (`TrainingNetwork`)."""

from typing import Any, NoReturn

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import Config, LossConfig
from csvi.errors import CsviError
from csvi.model.auxiliary import Auxiliary, Features
from csvi.model.backbone import Route, TwoStreamBackbone
from csvi.model.coseg import CoSegmentation, CoSegmentationPlus
from csvi.model.decode import Decode
from csvi.model.losses import reid_losses
from csvi.model.parts import PartModule
from csvi.model.segment import Segment, SegmentationGuide
from csvi.model.select import Select

AUXILIARIES: dict[str, type[Auxiliary] | None] = {
    "none": None,
    "select": Select,
    "segment": Segment,
    "decode": Decode,
    "coseg": CoSegmentation,
    "coseg+": CoSegmentationPlus,
}
"""What training may add, by its name in the settings: the rows of Table 3, and ours."""


class VIReIDNet(nn.Module, PyTorchModelHubMixin, library_name="csvi", tags=["visible-infrared", "person-re-id"]):
    """Two-stream backbone and part module (Section 3.1): images of either modality to one embedding.

    Save with `save_pretrained(folder)`, load with `VIReIDNet.from_pretrained(folder or Hub id)`.

    Args:
        identities: L, classes it was trained on.
        backbone: see `TwoStreamBackbone`.
        parts, part_dim, part_norm, share_classifier: see `PartModule`.
        height, width: size in pixels of the images it was trained on.
        guide: with a segmentation sub-network whose features are added to the shared ones (`csvi.model.segment`).
    """

    def __init__(
        self,
        identities: int,
        backbone: str = "resnet50",
        parts: int = 6,
        part_dim: int = 512,
        part_norm: bool = True,
        share_classifier: bool = False,
        height: int = 288,
        width: int = 144,
        guide: bool = False,
    ):
        super().__init__()
        self.identities, self.height, self.width = identities, height, width
        self.backbone = TwoStreamBackbone(backbone)
        self.guide = SegmentationGuide(self.backbone.specific_channels, self.backbone.channels) if guide else None
        self.part_module = PartModule(self.backbone.channels, identities, parts, part_dim, part_norm, share_classifier)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> NoReturn:
        """Where there is no model.safetensors, `from_pretrained` turns to a pickle, which may hold any code."""
        raise CsviError(f"{model_file} is not read, as it may hold code: ask for the weights as model.safetensors")

    def forward(self, image: Tensor, modality: Tensor | Route) -> Tensor:
        """Embed images: each part L2-normalised, then concatenated; compare by Euclidean distance (Section 4.2).

        Args:
            image: (B, 3, H, W), normalised.
            modality: (B,), 0 visible and 1 infrared, in any order, or the route made of it.

        Returns:
            (B, P * C2).
        """
        parts, _ = self.part_module(self.features(image, modality).shared)
        return F.normalize(parts, dim=2).flatten(1)

    def features(self, image: Tensor, modality: Tensor | Route) -> Features:
        """What the parts are cut from, and what an auxiliary reads; arguments as of `forward`."""
        specific = self.backbone.specific(image, modality)
        shared = self.backbone.shared(specific)
        if self.guide is None:
            return Features(shared)
        segmentation, added = self.guide(specific)
        return Features(shared + added, segmentation)


class TrainingNetwork(nn.Module):
    """A `VIReIDNet` with the auxiliary that training adds to it."""

    def __init__(self, net: VIReIDNet, auxiliary: Auxiliary | None = None):
        super().__init__()
        self.net = net
        self.auxiliary = auxiliary

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the losses need of a batch with `image` (B, 3, H, W), `identity`, `modality` (B,) and maybe `mask`.

        With the `route` of the images as well, which `csvi.fabric.on_device` adds, nothing waits for the device.

        Returns:
            `parts` (B, P, C2), `scores` (B, P, L), and what the auxiliary adds.
        """
        features = self.net.features(batch["image"], batch.get("route", batch["modality"]))
        if self.auxiliary is None:
            parts, scores = self.net.part_module(features.shared)
            return {"parts": parts, "scores": scores}
        parts, scores = self.net.part_module(self.auxiliary.select(features, batch))
        of_auxiliary = self.auxiliary(features, batch["identity"], batch["modality"])
        return {"parts": parts, "scores": scores, **of_auxiliary}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """The weighted terms of Eq. 9 and 18 by name; their sum is the total loss (Eq. 19)."""
        terms = reid_losses(outputs["parts"], outputs["scores"], batch["identity"], batch["modality"], settings)
        if self.auxiliary is not None:
            terms |= self.auxiliary.losses(outputs, batch, settings)
        return terms


def build_network(config: Config, identities: int) -> TrainingNetwork:
    """The network of a configuration with random weights, for `identities` classes."""
    model = config.model
    auxiliary = AUXILIARIES[model.auxiliary]
    net = VIReIDNet(
        identities,
        model.backbone,
        model.parts,
        model.part_dim,
        model.part_norm,
        model.share_classifier,
        config.data.height,
        config.data.width,
        guide=auxiliary is not None and auxiliary.guided,
    )
    return TrainingNetwork(net, None if auxiliary is None else auxiliary(net.backbone.channels, identities, config))

"""The network that is kept for testing: images of either modality to embeddings."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from csvi.errors import CsviError
from csvi.model.attention import NonLocal
from csvi.model.neck import BNNeck
from csvi.model.parts import PartHead, joined
from csvi.model.pooling import GeM
from csvi.model.two_stream import Modalities, Route, TwoStream


class EmbeddingNet(nn.Module, PyTorchModelHubMixin, library_name="csvi", tags=["visible-infrared", "person-re-id"]):
    """The network that a method leaves behind: it is saved, evaluated, exported and searched with.

    The arguments of a subclass must be plain values: they are saved beside the weights, in config.json, and build it
    again. Save with `save_pretrained(folder)`, load with `from_pretrained(folder or Hub id)` or, whatever the method,
    with `csvi.runs.load_net`.

    Args:
        method: name of the method that trained it.
        height, width: size in pixels of the images it was trained on.
    """

    takes_masks = False
    """Whether `forward` also takes the masks of the images, (B, 1, H, W) in [0, 1], and which images have one, (B,)
    bool or None for all: an evaluation then needs masks of the test images, and nothing else can embed. Its
    method says the same, see `Method.tests_with_masks`."""

    def __init__(self, method: str, height: int, width: int):
        super().__init__()
        self.method, self.height, self.width = method, height, width

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> NoReturn:
        """Refuse the pickle that `from_pretrained` turns to without a model.safetensors: it may hold any code."""
        raise CsviError(f"{model_file} is not read, as it may hold code: ask for the weights as model.safetensors")

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images; compare embeddings by Euclidean distance.

        Args:
            image: (B, 3, H, W), normalised: bytes are not, `csvi.data.batch.prepare` makes them so.
            modality: 0 visible and 1 infrared, in any order: a tensor, an array or a list (B,), one number for all
                images, or the route made of them.

        Returns:
            (B, D), ready to be compared.

        Raises:
            CsviError: images are not of this kind, or modalities are not, or they are not as many as the images.
        """
        raise NotImplementedError

    def average(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Average embeddings of the same images, as of an image and its mirror image: (B, D) each, to (B, D)."""
        return F.normalize(torch.stack(list(embeddings)).sum(0), dim=1)


class FeatureNet(EmbeddingNet):
    """A network whose embeddings are made of the features of two streams: it has heatmaps.

    Attributes:
        backbone: the streams and the shared layers.
    """

    backbone: TwoStream

    def features(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the features that embeddings are made of, by default F_s: (B, C1, h, w)."""
        return self.backbone(image, modality)


class NeckNet(FeatureNet):
    """Two stems, shared layers, one pooled feature and a batch norm behind it: what AGW and those after it have.

    Args:
        method, height, width: see `EmbeddingNet`.
        backbone: name of a trunk, see `build_trunk`; the first of its stages is each modality's own.
        power: p of the pooling, see `GeM`; 1 averages.
        non_local: attend among positions after the last two blocks of the third stage and the last three of the
            fourth, see `NonLocal`.
    """

    def __init__(
        self,
        method: str,
        height: int,
        width: int,
        backbone: str = "resnet50",
        power: float = 1.0,
        non_local: bool = False,
    ):
        super().__init__(method, height, width)
        self.backbone = TwoStream(backbone, cut=1)
        if non_local:
            for stage, blocks in ((2, 2), (3, 3)):
                self.backbone.follow(stage, blocks, NonLocal)
        self.pool = GeM(power)
        self.neck = BNNeck(self.backbone.channels)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by the feature behind the batch norm, L2-normalised: (B, C1), see `EmbeddingNet`."""
        return F.normalize(self.neck(self.pooled(image, modality)), dim=1)

    def pooled(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the feature before the batch norm, which metric losses read: (B, C1)."""
        return self.pool(self.features(image, modality))


class StripNet(FeatureNet):
    """A network whose embeddings are those of P parts, each L2-normalised, then concatenated.

    Attributes:
        parts: P.
    """

    parts: int

    def average(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Average embeddings of the same images, part by part: (B, P * C2) each, to (B, P * C2)."""
        return joined(torch.stack(list(embeddings)).sum(0).unflatten(1, (self.parts, -1)))


class PartNet(StripNet):
    """Two streams, shared layers and a part head (Section 3.1).

    Args:
        method, height, width: see `EmbeddingNet`.
        identities: L, classes it is trained on.
        backbone: name of a trunk, see `build_trunk`; the first three of its stages are each modality's own.
        parts, part_dim, part_norm, share_classifier: see `PartHead`.
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
    ):
        super().__init__(method, height, width)
        self.parts, self.backbone = parts, TwoStream(backbone, cut=3)
        self.build_branch()
        self.head = PartHead(self.backbone.channels, identities, parts, part_dim, part_norm, share_classifier)

    def build_branch(self) -> None:
        """Build what a subclass adds to the shared features, before the head is built."""

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images: each part L2-normalised, then concatenated (Section 4.2): (B, P * C2), see `EmbeddingNet`."""
        return self.embedding(self.features(image, modality))

    def embedding(self, features: Tensor) -> Tensor:
        """Compute embeddings (B, P * C2) from features (B, C1, h, w)."""
        parts, _ = self.head(features)
        return joined(parts)

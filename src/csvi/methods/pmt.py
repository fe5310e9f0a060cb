"""PMT: one vision transformer for both modalities, which sees grey visible images first (Lu et al., arXiv:2212.00226).

As its public code has it; docs/methods.md says where that departs from the publication.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F

from csvi.config import DataConfig, check_range
from csvi.data.batch import Batch
from csvi.data.channel_views import Blur, Jitter, caj_erase
from csvi.data.records import Modality
from csvi.data.views import Flip, Grayscale, OneOf, Views
from csvi.losses import batch_hard_triplet, discriminative_center, identity_loss, modality_shared_enhancement
from csvi.methods.method import Published
from csvi.methods.pretrained import PretrainedMethod, PretrainedSettings
from csvi.model.neck import BNNeck, Classifier
from csvi.model.net import FeatureNet
from csvi.model.timm_trunk import TimmBackbone
from csvi.model.two_stream import Modalities, Route, TwoStream
from csvi.model.vit import VisionTransformer, is_transformer, transformer_trunk

FILL = 0.485, 0.456, 0.406
"""Colour of what is erased, after normalisation, as in its public code."""


def pmt_views(data: DataConfig, grey_epochs: int = 6) -> Views:
    """Grey visible images in the first epochs, and infrared ones with another brightness and contrast or blurred."""
    flip, erase = Flip(data.flip), caj_erase(data.erase, fill=FILL)
    return {
        Modality.VISIBLE: ((flip, Grayscale(1, epochs=grey_epochs), erase),),
        Modality.INFRARED: ((flip, OneOf((Jitter(), Blur())), erase),),
    }


class PMTNet(FeatureNet):
    """A network that both modalities share, one feature an image and a batch norm behind it.

    Args:
        method, height, width: see `EmbeddingNet`; a transformer is made for images of this size.
        backbone: see `PMTSettings`.
    """

    def __init__(self, method: str, height: int, width: int, backbone: str = "vit_base"):
        super().__init__(method, height, width)
        trunk = transformer_trunk(backbone, height, width) if is_transformer(backbone) else backbone
        self.backbone = TwoStream(trunk, cut=0)
        self.neck = BNNeck(self.backbone.channels, weight_std=0)

    def forward(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Embed images by the feature behind the batch norm, L2-normalised: (B, D), see `EmbeddingNet`."""
        return F.normalize(self.neck(self.pooled(image, modality)), dim=1)

    def pooled(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the feature before the batch norm, (B, D): a transformer's class token, or the mean over a map."""
        feature = self.backbone(image, modality)
        return feature if feature.dim() == 2 else feature.mean((2, 3))

    def features(self, image: Tensor, modality: Modalities | Route) -> Tensor:
        """Compute the map that heatmaps show, (B, D, h, w): of a transformer the tokens of its patches."""
        if self.vit is None:
            return super().features(image, modality)
        return self.vit.feature_map(self.backbone.specific(image, modality))

    @property
    def vit(self) -> VisionTransformer | TimmBackbone | None:
        """The transformer, if it is one."""
        return cast("VisionTransformer | TimmBackbone | None", getattr(self.backbone.shared, "vit", None))


@dataclass
class PMTSettings(PretrainedSettings):
    """Settings of PMT."""

    name: str = "pmt"
    backbone: str = "vit_base"
    """vit_base (ViT-B/16), vit_small or vit_tiny, with patches every 12 pixels; a torchvision ResNet or mobilenet_v2;
    or timm:NAME, a network of timm, from csvi[timm]."""
    weights: str = "imagenet"
    """Initial weights of the backbone: imagenet (torchvision's download, of transformers for vit_base alone), none, or
    the path of a state dict with the names of timm or torchvision; published is jx_vit_base_p16_224-80ecf9dd.pth of
    timm's release v0.1-vitjx, of ImageNet-21k and then 1k, to judge by its name. Or a run that was trained on other
    people: everything but its classifiers is loaded. A run of a transformer must be of images of the same size."""
    grey_epochs: int = 6
    """Epochs of the first stage, in which visible images are grey and triplets lie within a modality."""
    margin: float = 0.1
    """Margin of the triplet loss."""
    center_weight: float = 0.5
    """Weight of the discriminative center loss (DCL), in the second stage."""
    enhancement_weight: float = 0.5
    """Weight of the modality-shared enhancement loss (MSEL), in the second stage."""

    def __post_init__(self) -> None:
        check_range(self, 0, math.inf, "grey_epochs", "margin", "center_weight", "enhancement_weight")


class PMT(PretrainedMethod):
    """One network for both modalities, whose losses bring these together once it has learned from grey images."""

    Settings = PMTSettings
    Net = PMTNet
    title = "PMT"
    paper = (
        "Lu et al., Learning Progressive Modality-Shared Transformers for Effective Visible-Infrared Person "
        "Re-identification, AAAI 2023"
    )
    published: ClassVar[Published | None] = Published(
        "README of PMT's public code", {"sysu": {"all-search single-shot": {"R1": 67.53, "mAP": 64.98}}}
    )
    view_settings = "flip", "erase"
    settings: PMTSettings
    net: PMTNet

    def __init__(self, settings: PMTSettings, identities: int, height: int, width: int):
        super().__init__(settings, identities, height, width)
        self.net = self.Net(settings.name, height, width, settings.backbone)
        self.classify = Classifier(self.net.backbone.channels, identities)
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Choose the losses of the first stage or the second."""
        self.grey = epoch < self.settings.grey_epochs

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The identity loss and a triplet loss; in the second stage also both losses that bring modalities together."""
        s, of = self.settings, (batch.identity, batch.modality)
        pooled = self.net.pooled(batch.image, batch.streams)
        identity = identity_loss(self.classify(self.net.neck(pooled)), *of)
        if self.grey:
            return {"identity": identity, "triplet": batch_hard_triplet(pooled, batch.identity, s.margin, of[1])}
        return {
            "identity": identity,
            "triplet": batch_hard_triplet(pooled, batch.identity, s.margin),
            "center": s.center_weight * discriminative_center(pooled, batch.identity),
            "enhancement": s.enhancement_weight * modality_shared_enhancement(pooled, *of),
        }

    def views(self, data: DataConfig) -> Views:
        """Those of PMT; they neither pad nor crop."""
        return pmt_views(data, self.settings.grey_epochs)

    def load_backbone(self, state: dict[str, Tensor]) -> None:
        """Fill the backbone; position embeddings are resized to the images."""
        backbone = self.net.backbone if self.net.vit is None else self.net.vit
        backbone.load_pretrained(state)

    def slow(self) -> Iterable[nn.Module]:
        """Of a transformer the patch embedding and the blocks, without its tokens and its last norm."""
        vit = self.net.vit
        return [vit.patch_embed, vit.blocks] if isinstance(vit, VisionTransformer) else super().slow()

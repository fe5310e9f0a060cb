"""The contract of a method: all that training, evaluation, search and export know of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from csvi.config import DataConfig, MethodSettings, TrainConfig
from csvi.data.batch import Batch
from csvi.data.views import Views, standard_views
from csvi.model.net import EmbeddingNet
from csvi.model.weights import load_trained, trained_weights

VIEW_SETTINGS = "flip", "pad", "erase", "grayscale"
"""Settings of `DataConfig` that say how images are augmented."""


@dataclass(frozen=True)
class Published:
    """Figures of a method's paper, in %; they are printed beside ours."""

    source: str
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """Layout → protocol → metric → value."""
    parameters: tuple[float, float] | None = None
    """Millions in training and in testing."""


class Method(nn.Module):
    """A network that is kept, what training adds to it, and the losses.

    A subclass names its `Settings` and its `Net`, builds `net` and whatever else it trains, and computes its losses in
    `forward`. Everything else has a default.

    Args:
        settings: an instance of `Settings`.
        identities: L, classes.
        height, width: of the images, in pixels.

    Attributes:
        net: what is kept for testing.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    """A dataclass with every setting of the method, its published value as default and the source beside it; a default
    that is another has a reason, and the published value as its `letter` (`csvi.config.setting`)."""
    Net: ClassVar[type[EmbeddingNet]] = EmbeddingNet
    """Class of `net`."""
    title: ClassVar[str] = ""
    """Name of the method in its paper."""
    paper: ClassVar[str] = ""
    """The publication."""
    view_settings: ClassVar[tuple[str, ...]] = VIEW_SETTINGS
    """Settings of `data` that `views` makes use of; where others are set, training says that they have no effect."""
    flip: ClassVar[bool] = False
    """Whether its published figures are of an image and its mirror image together, see `EmbeddingNet.average`."""
    needs_masks: ClassVar[bool] = False
    """Whether training needs person masks."""
    published: ClassVar[Published | None] = None
    net: EmbeddingNet

    def __init__(self, settings: Any, identities: int, height: int, width: int):
        super().__init__()
        self.settings, self.identities = settings, identities

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the weighted loss terms by name, () each; training sums and logs them.

        Args:
            batch: of a training set, prepared for the device, with masks if the method needs them; a loss of masks
                leaves out the images without one, see `Batch.has_mask`.
            step: number of the step, from 0.
        """
        raise NotImplementedError

    @classmethod
    def pretrained(cls, settings: Any) -> dict[str, Tensor] | None:
        """Fetch the initial weights that the settings ask for, or None; asked before anything else is done.

        By default those of a trained run, if there is a setting `weights` and it names one.

        Raises:
            CsviError: they are not to be found or not readable.
        """
        return trained_weights(getattr(settings, "weights", "") or "none")

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Load the weights that `pretrained` fetched, by default those of a run that was trained on other people.

        All is loaded whose name and shape fit, but for what has a place for each identity: classifiers of others.
        """
        with torch.device("meta"):
            other = type(self)(self.settings, self.identities + 1, self.net.height, self.net.width).state_dict()
        of_identities = {name for name, tensor in self.state_dict().items() if other[name].shape != tensor.shape}
        load_trained(self, state, of_identities, str(getattr(self.settings, "weights", "the run")))

    def views(self, data: DataConfig) -> Views:
        """Say how images of each modality are augmented, and how many views a batch holds of each image."""
        return standard_views(data)

    @classmethod
    def unused(cls, data: DataConfig) -> list[str]:
        """Name the settings that say how images are augmented, differ from their defaults, and have no effect."""
        others = (name for name in VIEW_SETTINGS if name not in cls.view_settings)
        return [name for name in others if getattr(data, name) != getattr(DataConfig, name)]

    @classmethod
    def tests_with_masks(cls, settings: Any) -> bool:
        """Whether the network takes person masks at test too, see `EmbeddingNet.takes_masks`."""
        return False

    def groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """Divide all parameters into groups, each with `params` and, if they differ, `lr` and `weight_decay`."""
        return [{"params": list(self.parameters())}]

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, from 0: called before its first step, and again where a run is resumed within it.

        What it changes and cannot compute again from the epoch must be in buffers, which are saved.
        """

    def advise(self, terms: Mapping[str, float], step: int) -> str | None:
        """Say what is wrong, and what helps, if the loss terms of a step show it; training asks every few steps."""
        return None

    def predict_masks(self, batch: Batch) -> Tensor | None:
        """Predict the probability of a person at each pixel, (B, 1, H, W), or None; identities need not be classes."""
        return None

    @property
    def predicts_masks(self) -> bool:
        """Whether the method predicts masks."""
        return type(self).predict_masks is not Method.predict_masks

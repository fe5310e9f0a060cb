"""What training may add to the network: the contract of an auxiliary."""

from typing import NamedTuple

from torch import Tensor, nn

from csvi.config import Config, LossConfig


class Features(NamedTuple):
    """What the network makes of a batch before it is cut into parts."""

    shared: Tensor
    """F_s, (B, C1, h, w)."""
    segmentation: Tensor | None = None
    """F_Seg of the segmentation sub-network, (B, C3, h, w), in a network that has one."""


class Auxiliary(nn.Module):
    """A branch on the features, in training only. A new one is a subclass and a line in `AUXILIARIES`.

    Args:
        channels: C1, channels of the shared features.
        identities: L, classes.
        config: all settings.
    """

    settings: tuple[str, ...] = ()
    """Beginnings of the names of the settings that it reads, of those that not every network does."""
    guided = False
    """Whether the network gets a segmentation sub-network, which is kept for testing."""

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__()

    def select(self, features: Features, batch: dict[str, Tensor]) -> Tensor:
        """What the network's own part module sees in training, (B, C1, h, w); in testing it sees F_s."""
        return features.shared

    def forward(self, features: Features, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """What its losses need, by names of its own: from features, labels (B,) and modality (B,)."""
        return {}

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """Its weighted loss terms by name, from what `forward` gave."""
        return {}

    def predict_masks(self, features: Features, identity: Tensor, modality: Tensor) -> Tensor | None:
        """Probability of person, (B, 1, h', w'), or None if it has no masks; identities need not be known classes."""
        return None

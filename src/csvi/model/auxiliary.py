"""What training may add to the network: the contract of an auxiliary."""

from torch import Tensor, nn

from csvi.config import Config, LossConfig


class Auxiliary(nn.Module):
    """A branch on the shared features, in training only. A new one is a subclass and a line in `AUXILIARIES`.

    Args:
        channels: C1, channels of the shared features.
        identities: L, classes.
        config: all settings.
    """

    def __init__(self, channels: int, identities: int, config: Config):
        super().__init__()

    def forward(self, features: Tensor, identity: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """What its losses need, by names of its own: from F_s (B, C1, h, w), labels (B,) and modality (B,)."""
        raise NotImplementedError

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], settings: LossConfig) -> dict[str, Tensor]:
        """Its weighted loss terms by name, from what `forward` gave."""
        raise NotImplementedError

    def predict_masks(self, features: Tensor, identity: Tensor, modality: Tensor) -> Tensor | None:
        """Probability of person, (B, 1, h', w'), or None if it has no masks; identities need not be known classes."""
        return None

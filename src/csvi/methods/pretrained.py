"""What methods have in common that begin with a trunk and weights of ImageNet."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from csvi.config import MethodSettings, TrainConfig, check_range
from csvi.methods.method import Method
from csvi.model.net import FeatureNet
from csvi.model.weights import NAMED, OF_NET, initial_weights
from csvi.paths import expanded


@dataclass
class PretrainedSettings(MethodSettings):
    """The trunk, and the weights that it begins with."""

    backbone: str = "resnet50"
    """A torchvision ResNet (resnet18, 34, 50, ...) or mobilenet_v2 (Eq. 1, 2)."""
    weights: str = "imagenet"
    """Initial weights of the backbone: imagenet (torchvision's download), packaged (mobilenet_v2, from csvi[demo]),
    none, or the path of a state dict (.pth or .safetensors); or a run that was trained on other people: everything but
    its classifiers is loaded."""


@dataclass
class StripSettings(PretrainedSettings):
    """What methods of horizontal strips have beside."""

    parts: int = 6
    """Horizontal strips; of `mtl` those of each of the two features that it embeds."""
    part_dim: int = 512
    """Length of a strip's embedding."""

    def __post_init__(self) -> None:
        check_range(self, 1, 100, "parts")
        check_range(self, 1, 100_000, "part_dim")


class PretrainedMethod(Method):
    """A method of a `FeatureNet`, whose backbone begins with pretrained weights and may learn at a rate of its own."""

    settings: PretrainedSettings
    net: FeatureNet

    @classmethod
    def pretrained(cls, settings: PretrainedSettings) -> dict[str, Tensor] | None:
        """Fetch the initial weights of the backbone, or all of a trained run."""
        if settings.weights not in NAMED and expanded(settings.weights).is_dir():
            return super().pretrained(settings)
        return initial_weights(settings.backbone, settings.weights)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill both streams and the shared layers; from a run all that fits."""
        if any(name.startswith(OF_NET) for name in state):
            super().load_pretrained(state)
        else:
            self.load_backbone(state)

    def load_backbone(self, state: dict[str, Tensor]) -> None:
        """Fill the backbone with the weights of a network of its kind; raises `CsviError` if they do not fit."""
        self.net.backbone.load_pretrained(state)

    def slow(self) -> Iterable[nn.Module]:
        """Name the parts that learn at `lr_pretrained` times the rate of the others, by default the backbone."""
        return [self.net.backbone]

    def groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """Divide parameters into the slow ones, if they are pretrained, and all the rest."""
        slow = [parameter for part in self.slow() for parameter in part.parameters()]
        numbers = {id(parameter) for parameter in slow}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in numbers]
        factor = 1.0 if self.settings.weights == "none" else train.lr_pretrained
        return [{"params": slow, "lr": train.lr * factor}, {"params": rest}]

"""Any network of timm as a backbone, where timm is installed."""

from collections.abc import Mapping

from torch import Tensor, nn

from csvi.errors import CsviError, in_one_line
from csvi.plugins import imported


class TimmBackbone(nn.Module):
    """A network of timm without its classifier, with random weights.

    Args:
        name: as `timm.list_models()` has it, such as `vit_small_patch16_224`.
        height, width: size of the images; a network that is not bound to one takes any.

    Attributes:
        channels: D.
        stride: 1, as it has no map of features.

    Raises:
        CsviError: timm is missing or has no such network, or it is not for images of this size.
    """

    stride = 1

    def __init__(self, name: str, height: int, width: int):
        super().__init__()
        timm = imported("timm", "timm", f"the backbone timm:{name}")
        if not timm.is_model(name):
            raise CsviError(f"timm {timm.__version__} has no network {name!r}: timm.list_models() names them")
        about = timm.get_pretrained_cfg(name)
        size = {"img_size": (height, width)} if about.fixed_input_size else {}
        try:
            self.network = timm.create_model(name, num_classes=0, **size)
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise CsviError(f"timm cannot build {name} for {height}x{width}: {in_one_line(error)}") from error
        self.channels: int = self.network.head_hidden_size
        classifiers = about.classifier or ()
        self.classifiers = tuple(f"{c}." for c in ([classifiers] if isinstance(classifiers, str) else classifiers))

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features of images (B, 3, H, W), normalised: (B, D)."""
        features: Tensor = self.network(image)
        return features

    def feature_map(self, image: Tensor) -> Tensor:
        """Refuse: networks of timm have their maps in many forms; raises `CsviError`."""
        raise CsviError("a network of timm has no map of features that csvi can show")

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Fill all layers from timm's state dict, without its classifier; raises `CsviError` if it does not fit."""
        load_all(self.network, state, self.classifiers)


def load_all(network: nn.Module, state: Mapping[str, Tensor], ignored: tuple[str, ...]) -> None:
    """Fill all of a network from a state dict; names that begin with one of `ignored` may be left over.

    Raises:
        CsviError: a tensor is missing, is of another shape or has no place; nothing has been filled then.
    """
    own = network.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in own or not name.startswith(ignored)}
    for name in [*own, *state]:
        found, place = (f"of shape {tuple(of[name].shape)}" if name in of else "missing" for of in (state, own))
        if found != place:
            raise CsviError(f"the initial weights do not fit the backbone: {name} is {found}, it should be {place}")
    network.load_state_dict(state)

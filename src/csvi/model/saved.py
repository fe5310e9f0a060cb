"""The network's files in a run folder.

config.json, model.safetensors    `VIReIDNet`, to use: what is shipped
auxiliary.safetensors             what training added, for figures of its masks; nothing else needs it
"""

import contextlib
import json
import logging
import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model

from csvi.config import Config
from csvi.errors import CsviError
from csvi.model.network import TrainingNetwork, VIReIDNet, build_network
from csvi.writing import put_in_place

log = logging.getLogger(__name__)


def save_network(network: TrainingNetwork, run: Path) -> None:
    """Write the network and its auxiliary into a run folder; when all files are complete each replaces the one before.

    Raises:
        CsviError: they cannot be written; the ones before are as they were.
    """
    partial = run / ".saving"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
        network.net.save_pretrained(partial)
        names = ["config.json", "model.safetensors"]
        if network.auxiliary is not None:
            names.append("auxiliary.safetensors")
            save_model(network.auxiliary, str(partial / names[-1]))
        for name in names[1:]:  # which safetensors lets nobody but their owner read
            with contextlib.suppress(OSError):  # some file systems know no modes
                shutil.copymode(partial / names[0], partial / name)
        for name in names:
            put_in_place(partial / name, run / name)
    except (OSError, SafetensorError) as error:
        raise CsviError(f"cannot write the network to {run}: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_net(run: str | Path) -> VIReIDNet:
    """The network of a run folder or from the Hub, on the CPU, ready to embed images.

    Args:
        run: the folder; or `owner/name` of the Hub, or `owner/name@revision` for one commit, tag or branch of it.

    Raises:
        CsviError: there is none, or its files do not fit each other.
    """
    folder = Path(run)
    if not folder.is_dir():
        folder = _downloaded(str(run))
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CsviError(f"{run} holds no trained model (model.safetensors): has its training finished an epoch?")
    try:
        with torch.device("meta"):  # whatever sizes config.json names, memory is taken for what there is alone
            net = VIReIDNet(**json.loads((folder / "config.json").read_text()))
        net.to_empty(device="cpu").load_state_dict(load_file(file))
        return net.eval()
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CsviError(f"config.json and model.safetensors of {run} are no network: {reason}") from error


def _downloaded(model: str) -> Path:
    """Both files of one commit, which the log names; nothing else is asked for, least of all pickled weights."""
    name, _, revision = model.partition("@")
    try:
        folder = snapshot_download(name, revision=revision or None, allow_patterns=["config.json", "model.safetensors"])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CsviError(f"{model} is neither a run folder nor a model of the Hub: {reason}") from error
    log.info("%s is commit %s", model, Path(folder).name)
    return Path(folder)


def has_auxiliary(run: Path) -> bool:
    """Whether the run folder still holds what training added; a model that was passed on need not."""
    return (run / "auxiliary.safetensors").is_file()


def load_training_network(run: Path, config: Config) -> TrainingNetwork:
    """The network of a run folder together with its auxiliary, ready to embed images and to predict masks.

    Raises:
        CsviError: one of them is missing, or does not fit the configuration.
    """
    net = load_net(run)
    network = build_network(config, net.identities)
    network.net = net
    if network.auxiliary is not None:
        file = run / "auxiliary.safetensors"
        if not file.is_file():
            raise CsviError(f"{file} is missing: it holds the auxiliary that was trained with the model")
        try:
            load_model(network.auxiliary, file)
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CsviError(f"{file} is not the auxiliary of the settings in {run}: {reason}") from error
    return network.eval()

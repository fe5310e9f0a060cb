"""The network's files in a run folder.

config.json, model.safetensors    `VIReIDNet`, to use: what is shipped
auxiliary.safetensors             what training added, for figures of its masks; nothing else needs it
"""

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from csvi.config import Config
from csvi.errors import CsviError
from csvi.model.network import TrainingNetwork, VIReIDNet, build_network
from csvi.writing import put_in_place


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
        for name in names:
            put_in_place(partial / name, run / name)
    except (OSError, SafetensorError) as error:
        raise CsviError(f"cannot write the network to {run}: {' '.join(str(error).split())}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_net(run: str | Path) -> VIReIDNet:
    """The network of a run folder or of a Hub id, on the CPU, ready to embed images.

    Raises:
        CsviError: there is none, or its files do not fit each other.
    """
    folder = Path(run)
    if folder.is_dir() and not (folder / "model.safetensors").is_file():
        raise CsviError(f"{folder} holds no trained model (model.safetensors): has its training finished an epoch?")
    try:
        if not folder.is_dir():
            return VIReIDNet.from_pretrained(str(run), strict=True).eval()
        net = VIReIDNet(**json.loads((folder / "config.json").read_text()))
        load_model(net, folder / "model.safetensors")
        return net.eval()
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        if folder.is_dir():
            raise CsviError(f"config.json and model.safetensors of {folder} are no network: {reason}") from error
        raise CsviError(f"{run} is neither a run folder nor a model of the Hub: {reason}") from error


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

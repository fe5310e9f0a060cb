"""`last.ckpt`: all that is needed to go on with a run as if it had never stopped."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from csvi.errors import CsviError
from csvi.train.run_folder import CHECKPOINT, DAMAGED, PREVIOUS
from csvi.writing import replacing

log = logging.getLogger(__name__)


def save_checkpoint(
    fabric: Fabric, run: Path, network: nn.Module, optimizer: Optimizer, epoch: int, step: int, identities: list[int]
) -> None:
    """Write RUN/last.ckpt; the one before is kept as RUN/previous.ckpt, and at every instant one of them is whole.

    Args:
        epoch, step: of what comes next; batches, augmentation, learning rate and all random numbers of a step follow
            from them and the seed.
        identities: in the order of their labels.

    Raises:
        CsviError: it cannot be written; the checkpoints are as they were.
    """
    if not fabric.is_global_zero:
        return
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": fabric.strategy.precision.state_dict(),  # of float16's losses
        "epoch": epoch,
        "step": step,
        "identities": identities,
    }
    with replacing(run / CHECKPOINT, keep=run / PREVIOUS) as partial:
        try:
            torch.save(state, partial)  # not fabric.save: it goes through the folder of temporary files
        except RuntimeError as error:  # of what writing failed in torch, which does not say why
            raise OSError(f"no more than {partial.stat().st_size} bytes can be written, is the disk full?") from error


def load_checkpoint(
    fabric: Fabric, files: Sequence[Path], network: nn.Module, optimizer: Optimizer, identities: list[int]
) -> tuple[int, int]:
    """Restore network and optimiser; returns the epoch and the step to go on with.

    Args:
        files: of which the first that is readable counts; one before it is renamed to damaged.ckpt.

    Raises:
        CsviError: none is readable, or it is of another network or other identities.
    """
    file, saved = _first_readable(files, fabric.is_global_zero)
    if saved["identities"] != identities:
        raise CsviError(f"the checkpoint {file} was trained on other identities than these data have")
    try:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        if saved.get("scaler"):
            fabric.strategy.precision.load_state_dict(saved["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CsviError(f"the checkpoint {file} does not fit the settings of this run: {reason}") from error
    log.info("going on at epoch %d, step %d, from %s", saved["epoch"] + 1, saved["step"] + 1, file)
    return saved["epoch"], saved["step"]


def _first_readable(files: Sequence[Path], is_writer: bool) -> tuple[Path, dict[str, Any]]:
    for number, file in enumerate(files):
        try:
            return file, _read(file)
        except CsviError as error:
            if number == len(files) - 1:
                raise
            log.warning("%s: going on from %s, the one before", error, files[number + 1])
            if is_writer:  # out of the way, so that it never takes the place of the one that is whole
                file.replace(file.with_name(DAMAGED))
    raise ValueError("no checkpoint was given")


def _read(file: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as parts:
            if parts.testzip() is not None:  # torch does not look at the checksums
                raise ValueError("a checksum is wrong")
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if not {"network", "optimizer", "epoch", "step", "identities"} <= saved.keys():
            raise ValueError("something is missing")
    except Exception as error:  # a file that is something else fails in every way there is
        raise CsviError(f"{file} is damaged or no checkpoint of csvi") from error
    return dict(saved)

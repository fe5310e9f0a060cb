"""`last.ckpt`: all that is needed to go on with a run as if it had never stopped."""

import os
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from csvi.errors import CsviError


def save_checkpoint(
    fabric: Fabric, file: Path, network: nn.Module, optimizer: Optimizer, epoch: int, step: int, identities: list[int]
) -> None:
    """Write a checkpoint; until it is complete and on disk, the one before stays.

    Args:
        epoch, step: of what comes next; batches, augmentation and learning rate follow from them and the seed.
        identities: in the order of their labels.
    """
    partial = file.with_suffix(".partial")
    state = {"network": network, "optimizer": optimizer, "epoch": epoch, "step": step, "identities": identities}
    fabric.save(partial, state)
    if fabric.is_global_zero:
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)


def load_checkpoint(
    fabric: Fabric, file: Path, network: nn.Module, optimizer: Optimizer, identities: list[int]
) -> tuple[int, int]:
    """Restore network and optimiser; returns the epoch and the step to go on with.

    Raises:
        CsviError: unreadable, or of another network or other identities.
    """
    try:
        saved = fabric.load(file, weights_only=True)
        epoch, step, labels = saved["epoch"], saved["step"], saved["identities"]
    except Exception as error:  # a file that is something else fails in every way there is
        raise CsviError(f"{file} is damaged or no checkpoint of csvi") from error
    if labels != identities:
        raise CsviError(f"the checkpoint {file} was trained on other identities than these data have")
    try:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CsviError(f"the checkpoint {file} does not fit the settings of this run: {reason}") from error
    return epoch, step

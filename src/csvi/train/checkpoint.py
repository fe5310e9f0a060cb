"""`last.ckpt`: all that is needed to go on with a run as if it had never stopped."""

import dataclasses
import hashlib
import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from csvi.config import Config, flatten
from csvi.data import ImageRecord
from csvi.errors import CsviError
from csvi.train.run_folder import CHECKPOINT, DAMAGED, PREVIOUS, check_same_settings
from csvi.writing import replacing

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is, and what makes it this one: all that a checkpoint holds beside network and optimiser.

    Batches, augmentation, learning rate and all random numbers of a step follow from settings, images and position.
    """

    settings: dict[str, object]
    """By name, such as `data.height`."""
    identities: list[int]
    """In the order of their labels."""
    images: str
    """Digest of their paths, identities and modalities, in their order."""
    epoch: int = 0
    step: int = 0
    """Of what comes next; with `step` at the end of an epoch that is its validation."""
    left_out: list[bool] = dataclasses.field(default_factory=list)
    """Which of the last steps were, as they were not finite."""

    @classmethod
    def start(cls, config: Config, records: Iterable[ImageRecord], identities: list[int]) -> "Progress":
        """Of a new run on these images."""
        lines = [f"{record.path}\t{record.identity}\t{int(record.modality)}\n" for record in records]
        digest = hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
        return cls(flatten(config), identities, digest)


def save_checkpoint(fabric: Fabric, run: Path, network: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write RUN/last.ckpt; the one before is kept as RUN/previous.ckpt, and at every instant one of them is whole.

    Raises:
        CsviError: it cannot be written; the checkpoints are as they were.
    """
    if not fabric.is_global_zero:
        return
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": fabric.strategy.precision.state_dict(),  # of float16's losses
        "progress": dataclasses.asdict(progress),
    }
    with replacing(run / CHECKPOINT, keep=run / PREVIOUS) as partial:
        try:
            torch.save(state, partial)  # not fabric.save: it goes through the folder of temporary files
        except RuntimeError as error:  # of what writing failed in torch, which does not say why
            raise OSError(f"no more than {partial.stat().st_size} bytes can be written, is the disk full?") from error


def load_checkpoint(
    fabric: Fabric, files: Sequence[Path], network: nn.Module, optimizer: Optimizer, start: Progress, config: Config
) -> tuple[Progress, Path]:
    """Restore network and optimiser; returns how far they are, and the file that says so.

    Args:
        files: of which the first that is not damaged counts; one before it is renamed to damaged.ckpt.
        start: of the run that is to go on.
        config: its settings.

    Raises:
        CsviError: none is readable, or it is of another network, other settings or other images.
    """
    file, saved = _first_whole(files)
    fabric.barrier()  # until all processes have found it
    for damaged in files[: files.index(file)] if fabric.is_global_zero else []:
        damaged.replace(damaged.with_name(DAMAGED))  # so that it never takes the place of the whole one
    progress = Progress(**saved["progress"])
    check_same_settings(config, progress.settings, file)
    if progress.identities != start.identities:
        raise CsviError(f"the checkpoint {file} was trained on other identities than these data have")
    if progress.images != start.images:
        raise CsviError(f"the checkpoint {file} was trained on other images than these data have: start a new run")
    if (progress.epoch, progress.step) > (config.train.epochs, 0):
        raise CsviError(
            f"the checkpoint {file} is of epoch {progress.epoch + (progress.step > 0)} already: "
            f"--train.epochs {config.train.epochs} is less"
        )
    try:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        if saved.get("scaler"):
            fabric.strategy.precision.load_state_dict(saved["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CsviError(f"the checkpoint {file} does not fit the settings of this run: {reason}") from error
    log.info("going on at epoch %d, step %d, from %s", progress.epoch + 1, progress.step + 1, file)
    progress.settings = start.settings
    return progress, file


def epochs_done(run: Path) -> int | None:
    """Epochs of which RUN/last.ckpt says that they are done, validation included; None without a checkpoint.

    Raises:
        CsviError: it is no checkpoint.
    """
    file = run / CHECKPOINT
    return int(_read(file, whole=False)["progress"]["epoch"]) if file.exists() else None


class DamagedError(CsviError):
    """A file that is not as it was written."""


def _first_whole(files: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    for number, file in enumerate(files, 1):
        try:
            return file, _read(file)
        except DamagedError as error:
            if number == len(files):
                raise
            log.warning("%s: going on from %s, the one before", error, files[number])
    raise ValueError("no checkpoint was given")


def _read(file: Path, whole: bool = True) -> dict[str, Any]:
    """What a checkpoint holds; with `whole` every byte of it is looked at."""
    try:
        if whole:
            with zipfile.ZipFile(file) as parts:
                if parts.testzip() is not None:  # torch does not look at the checksums
                    raise zipfile.BadZipFile("a checksum is wrong")
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=not whole)
    except OSError as error:
        raise CsviError(f"cannot read {file}: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a file that is something else fails in every way there is
        raise DamagedError(f"{file} is damaged or no checkpoint of csvi") from error
    progress = saved.get("progress") if isinstance(saved, dict) else None
    if not isinstance(progress, dict) or progress.keys() != Progress.__dataclass_fields__.keys():
        raise CsviError(f"{file} is no checkpoint of this version of csvi")
    return saved

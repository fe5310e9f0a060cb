"""`last.ckpt`: all that is needed to resume a run as if it had never stopped."""

import dataclasses
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from csvi.config import Config, flatten
from csvi.data.training_set import TrainingSet
from csvi.errors import CsviError, in_one_line
from csvi.model.weights import MODEL
from csvi.paths import expanded
from csvi.runs.folder import CHECKPOINT, DAMAGED, METRICS, PREVIOUS, check_same_settings
from csvi.writing import replacing, save_torch

log = logging.getLogger(__name__)


@dataclass
class Position:
    """The progress of a run, and what makes it this one: all that a checkpoint holds beside method and optimiser.

    Batches, augmentation, learning rate and all random numbers of a step follow from settings, images and position.
    """

    settings: dict[str, object]
    """Settings by name, such as `data.height`."""
    identities: list[int]
    """Identity of each class, in the order of the classes."""
    images: str
    """Digest of the paths, identities and modalities of the images, in their order."""
    epoch: int = 0
    step: int = 0
    """Next step of the epoch, from 0; equal to the number of steps when only the validation is left."""
    skipped: list[bool] = dataclasses.field(default_factory=list)
    """Which of the last steps were skipped, as they were not finite."""

    @classmethod
    def start(cls, config: Config, training_set: TrainingSet) -> "Position":
        """The beginning of a new run."""
        return cls(flatten(config), training_set.identities, training_set.digest)


def checkpoints_to_resume(run: Path, resume: str | None) -> list[Path]:
    """List the checkpoints to resume from, the newest first; none for a new run.

    Args:
        run: folder of the run.
        resume: `auto` for the checkpoints in the folder, if a step was done there; otherwise the path of one; None for
            none.

    Raises:
        CsviError: there is no such checkpoint, it is something else, or the folder holds a run that would be lost.
    """
    ours = [run / name for name in (CHECKPOINT, PREVIOUS) if (run / name).exists()]
    if _is_at_its_start(run, ours):
        ours = []
    chosen = ours if resume == "auto" else [expanded(resume)] if resume else []
    if not all(file.is_file() for file in chosen):
        raise CsviError(f"no checkpoint {chosen[0]}: --resume takes auto or the path of one")
    if chosen and resume != "auto" and not zipfile.is_zipfile(chosen[0]):  # said before its settings are looked at
        raise CsviError(f"{chosen[0]} is damaged or no checkpoint of csvi: --resume takes auto or the path of one")
    resumes = bool(chosen) and chosen[0].parent.resolve() == run.resolve()
    if not resumes and (ours or (run / MODEL).exists()):
        what = "resume it by --resume auto, or name another" if ours else "it has no checkpoint to resume: name another"
        raise CsviError(f"{run} holds a run already: {what} with --run")
    return chosen


def _is_at_its_start(run: Path, checkpoints: Sequence[Path]) -> bool:
    """Whether no step of a run is saved or logged, as where its first one failed: nothing is lost if it begins anew."""
    metrics = run / METRICS
    if (run / MODEL).exists() or (metrics.exists() and metrics.stat().st_size > 0):
        return False
    try:
        positions = [_read(file, whole=False)["position"] for file in checkpoints]
    except CsviError:  # what cannot be read may be of any step
        return False
    return all(position["epoch"] == position["step"] == 0 for position in positions)


def save_checkpoint(
    fabric: Fabric,
    run: Path,
    method: nn.Module,
    optimizer: Optimizer,
    position: Position,
    averaged: nn.Module | None = None,
) -> None:
    """Write RUN/last.ckpt; the one before is kept as RUN/previous.ckpt, and at every instant one of them is whole.

    `averaged` holds the moving average of the method, where there is one.
    """
    if not fabric.is_global_zero:
        return
    state = {
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": fabric.strategy.precision.state_dict(),  # of float16's losses
        "position": dataclasses.asdict(position),
    }
    if averaged is not None:
        state["averaged"] = averaged.state_dict()
    with replacing(run / CHECKPOINT, keep=run / PREVIOUS, alone=True) as partial:
        save_torch(state, partial)


def load_checkpoint(
    fabric: Fabric,
    files: Sequence[Path],
    method: nn.Module,
    optimizer: Optimizer,
    start: Position,
    config: Config,
    averaged: nn.Module | None = None,
) -> tuple[Position, Path]:
    """Restore method and optimiser; returns how far they are, and the file that says so.

    Args:
        files: the first undamaged one is used; damaged ones before it are renamed to damaged.ckpt.
        start: position of the run that is resumed, at its start.
        config: its settings.
        averaged: holds the moving average of the method, which is restored too.

    Raises:
        CsviError: none is readable, or it is of another network, other settings or other images.
    """
    file, saved = _first_whole(files)
    fabric.barrier()  # until all processes have found it
    for damaged in files[: files.index(file)] if fabric.is_global_zero else []:
        damaged.replace(damaged.with_name(DAMAGED))  # so that it never takes the place of the whole one
    position = Position(**saved["position"])
    check_resumable(config, position.settings, file)
    if position.identities != start.identities:
        raise CsviError(f"the checkpoint {file} was trained on other identities than these data have")
    if position.images != start.images:
        raise CsviError(f"the checkpoint {file} was trained on other images than these data have: start a new run")
    if (position.epoch, position.step) > (config.train.epochs, 0):
        raise CsviError(
            f"the checkpoint {file} is of epoch {position.epoch + (position.step > 0)} already: "
            f"--train.epochs {config.train.epochs} is less"
        )
    try:
        method.load_state_dict(saved["method"])
        optimizer.load_state_dict(saved["optimizer"])
        if averaged is not None:
            averaged.load_state_dict(saved["averaged"])
        if saved.get("scaler"):
            fabric.strategy.precision.load_state_dict(saved["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CsviError(f"the checkpoint {file} does not fit the settings of this run: {in_one_line(error)}") from error
    log.info("resuming at epoch %d, step %d, from %s", position.epoch + 1, position.step + 1, file)
    before, now = (settings.get("data.masks") or "ROOT/masks" for settings in (position.settings, start.settings))
    if before != now and position.epoch < config.train.epochs:
        log.warning("person masks are those in %s from here on, and were those in %s", now, before)
    position.settings = start.settings
    return position, file


def check_resumable(config: Config, theirs: Mapping[str, object], run: Path) -> None:
    """Refuse to resume under other settings, see `check_same_settings`.

    The number of processes may change where `train.global_identities` says what they draw together: batches, their
    augmentation and steps are then the same.

    Raises:
        CsviError: a setting that shapes batches or losses has changed.
    """
    processes = {"devices": config.devices, "nodes": config.nodes}
    if config.train.global_identities:
        theirs = {**theirs, **processes}
    elif changed := [f"{name} was {theirs[name]}" for name in processes if theirs.get(name, 1) != processes[name]]:
        raise CsviError(
            f"cannot resume {run} on other processes ({', '.join(changed)}), whose batch would be another: only runs "
            "with --train.global_identities have the same batch on any number of them"
        )
    check_same_settings(config, theirs, run)


def settings_of(files: Sequence[Path]) -> dict[str, object]:
    """Read the settings of a run, by name such as `data.height`, from the first undamaged one of its checkpoints."""
    settings: dict[str, object] = _first_whole(files)[1]["position"]["settings"]
    return settings


def epochs_done(run: Path) -> int | None:
    """Read from RUN/last.ckpt how many epochs are done, validation included; None without a checkpoint."""
    file = run / CHECKPOINT
    return int(_read(file, whole=False)["position"]["epoch"]) if file.exists() else None


class DamagedError(CsviError):
    """A file that is not as it was written."""


def _first_whole(files: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    file, *older = files
    try:
        return file, _read(file)
    except DamagedError as error:
        if not older:
            raise
        log.warning("%s: resuming from %s, the one before", error, older[0])
    return _first_whole(older)


def _read(file: Path, whole: bool = True) -> dict[str, Any]:
    """Read what a checkpoint holds; with `whole` every byte of it is checked."""
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
    position = saved.get("position") if isinstance(saved, dict) else None
    if not isinstance(position, dict) or position.keys() != Position.__dataclass_fields__.keys():
        raise CsviError(f"{file} is no checkpoint of this version of csvi")
    return saved

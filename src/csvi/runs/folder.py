"""The folder of a run: who may write to it, and which checkpoints it can be resumed from."""

import dataclasses
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from csvi import lock
from csvi.config import RANGES, Config, flatten, varying
from csvi.errors import CsviError
from csvi.paths import expanded

CHECKPOINT, PREVIOUS, DAMAGED = "last.ckpt", "previous.ckpt", "damaged.ckpt"


def checkpoints_to_resume(run: Path, resume: str | None) -> list[Path]:
    """List the checkpoints to resume from, the newest first; none for a new run.

    Args:
        run: folder of the run.
        resume: `auto` for the checkpoints in the folder, if there are any; otherwise the path of one; None for none.

    Raises:
        CsviError: there is no such checkpoint, or the folder holds a run that would be lost.
    """
    ours = [run / name for name in (CHECKPOINT, PREVIOUS) if (run / name).exists()]
    chosen = ours if resume == "auto" else [expanded(resume)] if resume else []
    if not all(file.is_file() for file in chosen):
        raise CsviError(f"no checkpoint {chosen[0]}: --resume takes auto or the path of one")
    resumes = bool(chosen) and chosen[0].parent.resolve() == run.resolve()
    if not resumes and (ours or (run / "model.safetensors").exists()):
        what = "resume it by --resume auto, or name another" if ours else "it has no checkpoint to resume: name another"
        raise CsviError(f"{run} holds a run already: {what} with --run")
    return chosen


def check_same_settings(config: Config, theirs: Mapping[str, object], run: Path) -> None:
    """Refuse to resume: raises if a setting that shapes batches or losses has changed.

    `theirs` are the settings of the run, by name such as `data.height`; `run` is its folder or checkpoint, for errors.
    """
    ours = flatten(with_ranges_of(config, theirs))
    method = theirs.get("method.name", config.method.name)
    if method != config.method.name:
        raise CsviError(f"{run} was trained with the method {method}, not with {config.method.name}: start a new run")
    if unknown := sorted(theirs.keys() - ours.keys()):
        raise CsviError(f"{run} is of another version of csvi, which has {unknown[0]}: start a new run")
    theirs = flatten(Config(type(config.method)())) | dict(theirs)
    may_change = varying(config, "machine")
    if "cosine" not in config.train.schedule:  # which depends on where it ends
        may_change |= varying(config, "length")
    changed = [f"{name} was {theirs[name]}" for name in ours if name not in may_change and ours[name] != theirs[name]]
    if changed:
        raise CsviError(f"cannot resume {run} under other settings ({'; '.join(changed)}): start a new run")


def with_ranges_of(config: Config, theirs: Mapping[str, object]) -> Config:
    """Copy settings with the ranges of a run (see `csvi.data.depth`) where ours are `auto`: as it has measured them."""
    measured: dict[str, Any] = {r: theirs.get(f"data.{r}", "auto") for r in RANGES if getattr(config.data, r) == "auto"}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **measured))


def locked(run: Path) -> AbstractContextManager[None]:
    """Make the folder and keep other trainings out of it, see `csvi.lock.locked`.

    Raises:
        CsviError: the folder cannot be written, or another process trains there.
    """
    cannot = f"cannot write the run to {run}"
    try:
        os.fspath(run).encode()  # TensorBoard writes to no other names
    except ValueError as error:
        raise CsviError(f"{cannot}: {error}") from error
    return lock.locked(run, cannot, f"{run} is being trained", "name another folder with --run")

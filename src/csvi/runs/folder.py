"""The folder of a run: who may write to it, and under which settings it can be resumed."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csvi import lock
from csvi.config import RANGES, Config, flatten, varying
from csvi.data.files import is_of_system
from csvi.errors import CsviError
from csvi.paths import as_argument, expanded

CHECKPOINT, PREVIOUS, DAMAGED = "last.ckpt", "previous.ckpt", "damaged.ckpt"
METRICS, SKIPPED, WITHOUT_MASK = "metrics.jsonl", "skipped.json", "without-mask.json"
OF_A_RUN = {"config.yaml", "model.safetensors", CHECKPOINT, PREVIOUS, DAMAGED, SKIPPED, WITHOUT_MASK}
"""Files that only runs have: one of them is in the folder of every run that has begun."""
LOGS = (".log", ".out", ".err", ".txt")
"""How names end of files that a shell or SLURM may have begun in the folder of a new run."""


def check_room(run: Path) -> None:
    """Refuse to mix a new run with other files: raises if the folder holds something else, such as a dataset."""
    there = sorted(file.name for file in run.iterdir() if not is_of_system(file.name)) if run.is_dir() else []
    if OF_A_RUN & {*there}:
        return
    if other := [name for name in there if not name.endswith(LOGS)]:
        raise CsviError(f"{run} holds {other[0]}, which no run has: name an empty or a new folder with --run")


def check_same_settings(config: Config, theirs: Mapping[str, object], run: Path) -> None:
    """Refuse to resume: raises if a setting that shapes batches or losses has changed.

    `theirs` are the settings of the run, by name such as `data.height`; `run` is its folder or checkpoint, for errors.
    """
    ours = flatten(with_ranges_of(config, theirs))
    method = theirs.get("method.name", config.method.name)
    file = (run if run.is_dir() else run.parent) / "config.yaml"
    new = "start a new run" + (f", or give its settings by --config {as_argument(file)}" if file.is_file() else "")
    if method != config.method.name:
        raise CsviError(f"{run} was trained with the method {method}, not with {config.method.name}: {new}")
    if unknown := sorted(theirs.keys() - ours.keys()):
        raise CsviError(f"{run} is of another version of csvi, which has {unknown[0]}: start a new run")
    theirs = flatten(Config(type(config.method)())) | dict(theirs)
    may_change = varying(config, "machine")
    if "cosine" not in config.train.schedule:  # which depends on where it ends
        may_change |= varying(config, "length")
    changed = [f"{name} was {theirs[name]}" for name in ours if name not in may_change and ours[name] != theirs[name]]
    if changed:
        root = str(theirs["data.root"])
        if expanded(root).absolute() != expanded(config.data.root).absolute():  # which alone it may be resumed with
            changed.append(f"data.root was {root}")
        weights = f"--method.weights {as_argument(run)} begins a new run with its weights"
        raise CsviError(f"cannot resume {run} under other settings ({'; '.join(changed)}): {new}; {weights}")


def with_ranges_of(config: Config, theirs: Mapping[str, object]) -> Config:
    """Copy settings with the ranges of a run (see `csvi.data.depth`) where ours are `auto`: as it has measured them."""
    measured: dict[str, Any] = {r: theirs.get(f"data.{r}", "auto") for r in RANGES if getattr(config.data, r) == "auto"}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **measured))


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Make the folder and keep other trainings out of it, see `csvi.lock.locked`; where nothing is left, remove it.

    Raises:
        CsviError: the folder cannot be written, or another process trains there.
    """
    cannot, new = f"cannot write the run to {run}", not run.exists()
    try:
        os.fspath(run).encode()  # TensorBoard writes to no other names
    except ValueError as error:
        raise CsviError(f"{cannot}: {error}") from error
    with lock.locked(run, cannot, f"{run} is being trained", "name another folder with --run"):
        try:
            yield
        finally:
            if new and [file.name for file in run.iterdir()] == [lock.FILE]:
                (run / lock.FILE).unlink()
                run.rmdir()

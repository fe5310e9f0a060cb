"""Files that are whole at every instant: a kill, a full disk or a power cut leaves the one before, or the new one."""

import contextlib
import errno
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from csvi.errors import CsviError

NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""Errors of file systems that cannot sync a folder."""
ABANDONED = 3600
"""Seconds without a change, after which an unfinished file is that of a process that was killed."""


@contextlib.contextmanager
def replacing(file: Path, keep: Path | None = None, alone: bool = False) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `file` when the block ends and is removed when the block fails.

    The path is of this call alone, so that several processes may write the same file: the last one's stays. It lies
    beside the file and is hidden, `.NAME.….partial`; those that killed processes have left go an hour later, or at once
    if this process is `alone` in writing the file.

    Its folder is made, but for a process that is alone. The file before, if there is one, is renamed to `keep`. Raises
    `CsviError` if it cannot be written; it then stays.
    """
    try:
        with placing(file, keep, alone) as partial:
            yield partial
    except OSError as error:
        raise CsviError(f"cannot write {file}: {error.strerror or error}") from error


@contextlib.contextmanager
def placing(file: Path, keep: Path | None = None, alone: bool = False, sync: bool = True) -> Iterator[Path]:
    """Do what `replacing` does, but raise an `OSError` as it is.

    Without `sync`, for files of which there are many and each can be made again, nothing waits for the disk, and what
    killed processes have left stays: a power cut may leave a file of length 0, see `written_at`.
    """
    if not alone:  # the folder of such a process is there, or it has gone with its lock
        file.parent.mkdir(parents=True, exist_ok=True)
    begin = f".{file.name[:40]}."  # names are at most 255 bytes long
    if sync:
        _remove_abandoned(file.parent, begin, 0 if alone else ABANDONED)
    partial = file.with_name(f"{begin}{uuid4().hex}.partial")
    try:
        yield partial
        if sync:
            put_in_place(partial, file, keep)
        else:
            partial.replace(file)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def save_torch(state: object, partial: Path) -> None:
    """Write what `torch.load` reads, to a path of `replacing`; raises OSError if that fails."""
    import torch

    try:
        torch.save(state, partial)  # not fabric.save: it goes through the folder of temporary files
    except RuntimeError as error:  # of what writing failed in torch, which does not say why
        raise OSError(f"no more than {partial.stat().st_size} bytes can be written, is the disk full?") from error


def written_at(file: Path) -> float | None:
    """Time when a file was written, in seconds; None if it is not there, or of length 0 as after a power cut."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime if stat.st_size else None


def _remove_abandoned(folder: Path, begin: str, seconds: float) -> None:
    for partial in folder.glob(f"{glob.escape(begin)}*.partial"):
        with contextlib.suppress(OSError):  # gone since, or not ours to remove
            if time.time() - partial.stat().st_mtime >= seconds:
                partial.unlink()


def put_in_place(partial: Path, file: Path, keep: Path | None = None) -> None:
    """Rename a complete file when it is on disk: never the name before the bytes."""
    _sync(partial, os.O_RDWR)
    if keep is not None and file.exists():
        file.replace(keep)
    partial.replace(file)
    try:
        _sync(file.parent, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NO_FOLDERS:
            raise


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

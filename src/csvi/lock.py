"""Folders in which one process at a time works."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from csvi.errors import CsviError

log = logging.getLogger(__name__)

FILE = ".lock"


@contextlib.contextmanager
def locked(folder: Path, cannot: str, busy: str, way: str) -> Iterator[None]:
    """Make a folder and keep other processes out of it; however the process ends, the system frees the lock.

    Where the file system cannot lock, the log says so and nobody is kept out.

    Args:
        folder: is given a `FILE`, which names the process.
        cannot: how the error begins if the folder cannot be written: "cannot write X".
        busy: how it begins if another process is there: "X is being written".
        way: what else can be done then than to wait: "name another".

    Raises:
        CsviError: the folder cannot be written, or another process has locked it.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((folder / FILE).open("ab+", buffering=0))
            if _lock(file, folder, busy, way):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except (OSError, ValueError) as error:  # a name that is no text is a ValueError
            raise CsviError(f"{cannot}: {getattr(error, 'strerror', error)}") from error
        yield


def _lock(file: FileIO, folder: Path, busy: str, way: str) -> bool:
    """Whether it is locked now; raises `CsviError` if another process has done so."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which loader processes would inherit
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        other = file.read().decode(errors="replace").strip() or "another process"
        raise CsviError(f"{busy} by {other}: wait for it or stop it, or {way}") from error
    except OSError as error:
        log.warning("cannot lock %s (%s): let no other process write there", folder, error)
        return False
    return True

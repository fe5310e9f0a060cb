"""Files that are whole at every instant: a kill, a full disk or a power cut leaves the one before, or the new one."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from csvi.errors import CsviError

NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""Errors of file systems that cannot sync a folder."""


@contextlib.contextmanager
def replacing(file: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `file` when the block ends and is removed when the block fails.

    The file before, if there is one, is renamed to `keep`. Raises `CsviError` if it cannot be written; it then stays.
    """
    partial = file.with_name(f".{file.name}.partial")  # always the same, so that what a kill leaves is written over
    try:
        yield partial
        put_in_place(partial, file, keep)
    except OSError as error:
        raise CsviError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def put_in_place(partial: Path, file: Path, keep: Path | None = None) -> None:
    """Rename a complete file when it is on disk: never the name before the bytes."""
    _sync(partial, os.O_RDWR)
    if keep is not None and file.exists():
        file.replace(keep)
    partial.replace(file)
    if os.name == "posix":  # elsewhere a folder cannot be opened
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

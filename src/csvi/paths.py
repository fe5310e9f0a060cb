"""Paths as people write them, and regular files."""

import errno
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path

from csvi.errors import CsviError


def expanded(path: str | os.PathLike[str]) -> Path:
    """Write out the folder that `~` or `~name` stands for; raises `CsviError` if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise CsviError(f"{path} begins with the name of nobody who has a home here: write the path in full") from error


def as_argument(path: str | Path) -> str:
    """Quote a path for a shell, so that no command takes it for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def status_of(file: Path) -> os.stat_result:
    """Ask for the status of a file, and of nothing else: a pipe would be waited for, and a device need not end.

    Raises:
        OSError: it is not there, or is no file: an IsADirectoryError if it is a folder.
    """
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Is a pipe or a device", str(file))
    return status


def open_file(file: Path) -> BufferedReader:
    """Open a file to read; raises as `status_of`, and what `open` raises."""
    status_of(file)
    return file.open("rb")


def check_ours(file: Path, is_ours: Callable[[BufferedReader], bool]) -> None:
    """Raises `CsviError` if something is there that csvi has not written, and that a new file would replace."""
    try:
        with open_file(file) as opened:
            ours = is_ours(opened)
    except FileNotFoundError:
        return
    except OSError:
        ours = False
    if not ours:
        raise CsviError(f"{file} is there and was not written by csvi: name another file")


def check_each_once(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raises `CsviError` if one of these names of files and folders is given twice, if need be in other words."""
    seen: set[Path] = set()
    for path in paths:
        place = expanded(path).resolve()
        if place in seen:
            raise CsviError(f"{path} is given twice: name every run once")
        seen.add(place)


def digest_of(file: Path) -> str:
    """Digest what a file holds, 16 hexadecimal digits of its SHA-256; raises as `open_file`."""
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def name_of_folder(folder: Path) -> str:
    """Name a run for people: the last two parts of the path of its folder."""
    return "/".join(folder.resolve().parts[-2:])


def reason(error: BaseException) -> str:
    """Say why, in some words, whatever was raised."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Milvus, opened: a server or a cluster by its address, or Milvus Lite, which runs in this process, by a file name.

Milvus Lite keeps a folder of that name, in which one process at a time works. It answers as a server does but for what
this file and `Gallery.settle` make up for.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from csvi.errors import CsviError, in_one_line
from csvi.paths import expanded
from csvi.plugins import imported

TOKEN = "MILVUS_TOKEN"
"""Environment variable of what lets one in at a server: `user:password`, or a key."""
PATIENCE = 10.0
"""Seconds that a server has to answer at all."""
BESIDE = "name a file that ends in .db, or a server, as http://localhost:19530"


class Milvus:
    """An open connection; a context manager, which closes it.

    Args:
        uri: name of a file that ends in .db, or http://host:port of a server, https:// with TLS.
        new: a file that is not there yet is made.

    Raises:
        CsviError: no server answers; or the file is missing, in use by another process, damaged or something else.
    """

    def __init__(self, uri: str, new: bool = False):
        self.local = expanded(uri).absolute() if is_local(uri) else None
        """Folder of Milvus Lite; None for a server."""
        self.name = str(self.local) if self.local else _without_password(uri)
        """For people to read."""
        module = imported("pymilvus", "search", f"the gallery {self.name}")
        for logger in ("pymilvus", "milvus_lite", "grpc"):  # what they log is raised, too
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self.types: Any = module.DataType
        self._lite: Any = None
        if self.local:
            self._lite = imported("milvus_lite.server_manager", "search", f"the gallery {self.name}")
            _check_file(self.local, new)
        why = _Why()
        with why.listening():
            try:
                address = str(self.local or uri)
                self.client: Any = module.MilvusClient(address, token=os.environ.get(TOKEN, ""), timeout=PATIENCE)
            except (module.MilvusException, ValueError) as error:
                raise self._cannot_open(why.reason or error) from error
        self._failures = (module.MilvusException, imported("grpc", "search", "Milvus").RpcError)
        if self.local:
            for folder in (self.local / "collections").glob("*/"):
                _tidy(folder)

    def __enter__(self) -> "Milvus":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; Milvus Lite first writes out what is only in its log."""
        self.client.close()
        if self.local:
            self._lite.server_manager_instance.release_server(str(self.local))

    @contextlib.contextmanager
    def speaking(self, what: str) -> Iterator[None]:
        """Turn a failure of Milvus into one sentence: cannot `what`."""
        try:
            yield
        except self._failures as error:
            local = self.local and what == "read"
            way = ": if it is damaged, remove it, and add the images again" if local else ""
            raise CsviError(f"cannot {what} the gallery {self.name} ({_words(error)}){way}") from error

    def _cannot_open(self, error: BaseException) -> CsviError:
        if not self.local:
            return CsviError(f"no Milvus at {self.name} ({_words(error)}): start the server, or {BESIDE}")
        if type(error).__name__ == "DataDirLockedError":
            return CsviError(f"the gallery {self.name} is in use by another process: wait for it, or end it")
        return CsviError(f"cannot open the gallery {self.name} ({_words(error)})")


def is_local(uri: str) -> bool:
    """Whether a gallery is a file name, and no address."""
    return "://" not in uri


def quoted(text: str) -> str:
    """Write text as a string of Milvus's filter language; raises `CsviError` if it is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CsviError(f"{text!a} is not UTF-8, as all names in a gallery are") from error
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'


def _check_file(file: Path, new: bool) -> None:
    """Raises `CsviError` if a file name is no gallery of Milvus Lite, and must not or cannot become one."""
    if file.suffix != ".db":
        raise CsviError(f"{file} is no name of a gallery: {BESIDE}")
    if file.is_dir():
        there = {entry.name for entry in file.iterdir()}
        if there and "collections" not in there:
            raise CsviError(f"{file} is a folder that holds something else than a gallery: name another")
    elif file.exists():
        raise CsviError(f"{file} is a file, and no gallery of Milvus Lite 3: name another, or remove it")
    elif not new:
        raise CsviError(f"no gallery {file}: make it with csvi index add")
    elif not file.parent.is_dir():
        raise CsviError(f"no folder {file.parent}: make it, or name another gallery")


def _tidy(collection: Path) -> None:
    """Remove what a kill leaves in the folder of a collection, and Milvus Lite 3 stumbles over.

    It cannot make a collection whose folder is there without a schema. And it reads its logs again whose rows it has
    written to a segment already, which then are there twice: its manifest says from which log on they are not.
    """
    if {file.name for file in collection.iterdir()} <= {"schema.json.tmp"}:
        shutil.rmtree(collection)
        return
    try:
        written = json.loads((collection / "manifest.json").read_text())["active_wal_number"]
        for file in (collection / "wal").glob("wal_*_*.arrow"):
            if int(file.stem.rpartition("_")[2]) < written:
                file.unlink()
    except (OSError, ValueError, KeyError, TypeError):  # new, or damaged, which Milvus Lite will say
        pass


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _words(error: BaseException) -> str:
    return in_one_line(Exception(getattr(error, "message", None) or error))


class _Why(logging.Handler):
    """Hears why Milvus Lite cannot be opened, which it logs and does not raise."""

    reason: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.reason = record.exc_info[1] if record.exc_info else None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger("milvus_lite.server_manager")
        level, propagates = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagates

"""Files that are whole at every instant: what is done in which order, and what file systems cannot do."""

import errno
import os
import stat
from pathlib import Path

import pytest

from csvi.errors import CsviError
from csvi.writing import replacing


@pytest.fixture
def order(monkeypatch):
    """What is synced and renamed, as it happens."""
    happened = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        happened.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def renamed(path, target):
        happened.append(f"{path.name} -> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return happened


def write(file, text="new", **keep):
    with replacing(file, **keep) as partial:
        partial.write_text(text)


def test_a_file_has_its_name_when_its_bytes_are_on_disk_and_then_so_has_the_name(tmp_path, order):
    write(tmp_path / "a", "old")
    write(tmp_path / "a", keep=tmp_path / "before")
    synced = ["sync file", ".a.partial -> a", "sync folder"]
    assert order == [*synced, "sync file", "a -> before", *synced[1:]]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "new", "before": "old"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EIO])
@pytest.mark.parametrize("of_folder", [True, False])
def test_only_a_folder_need_not_be_synced_where_that_is_unknown(tmp_path, monkeypatch, number, of_folder):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folder:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if of_folder and number != errno.EIO:
        write(tmp_path / "a")
        assert (tmp_path / "a").read_text() == "new"
    else:
        with pytest.raises(CsviError, match=f"cannot write .*a: {os.strerror(number)}"):
            write(tmp_path / "a")
    assert not (tmp_path / ".a.partial").exists()

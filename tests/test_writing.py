"""Files that are whole at every instant: what is done in which order, and what file systems cannot do."""

import errno
import os
import re
import stat
import time
from pathlib import Path

import pytest
import torch

from csvi.errors import CsviError
from csvi.writing import placing, replacing, save_torch, written_at


@pytest.fixture
def order(monkeypatch):
    """What is synced and renamed, as it happens."""
    happened = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        happened.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def renamed(path, target):
        happened.append(re.sub(r"[0-9a-f]{32}", "RANDOM", f"{path.name} -> {target.name}"))
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
    synced = ["sync file", ".a.RANDOM.partial -> a", "sync folder"]
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
    assert not list(tmp_path.glob(".a.*"))


def test_two_writers_of_one_file_never_mix(tmp_path):
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second, and longer")
        assert first.read_text() == "first"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "first")]


def test_what_a_killed_writer_left_goes_an_hour_later(tmp_path):
    old, young, of_another = (tmp_path / f".{name}.partial" for name in ("a[1].0", "a[1].1", "b.0"))
    for file in (old, young, of_another):
        file.touch()
    for file in (old, of_another):
        os.utime(file, (time.time() - 3700,) * 2)
    write(tmp_path / "a[1]")
    assert {file.name for file in tmp_path.iterdir()} == {"a[1]", young.name, of_another.name}
    with replacing(tmp_path / "a[1]", alone=True) as partial:
        partial.touch()
    assert {file.name for file in tmp_path.iterdir()} == {"a[1]", of_another.name}


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    write(tmp_path / ("é" * 127))
    assert len(list(tmp_path.iterdir())) == 1


def test_one_of_many_files_waits_for_no_disk_and_is_missing_if_it_is_empty(tmp_path, order):
    assert written_at(tmp_path / "a") is None
    with placing(tmp_path / "a", sync=False) as partial:
        partial.touch()
    assert order == [".a.RANDOM.partial -> a"]
    assert written_at(tmp_path / "a") is None
    (tmp_path / "a").write_text("whole")
    assert written_at(tmp_path / "a") == (tmp_path / "a").stat().st_mtime


def test_the_folder_of_a_file_is_made(tmp_path):
    write(tmp_path / "new" / "folder" / "a")
    assert (tmp_path / "new/folder/a").read_text() == "new"
    with pytest.raises(CsviError, match=r"cannot write .*a/b"):
        write(tmp_path / "new/folder/a/b")


def test_what_torch_cannot_write_is_one_sentence(tmp_path, monkeypatch):
    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:668]")

    monkeypatch.setattr(torch, "save", full)
    with (
        pytest.raises(CsviError, match=r"cannot write .*a: no more than 4 bytes .*, is the disk full\?"),
        replacing(tmp_path / "a") as partial,
    ):
        save_torch({}, partial)
    assert not list(tmp_path.iterdir())

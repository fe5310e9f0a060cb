"""Homes of nobody; pipes, devices and folders under the names of files."""

import os

import pytest

from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.cache import cached_images
from csvi.data.check import check_dataset
from csvi.data.files import attach_masks, dataset_root
from csvi.errors import CsviError
from csvi.model.weights import initial_weights
from csvi.paths import expanded, open_file, reason

NOBODY = "~there-is-no-such-user/a"


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == tmp_path / "a"


@pytest.mark.parametrize(
    "use",
    [
        expanded,
        lambda path: check_dataset(DataConfig(root=path)),
        lambda path: read_benchmark(DataConfig(root=path)),
        lambda path: dataset_root(path, "RegDB", "idx"),
        lambda path: attach_masks(expanded("."), {}, path),
        lambda path: cached_images(expanded("."), [], DataConfig(cache=str(path))),
        lambda path: initial_weights("resnet18", path),
    ],
)
def test_the_home_of_nobody(use):
    with pytest.raises(CsviError, match=f"^{NOBODY} begins with the name of nobody"):
        use(NOBODY)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, error in ((tmp_path / "pipe", OSError), ("/dev/zero", OSError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error, match=r"Is a (pipe or a device|directory)"):
            open_file(expanded(path))
    (tmp_path / "file").write_bytes(b"x")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"x"


def test_a_reason_is_never_empty():
    reasons = [reason(error) for error in (OSError(5, "Input/output error", "f"), ValueError("x"), MemoryError())]
    assert reasons == ["Input/output error", "x", "MemoryError"]
